//! Attaching again: output is addressed by offset.

use super::output::check;
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq};
use crate::harness::{Harness, command, script};
use crate::session::patiently;
use futures::future::try_join_all;
use hostel_sandbox::process::{AttachOptions, Input, Output, OutputStream};
use std::sync::Arc;

cases! { "attach":
    after_the_end_everything_is_still_there,
    from_any_offset_that_is_held,
    from_now_on_only,
    two_readers_both_get_everything,
    many_readers_come_and_go,
    what_is_no_longer_held_is_a_gap,
    a_detached_writer_never_waits,
    a_broken_attachment_continues_where_it_was,
    acknowledging_is_accepted,
    one_stream_alone,
}

type H = Arc<Harness>;

fn reading() -> AttachOptions {
    AttachOptions { stdin: false, ..AttachOptions::everything() }
}

async fn after_the_end_everything_is_still_there(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let process = sandbox.inside()?.start(script("echo out; echo err >&2; exit 3")).await?;
    patiently("the end", sandbox.inside()?.wait(&process.id)).await??;
    for _ in 0..3 {
        let finished = sandbox.attach_with(&process.id, reading()).await?.finish().await?;
        ensure_eq!((finished.text().as_str(), finished.complaint().as_str()), ("out\n", "err\n"));
        ensure_eq!(finished.code(), Some(3));
        ensure!(finished.process.exit.is_some(), "opened as if it were running");
    }
    Ok(())
}

async fn from_any_offset_that_is_held(h: H) -> Outcome {
    const SIZE: u64 = 300_000;
    let sandbox = h.sandbox().await?;
    let id = sandbox.run_probe(&["pattern", &SIZE.to_string(), "1"]).await?.success()?.process.id;
    for from in [0, 1, 4095, 65_536, 299_999, SIZE] {
        let options = AttachOptions { stdout_from: Some(from), ..reading() };
        let finished = sandbox.attach_with(&id, options).await?.finish().await?;
        ensure_eq!(finished.stdout.len() as u64, SIZE - from);
        check(1, from, &finished.stdout)?;
    }
    Ok(())
}

async fn from_now_on_only(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "echo before; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo after";
    let mut first = sandbox.open(script(text)).await?;
    first.reader.until("before").await?;
    let id = first.reader.process.id.clone();
    let now = sandbox.attach_with(&id, AttachOptions::default()).await?;
    sandbox.sh("touch /tmp/go").await?;
    ensure_eq!(now.finish().await?.text(), "after\n");
    ensure_eq!(first.finish().await?.text(), "before\nafter\n");
    // Of a process that ended, nothing but the end is still to come.
    ensure_eq!(sandbox.attach_with(&id, AttachOptions::default()).await?.finish().await?.text(), "");
    Ok(())
}

async fn two_readers_both_get_everything(h: H) -> Outcome {
    const SIZE: u64 = 16 << 20;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let text = format!("while [ ! -e /tmp/go ]; do sleep 0.05; done; {probe} pattern {SIZE} 1");
    let first = sandbox.open(script(&text)).await?;
    let second = sandbox.attach_with(&first.reader.process.id, reading()).await?;
    sandbox.sh("touch /tmp/go").await?;
    let read = |session: crate::Session| async move {
        let mut last = 0;
        let finished = session.reader.finish_with(|_, offset, data| {
            last = offset + data.len() as u64;
            check(1, offset, data)
        });
        finished.await?.success()?;
        Ok::<u64, crate::Failure>(last)
    };
    ensure_eq!(futures::future::try_join(read(first), read(second)).await?, (SIZE, SIZE));
    Ok(())
}

async fn many_readers_come_and_go(h: H) -> Outcome {
    let sandbox = &h.sandbox().await?;
    let text = "i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i + 1)); sleep 0.01; done; echo end";
    let id = &sandbox.inside()?.start(script(text)).await?.id;
    for _ in 0..10 {
        try_join_all((0..8).map(|_| async move {
            let mut session = sandbox.attach_with(id, reading()).await?;
            session.reader.until("\n3\n").await
        }))
        .await?;
    }
    sandbox.sh("touch /tmp/stop").await?;
    let text = sandbox.attach_with(id, reading()).await?.finish().await?.success()?.text();
    super::restart::consecutive(&text, "end")
}

