//! Watching files.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_err};
use crate::harness::Harness;
use crate::session::patiently;
use hostel_sandbox::file::{FileEvent, FileEventKind};
use hostel_sandbox::{Error, Result};
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

cases! { "watch":
    changes_are_told [FileWatch],
    changes_by_the_file_calls_are_told [FileWatch],
    what_lies_deeper_is_told_only_if_asked [FileWatch],
    new_directories_are_watched_too [FileWatch],
    a_flood_is_told_or_said_to_be_lost [FileWatch],
    what_is_missing_cannot_be_watched [FileWatch],
}

type H = Arc<Harness>;

async fn next(events: &mut Receiver<Result<FileEvent>>) -> Outcome<FileEvent> {
    let event = patiently("the next change", events.recv()).await?;
    Ok(event.ok_or_else(|| Failure::new("the watch ended by itself"))??)
}

/// Reads until a change of that kind at that path, and gives everything before it.
async fn until(
    events: &mut Receiver<Result<FileEvent>>,
    kind: FileEventKind,
    path: &str,
) -> Outcome<Vec<FileEvent>> {
    let mut before = Vec::new();
    loop {
        let event = next(events)
            .await
            .map_err(|failure| failure.while_(format!("{kind:?} {path} after {before:?}")))?;
        if event.kind == kind && event.path == path {
            return Ok(before);
        }
        before.push(event);
    }
}

async fn changes_are_told(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d").await?;
    let mut events = sandbox.inside()?.watch("/tmp/d", false).await?;
    sandbox.sh("echo x > /tmp/d/f").await?;
    until(&mut events, FileEventKind::Created, "/tmp/d/f").await?;
    until(&mut events, FileEventKind::Modified, "/tmp/d/f").await?;
    sandbox.sh("chmod 600 /tmp/d/f").await?;
    until(&mut events, FileEventKind::Attributes, "/tmp/d/f").await?;
    sandbox.sh("mv /tmp/d/f /tmp/d/g").await?;
    until(&mut events, FileEventKind::Removed, "/tmp/d/f").await?;
    until(&mut events, FileEventKind::Created, "/tmp/d/g").await?;
    sandbox.sh("rm /tmp/d/g").await?;
    until(&mut events, FileEventKind::Removed, "/tmp/d/g").await?;
    Ok(())
}

async fn changes_by_the_file_calls_are_told(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.inside()?.make_directory("/tmp/d", false, None).await?;
    let mut events = sandbox.inside()?.watch("/tmp/d", false).await?;
    sandbox.put("/tmp/d/f", "x").await?;
    until(&mut events, FileEventKind::Created, "/tmp/d/f").await?;
    sandbox.inside()?.remove("/tmp/d/f", false).await?;
    until(&mut events, FileEventKind::Removed, "/tmp/d/f").await?;
    Ok(())
}

async fn what_lies_deeper_is_told_only_if_asked(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/d/deep/er").await?;
    let mut shallow = sandbox.inside()?.watch("/tmp/d", false).await?;
    let mut deep = sandbox.inside()?.watch("/tmp/d", true).await?;
    sandbox.sh("echo x > /tmp/d/deep/er/f; echo x > /tmp/d/top").await?;
    until(&mut deep, FileEventKind::Created, "/tmp/d/deep/er/f").await?;
    until(&mut deep, FileEventKind::Created, "/tmp/d/top").await?;
    let before = until(&mut shallow, FileEventKind::Created, "/tmp/d/top").await?;
    ensure!(before.iter().all(|event| !event.path.contains("/er")), "told of what lies deeper: {before:?}");
    Ok(())
}

async fn new_directories_are_watched_too(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d").await?;
    let mut events = sandbox.inside()?.watch("/tmp/d", true).await?;
    sandbox.sh("mkdir -p /tmp/d/a/b/c").await?;
    until(&mut events, FileEventKind::Created, "/tmp/d/a").await?;
    // Made at once and deep: it may be found by looking or by a change, but it is told.
    until(&mut events, FileEventKind::Created, "/tmp/d/a/b/c").await?;
    sandbox.sh("echo x > /tmp/d/a/b/c/f").await?;
    until(&mut events, FileEventKind::Created, "/tmp/d/a/b/c/f").await?;
    Ok(())
}

async fn a_flood_is_told_or_said_to_be_lost(h: H) -> Outcome {
    const FILES: usize = 3000;
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d").await?;
    let mut events = sandbox.inside()?.watch("/tmp/d", false).await?;
    // Nobody reads meanwhile.
    sandbox.sh(&format!("i=0; while [ $i -lt {FILES} ]; do : > /tmp/d/f$i; i=$((i + 1)); done")).await?;
    let mut created = 0;
    loop {
        let event =
            next(&mut events).await.map_err(|failure| failure.while_(format!("after {created} files")))?;
        match event.kind {
            FileEventKind::Overflow => {
                ensure!(event.path.is_empty(), "an overflow at {:?}", event.path);
                break;
            }
            FileEventKind::Created => created += 1,
            _ => {}
        }
        if created == FILES {
            break;
        }
    }
    drop(events);
    // The watch is over; the sandbox is not.
    sandbox.sh("echo x > /tmp/d/last").await?;
    Ok(())
}

async fn what_is_missing_cannot_be_watched(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_err!(sandbox.inside()?.watch("/tmp/nothing", true).await.map(|_| ()), Error::NotFound { .. });
    Ok(())
}
