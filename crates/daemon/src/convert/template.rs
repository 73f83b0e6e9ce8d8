//! Templates.

use super::{
    api_duration, api_limits, api_network, duration, limits, network, optional, optional_id, timestamp,
};
use crate::error::Result;
use crate::sandboxes::BuildRequest;
use hostel_proto::v1;
use hostel_sandbox::template::{Probe, Template, TemplateCommand, TemplateSource};
use hostel_sandbox::{BackendName, Error as DomainError, TemplateId};
use std::path::Path;
use std::time::Duration;

/// Most steps of one build.
const MOST_STEPS: usize = 64;

/// The template that an import asks for, and the backend it shall be for.
pub(crate) fn imported(open: &v1::ImportTemplateOpen) -> Result<(Template, Option<BackendName>)> {
    let source = match optional_id(open.base_template.clone(), TemplateId::parse)? {
        Some(base) => TemplateSource::Layer { base },
        None => TemplateSource::Imported,
    };
    let mut template = Template::new(TemplateId::parse(open.name.clone())?, source);
    template.labels.clone_from(&open.labels);
    fill(&mut template, open.defaults.clone())?;
    Ok((template, optional_id(open.backend.clone(), BackendName::parse)?))
}

/// What a build asks for.
pub(crate) fn build(request: v1::BuildTemplateRequest) -> Result<BuildRequest> {
    let base = optional_id(request.base_template, TemplateId::parse)?;
    // The registry knows the default base.
    let source = base.map_or(TemplateSource::Imported, |base| TemplateSource::Built { base });
    let mut template = Template::new(TemplateId::parse(request.name)?, source);
    template.labels = request.labels;
    fill(&mut template, request.defaults)?;
    if request.steps.is_empty() || request.steps.len() > MOST_STEPS {
        return Err(DomainError::invalid("steps", format!("give 1 to {MOST_STEPS}")).into());
    }
    let steps = request.steps.into_iter().enumerate().map(|(index, step)| {
        super::process::spec(String::new(), Some(step))
            .map_err(|error| super::process::elsewhere(error, &format!("steps[{index}]")))
    });
    Ok(BuildRequest {
        template,
        steps: steps.collect::<Result<_>>()?,
        backend: optional_id(request.backend, BackendName::parse)?,
    })
}

fn fill(template: &mut Template, defaults: Option<v1::TemplateDefaults>) -> Result<()> {
    if let Some(defaults) = defaults {
        template.limits = limits(defaults.limits);
        template.max_limits = limits(defaults.max_limits);
        template.env = defaults.env;
        template.user = optional(defaults.user);
        template.workdir = optional(defaults.working_directory);
        template.network = network(defaults.network_policy)?;
        let commands = defaults.start_commands.into_iter().map(command);
        template.start_commands = commands.collect::<Result<_>>()?;
        template.probe = defaults.readiness_probe.map(probe).transpose()?;
    }
    Ok(template.validate().map_err(as_the_api_spells_it)?)
}

fn command(spec: v1::ProcessSpec) -> Result<TemplateCommand> {
    if spec.terminal.is_some() || spec.stdin {
        let problem = "nobody is there to write to it: no terminal and no stdin";
        return Err(DomainError::invalid("defaults.start_commands", problem).into());
    }
    Ok(TemplateCommand {
        argv: spec.command,
        env: spec.env,
        cwd: optional(spec.working_directory),
        user: optional(spec.user),
        timeout: spec.timeout.map(|timeout| duration("timeout", timeout)).transpose()?,
    })
}

fn probe(probe: v1::ReadinessProbe) -> Result<Probe> {
    let time = |field: &str, value: Option<prost_types::Duration>, default: Duration| {
        value.map_or(Ok(default), |value| duration(&format!("readiness_probe.{field}"), value))
    };
    Ok(Probe {
        command: command(probe.command.unwrap_or_default())?,
        interval: time("interval", probe.interval, Probe::INTERVAL)?,
        timeout: time("timeout", probe.timeout, Probe::TIMEOUT)?,
    })
}

/// The domain's field names, as the request spells them.
fn as_the_api_spells_it(error: DomainError) -> DomainError {
    let DomainError::InvalidArgument { field, problem } = error else { return error };
    if field.starts_with("labels") {
        return DomainError::InvalidArgument { field, problem };
    }
    let (place, last) = field.rsplit_once('.').map_or(("", field.as_str()), |(place, last)| (place, last));
    let last = match last {
        "argv" => "command",
        "cwd" | "workdir" => "working_directory",
        other => other,
    };
    let dot = if place.is_empty() { "" } else { "." };
    DomainError::InvalidArgument { field: format!("defaults.{place}{dot}{last}"), problem }
}

