//! `hostel cp`.

use super::{Context, Outcome, SUCCESS};
use crate::args::{CpArgs, Place};
use crate::failure::Failure;
use crate::output::{self, progress::Progress};
use crate::signals::Signals;
use hostel_client::Client;
use hostel_client::domain::SandboxId;
use hostel_client::model::WriteFile;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt as _;

pub(crate) async fn cp(context: &Context, args: CpArgs) -> Outcome {
    // What is half copied is removed when we are told to end.
    let mut signals = Signals::listen()?;
    signals.guard(Box::pin(copy(context, args))).await
}

async fn copy(context: &Context, args: CpArgs) -> Outcome {
    let copied = AtomicU64::new(0);
    let (total, what) = match &args.source {
        Place::Local(path) => (Progress::total(path), path.display().to_string()),
        Place::Sandbox(_, path) => (None, path.clone()),
        Place::Standard => (None, "stdin".to_owned()),
    };
    let to_stdout = args.target == Place::Standard;
    let bar = Progress::new(&what, total, to_stdout && crate::terminal::stdout_is_terminal());
    let progress = |bytes| {
        copied.fetch_add(bytes, Ordering::Relaxed);
        bar.add(bytes);
    };
    match (args.source, args.target) {
        (Place::Local(source), Place::Sandbox(id, target)) => {
            context.connect().await?.upload(&id, &source, &target, &progress).await?;
        }
        (Place::Sandbox(id, source), Place::Local(target)) => {
            context.connect().await?.download(&id, &source, &target, &progress).await?;
        }
        (Place::Standard, Place::Sandbox(id, path)) => {
            let write = WriteFile { path, permissions: None, create_parents: true };
            let stdin = hostel_client::counted(tokio::io::stdin(), &progress);
            context.connect().await?.write_file(&id, write, stdin).await?;
        }
        (Place::Sandbox(id, source), Place::Standard) => {
            to_standard(&context.connect().await?, &id, &source, &progress).await?;
        }
        (Place::Sandbox(..), Place::Sandbox(..)) => {
            return Err(Failure::usage(
                "one side must be local: copy out of one sandbox, then into the other",
            ));
        }
        _ => return Err(Failure::usage("one side must be in a sandbox: ID:/PATH")),
    }
    drop(bar);
    if context.json && !to_stdout {
        output::json(&json!({ "bytes": copied.into_inner() }))?;
    }
    Ok(SUCCESS)
}

async fn to_standard(
    client: &Client,
    id: &SandboxId,
    source: &str,
    progress: &(impl Fn(u64) + Sync),
) -> Result<(), Failure> {
    let mut reader = client.read_file(id, source, 0, None).await?;
    let mut stdout = tokio::io::stdout();
    while let Some(piece) = reader.next().await? {
        stdout.write_all(&piece).await.map_err(|error| Failure::stdout(&error))?;
        progress(u64::try_from(piece.len()).unwrap_or(0));
    }
    stdout.flush().await.map_err(|error| Failure::stdout(&error))
}
