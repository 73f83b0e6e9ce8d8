//! `hostel template build --run`: commands on top of another template.

use super::made;
use crate::args::BuildArgs;
use crate::command::{Context, Outcome};
use crate::failure::Failure;
use crate::output::{self, human, json};
use crate::signals::{self, Signals};
use hostel_client::domain::TemplateId;
use hostel_client::domain::process::ProcessSpec;
use hostel_client::domain::template::{Template, TemplateSource};
use hostel_client::model::Template as Made;
use hostel_client::{BuildEvent, BuildTemplate, BuildWatch, Client};
use serde_json::json;
use std::io::Write as _;
use std::time::Duration;

pub(super) async fn build(context: &Context, client: &Client, args: BuildArgs) -> Outcome {
    let source = args.base.map_or(TemplateSource::Imported, |base| TemplateSource::Built { base });
    let mut template = Template::new(args.name, source);
    template.labels = args.label.into_iter().collect();
    let step = |line: String| ProcessSpec {
        argv: vec!["sh".to_owned(), "-ec".to_owned(), line],
        user: args.user.clone(),
        ..ProcessSpec::default()
    };
    let steps: Vec<ProcessSpec> = args.run.into_iter().map(step).collect();
    let count = steps.len();
    let request_id = args.request_id.unwrap_or_else(|| format!("build-{}", TemplateId::generate()));
    let again = format!("--request-id {request_id}");
    let request = BuildTemplate { template, steps, backend: args.backend, request_id: Some(request_id) };
    let mut signals = Signals::listen()?;
    let watch = client.build_template(request).await?;
    tokio::select! {
        built = follow(context, watch, count) => match built {
            Err(Failure::Client(error)) if error.is_connection() => {
                output::note(&format!("the build goes on; the same command with {again} follows it"));
                Err(error.into())
            }
            built => made(context, &built?),
        },
        signal = signals.end() => {
            output::note(&format!("the build goes on; the same command with {again} follows it"));
            Ok(signals::exit_code(signal))
        }
    }
}

/// Shows how it goes: all on stderr, since the template is what comes out.
async fn follow(context: &Context, mut watch: BuildWatch, count: usize) -> Result<Made, Failure> {
    let lost = || Failure::other("PROTOCOL_VIOLATION", "hosteld ended a build without a template");
    loop {
        match watch.next().await?.ok_or_else(lost)? {
            BuildEvent::Done(template) => return Ok(*template),
            event if context.json => output::json(&in_json(&event))?,
            BuildEvent::StepStarted { index, command } => {
                let line = command.last().map_or("", String::as_str);
                output::note(&format!("[{}/{count}] {line}", index + 1));
            }
            BuildEvent::Output { data, .. } => {
                // Whoever closed stderr does not want to read it.
                let _ = std::io::stderr().write_all(&data);
            }
            BuildEvent::StepFinished { index, duration, .. } => {
                output::note(&format!(
                    "[{}/{count}] done in {}",
                    index + 1,
                    human::duration(Duration::from_millis(
                        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
                    ))
                ));
            }
        }
    }
}

fn in_json(event: &BuildEvent) -> serde_json::Value {
    match event {
        BuildEvent::StepStarted { index, command } => {
            json!({ "event": "step_started", "step": index, "command": command })
        }
        BuildEvent::StepFinished { index, duration, .. } => {
            json!({ "event": "step_finished", "step": index, "duration_seconds": duration.as_secs_f64() })
        }
        BuildEvent::Output { index, stream, data } => json::step_output(*index, *stream, data),
        BuildEvent::Done(template) => json!({ "event": "template", "template": template }),
    }
}