/// A template as clients see it. `backends` are those that have one of this name.
pub(crate) fn api_template(
    template: &Template,
    backends: &[BackendName],
    declared_in: Option<&Path>,
    sandboxes: usize,
) -> v1::Template {
    let origin = match &template.source {
        _ if declared_in.is_some() => v1::TemplateOrigin::Declared,
        TemplateSource::Host => v1::TemplateOrigin::Host,
        TemplateSource::Snapshot { .. } => v1::TemplateOrigin::Snapshot,
        TemplateSource::Built { .. } => v1::TemplateOrigin::Build,
        TemplateSource::Imported | TemplateSource::Image { .. } | TemplateSource::Layer { .. } => {
            v1::TemplateOrigin::Import
        }
    };
    let moment = !matches!(origin, v1::TemplateOrigin::Host | v1::TemplateOrigin::Declared);
    v1::Template {
        name: template.id.to_string(),
        labels: template.labels.clone(),
        origin: origin.into(),
        base_template: template.source.base().map(ToString::to_string).unwrap_or_default(),
        source_sandbox_id: match &template.source {
            TemplateSource::Snapshot { sandbox, .. } => {
                sandbox.as_ref().map(ToString::to_string).unwrap_or_default()
            }
            _ => String::new(),
        },
        backends: backends.iter().map(ToString::to_string).collect(),
        size_bytes: template.size_bytes,
        defaults: Some(api_defaults(template)),
        create_time: moment.then(|| timestamp(template.created)),
        sandbox_count: u32::try_from(sandboxes).unwrap_or(u32::MAX),
        image: match &template.source {
            TemplateSource::Image { reference } => reference.clone(),
            _ => String::new(),
        },
        declared_in: declared_in.map(|file| file.display().to_string()).unwrap_or_default(),
    }
}

fn api_defaults(template: &Template) -> v1::TemplateDefaults {
    v1::TemplateDefaults {
        limits: Some(api_limits(&template.limits)),
        max_limits: Some(api_limits(&template.max_limits)),
        env: template.env.clone(),
        user: template.user.clone().unwrap_or_default(),
        working_directory: template.workdir.clone().unwrap_or_default(),
        network_policy: template.network.as_ref().map(api_network),
        start_commands: template.start_commands.iter().map(api_command).collect(),
        readiness_probe: template.probe.as_ref().map(|probe| v1::ReadinessProbe {
            command: Some(api_command(&probe.command)),
            interval: Some(api_duration(probe.interval)),
            timeout: Some(api_duration(probe.timeout)),
        }),
    }
}

fn api_command(command: &TemplateCommand) -> v1::ProcessSpec {
    v1::ProcessSpec {
        command: command.argv.clone(),
        env: command.env.clone(),
        working_directory: command.cwd.clone().unwrap_or_default(),
        user: command.user.clone().unwrap_or_default(),
        timeout: command.timeout.map(api_duration),
        ..v1::ProcessSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> v1::ImportTemplateOpen {
        v1::ImportTemplateOpen { name: "t".to_owned(), ..Default::default() }
    }

    #[test]
    fn defaults_go_in_and_come_out_the_same() {
        let defaults = v1::TemplateDefaults {
            limits: Some(v1::ResourceLimits { pids: Some(99), ..Default::default() }),
            max_limits: Some(v1::ResourceLimits { pids: Some(100), ..Default::default() }),
            env: [("A".to_owned(), "b".to_owned())].into(),
            user: "agent".to_owned(),
            working_directory: "/workspace".to_owned(),
            network_policy: Some(api_network(&hostel_sandbox::NetworkPolicy::none())),
            start_commands: vec![v1::ProcessSpec { command: vec!["true".to_owned()], ..Default::default() }],
            readiness_probe: Some(v1::ReadinessProbe {
                command: Some(v1::ProcessSpec { command: vec!["true".to_owned()], ..Default::default() }),
                interval: Some(api_duration(Duration::from_millis(50))),
                timeout: Some(api_duration(Duration::from_secs(5))),
            }),
        };
        let (template, _) =
            imported(&v1::ImportTemplateOpen { defaults: Some(defaults.clone()), ..open() }).unwrap();
        assert_eq!(api_defaults(&template), defaults);
    }

    #[test]
    fn wrong_fields_are_named_as_the_request_spells_them() {
        let bad = |defaults| {
            let open = v1::ImportTemplateOpen { defaults: Some(defaults), ..open() };
            imported(&open).unwrap_err().to_string()
        };
        let workdir = v1::TemplateDefaults { working_directory: "x".to_owned(), ..Default::default() };
        assert!(bad(workdir).starts_with("defaults.working_directory"));
        let commands =
            v1::TemplateDefaults { start_commands: vec![v1::ProcessSpec::default()], ..Default::default() };
        assert!(bad(commands).starts_with("defaults.start_commands[0].command"));
        let request = v1::BuildTemplateRequest {
            name: "t".to_owned(),
            steps: vec![v1::ProcessSpec::default()],
            ..Default::default()
        };
        assert!(build(request).unwrap_err().to_string().starts_with("steps[0].command"));
    }
}
