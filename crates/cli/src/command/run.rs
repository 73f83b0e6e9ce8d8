//! `hostel run`: a sandbox for one command.

use super::stream::{Streaming, conclude, stream};
use super::{Context, Outcome};
use crate::args::RunArgs;
use crate::failure::Failure;
use crate::output::{self, progress::Progress};
use crate::signals::Signals;
use crate::terminal;
use hostel_client::domain::SandboxId;
use hostel_client::domain::process::ProcessSpec;
use hostel_client::{Client, CreateSandbox, Error, Exec};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// When we are killed with SIGKILL nobody deletes the sandbox; it then goes this long after its command ended.
const ORPHANED: Duration = Duration::from_secs(300);
/// How long deleting may take before we say that it failed.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn run(context: &Context, args: RunArgs) -> Outcome {
    super::exec::check_terminal(&args.process, context.json)?;
    let mut create = args.sandbox.create()?;
    // Our own choice of an id, so that what a lost answer would have told us can be deleted all the same.
    let id = SandboxId::generate();
    create.id = Some(id.clone());
    create.spec.idle_timeout = (!args.keep).then_some(ORPHANED);
    create.wait = Some(args.wait);
    let spec = ProcessSpec {
        argv: args.command,
        stdin: args.process.interactive,
        terminal: args.process.tty.then(|| terminal::size().unwrap_or_default()),
        timeout: args.process.timeout,
        ..ProcessSpec::default()
    };
    let how = Streaming {
        interactive: args.process.interactive,
        json: context.json,
        forward_signals: true,
        tell_of_reconnecting: context.tells_of_reconnecting(),
    };

    let mut signals = Signals::listen()?;
    let client = signals.guard(context.connect()).await?;
    let work = Work { context, client: &client, id: &id, files: args.file, how, made: Cell::new(false) };
    let result = work.run(create, spec, &mut signals).await;
    // One that nobody was told of is kept for nobody.
    if !(args.keep && work.made.get()) {
        tokio::select! {
            () = clean_up(&client, &id, &result) => {}
            _ = signals.end() => output::note(&format!("sandbox {id} is left: hostel sandbox rm {id}")),
        }
    } else if !context.json {
        output::note(&format!("kept sandbox {id}"));
    }
    result
}

struct Work<'a> {
    context: &'a Context,
    client: &'a Client,
    id: &'a SandboxId,
    files: Vec<(PathBuf, String)>,
    how: Streaming,
    /// Whether the sandbox is there for certain.
    made: Cell<bool>,
}

impl Work<'_> {
    async fn run(&self, create: CreateSandbox, spec: ProcessSpec, signals: &mut Signals) -> Outcome {
        let limit = spec.timeout;
        let launch = async {
            let begin = Instant::now();
            let created = self.client.create_sandbox(create).await?;
            self.made.set(true);
            self.context.tell_of_start(&created, begin.elapsed());
            if self.how.json {
                output::json(&output::json::created(&created, begin.elapsed()))?;
            }
            for (source, target) in &self.files {
                let progress = Progress::new(&source.display().to_string(), Progress::total(source), false);
                self.client.upload(self.id, source, target, &|bytes| progress.add(bytes)).await?;
            }
            Ok::<_, Failure>(self.client.exec(Exec::new(self.id.clone(), spec)).await?)
        };
        let session = signals.guard(Box::pin(launch)).await?;
        let ended = stream(self.client, session, self.how, signals).await?;
        Ok(conclude(&ended, limit, self.how.json))
    }
}

/// Deletes the sandbox. What goes wrong is told, and does not change the exit code.
async fn clean_up(client: &Client, id: &SandboxId, result: &Outcome) {
    // Where nobody answers there is nothing to delete, or nobody to do it.
    if matches!(result, Err(Failure::Client(Error::Unreachable { .. }))) {
        return;
    }
    let mut deleted = timeout(DELETE_TIMEOUT, client.delete_sandbox_if_there(id)).await;
    if matches!(&deleted, Ok(Err(error)) if error.is_connection()) {
        // The daemon is being restarted, perhaps.
        tokio::time::sleep(Duration::from_secs(1)).await;
        deleted = timeout(DELETE_TIMEOUT, client.delete_sandbox_if_there(id)).await;
    }
    match deleted {
        Ok(Ok(())) => {}
        Ok(Err(error)) => output::note(&format!("sandbox {id} is left: {error}")),
        Err(_) => output::note(&format!("sandbox {id} is left: hosteld did not delete it in time")),
    }
}