async fn what_is_no_longer_held_is_a_gap(h: H) -> Outcome {
    const SIZE: u64 = 128 << 20;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let process = sandbox.inside()?.start(command(&[probe, "pattern", &SIZE.to_string(), "1"])).await?;
    patiently("the end", sandbox.inside()?.wait(&process.id)).await??;
    let session = sandbox.attach_with(&process.id, reading()).await?;
    let held = session.reader.process.stdout.clone();
    let mut first = None;
    let finished = session
        .reader
        .finish_with(|_, offset, data| {
            first.get_or_insert(offset);
            check(1, offset, data)
        })
        .await?;
    ensure_eq!(finished.code(), Some(0));
    ensure_eq!(finished.gaps.len(), 1, "{:?}", finished.gaps);
    let (stream, missing) = &finished.gaps[0];
    ensure_eq!((*stream, missing.start, Some(missing.end)), (OutputStream::Stdout, 0, first));
    ensure_eq!(held, missing.end..SIZE, "what is held");
    ensure!(held.end - held.start >= 1 << 20, "only {} bytes are held", held.end - held.start);
    // From what is held there is no gap.
    let options = AttachOptions { stdout_from: Some(held.start + 7), ..reading() };
    let finished = sandbox.attach_with(&process.id, options).await?.finish().await?.success()?;
    ensure_eq!(finished.stdout.len() as u64, held.end - held.start - 7);
    check(1, held.start + 7, &finished.stdout)
}

async fn a_detached_writer_never_waits(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let mut session = sandbox.open(command(&[probe, "pattern", "134217728", "1"])).await?;
    session.reader.next().await?;
    let id = session.reader.process.id.clone();
    // It waits for this reader; once the reader is gone it must go on.
    drop(session);
    ensure_eq!(
        patiently("the end", sandbox.inside()?.wait(&id)).await??.exit.and_then(|exit| exit.code),
        Some(0)
    );
    Ok(())
}

async fn a_broken_attachment_continues_where_it_was(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i + 1)); done; echo end";
    let process = sandbox.inside()?.start(script(text)).await?;
    let mut all = Vec::new();
    loop {
        let options = AttachOptions { stdout_from: Some(all.len() as u64), ..reading() };
        let mut session = sandbox.attach_with(&process.id, options).await?;
        match session.reader.next().await? {
            Output::Data { data, .. } => all.extend_from_slice(&data[..data.len().min(997)]),
            Output::Exited(_) => break,
            _ => {}
        }
    }
    super::restart::consecutive(&String::from_utf8_lossy(&all), "end")
}

async fn acknowledging_is_accepted(h: H) -> Outcome {
    const SIZE: u64 = 8 << 20;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let process = sandbox
        .inside()?
        .start(script(&format!("while [ ! -e /tmp/go ]; do sleep 0.05; done; {probe} pattern {SIZE} 1")))
        .await?;
    let mut session = sandbox.attach_with(&process.id, AttachOptions { acks: true, ..reading() }).await?;
    sandbox.sh("touch /tmp/go").await?;
    let mut last = 0;
    loop {
        match session.reader.next().await? {
            Output::Data { stream, offset, data } => {
                check(1, offset, &data)?;
                last = offset + data.len() as u64;
                // The process may be over already, and with it the interest in what we have.
                let _ = session.stdin.input(Input::Ack { stream, offset: last }).await;
            }
            Output::Exited(_) => break,
            _ => {}
        }
    }
    ensure_eq!((last, session.reader.gaps.len()), (SIZE, 0));
    Ok(())
}

async fn one_stream_alone(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let id = sandbox.finish(script("echo out; echo err >&2")).await?.process.id;
    let options = AttachOptions { stderr_from: Some(0), ..AttachOptions::default() };
    let finished = sandbox.attach_with(&id, options).await?.finish().await?;
    ensure_eq!((finished.text().as_str(), finished.complaint().as_str()), ("", "err\n"));
    Ok(())
}
