//! The daemon goes away, and comes back.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, command, eventually, script};
use crate::session::patiently;
use futures::future::try_join_all;
use hostel_sandbox::process::{AttachOptions, ProcessSpec};
use hostel_sandbox::{Error, ProcessId, SandboxId};
use std::sync::Arc;

cases! { "restart":
    a_running_process_loses_no_output [Reattach],
    twice_in_a_row [Reattach],
    a_process_that_ended_meanwhile_is_known [Reattach],
    what_ended_before_is_known [Reattach],
    input_goes_on_at_its_offset [Reattach],
    a_terminal_goes_on [Reattach, Pty],
    files_and_environment_are_as_they_were [Reattach, OtherUsers],
    limits_still_hold [Reattach, PidsLimit],
    usage_is_still_known [Reattach, Stats],
    a_paused_sandbox_can_be_resumed [Reattach, Pause],
    templates_are_still_there [Reattach, TemplateImport],
    what_is_gone_is_not_found [Reattach],
    a_wrong_handle_is_refused [Reattach],
    what_nobody_adopts_is_removed [Reattach],
    what_is_adopted_is_not_removed [Reattach],
    a_creation_cut_short_is_removed [Reattach],
    an_adopted_sandbox_can_be_destroyed [Reattach],
    new_sandboxes_can_be_made [Reattach],
    many_sandboxes_come_back [Reattach],
}

type H = Arc<Harness>;

const COUNT: &str = "i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i + 1)); sleep 0.005; done; echo end";

/// Fails unless the text is 0, 1, 2, … and the last line, each on its line: nothing lost, nothing twice.
pub(super) fn consecutive(text: &str, last: &str) -> Outcome {
    let lines: Vec<&str> = text.lines().collect();
    let Some((end, numbers)) = lines.split_last() else { return Err(Failure::new("there is no output")) };
    for (number, line) in numbers.iter().enumerate() {
        ensure!(*line == number.to_string(), "line {number} is {line:?}");
    }
    ensure_eq!(*end, last);
    ensure!(numbers.len() > 3, "only {} lines", numbers.len());
    Ok(())
}

fn from(stdout: usize) -> AttachOptions {
    AttachOptions { stdin: false, stdout_from: Some(stdout as u64), ..AttachOptions::everything() }
}

/// Counts through that many restarts.
async fn count_through(h: &Harness, restarts: u32) -> Outcome {
    let h = h.fresh().await?;
    let mut sandbox = h.sandbox().await?;
    let mut session = sandbox.open(script(COUNT)).await?;
    let id = session.reader.process.id.clone();
    let mut all = Vec::new();
    for round in 1..=restarts {
        session.reader.until(&format!("{}\n", round * 40)).await?;
        all.append(&mut session.reader.stdout);
        h.restart().await?;
        sandbox = h.adopt(&sandbox).await?;
        session = sandbox.attach_with(&id, from(all.len())).await?;
    }
    session.reader.until(&format!("{}\n", (restarts + 1) * 40)).await?;
    sandbox.sh("touch /tmp/stop").await?;
    let finished = session.finish().await?.success()?;
    all.extend_from_slice(&finished.stdout);
    consecutive(&String::from_utf8_lossy(&all), "end")?;
    // From the beginning it is the same.
    let again = sandbox.attach_with(&id, from(0)).await?.finish().await?;
    ensure!(again.stdout == all, "the second reading differs");
    Ok(())
}

async fn a_running_process_loses_no_output(h: H) -> Outcome {
    count_through(&h, 1).await
}

async fn twice_in_a_row(h: H) -> Outcome {
    count_through(&h, 3).await
}

async fn a_process_that_ended_meanwhile_is_known(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let ids = try_join_all([0, 50, 100, 200, 400].map(|millis| {
        let text = format!("{probe} spin {millis} >/dev/null; echo done {millis}; exit 7");
        let sandbox = &sandbox;
        async move { Ok::<_, Failure>((millis, sandbox.inside()?.start(script(&text)).await?.id)) }
    }))
    .await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    for (millis, id) in ids {
        let ended = patiently("the end", sandbox.inside()?.wait(&id)).await??;
        ensure_eq!(ended.exit.and_then(|exit| exit.code), Some(7), "after {millis} ms");
        let finished = sandbox.attach_with(&id, from(0)).await?.finish().await?;
        ensure_eq!(finished.text(), format!("done {millis}\n"));
    }
    Ok(())
}

async fn what_ended_before_is_known(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let before = sandbox.finish(script("echo out; echo err >&2; exit 9")).await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    ensure_eq!(sandbox.inside()?.wait(&before.process.id).await?.exit, Some(before.exit));
    let after = sandbox.attach_with(&before.process.id, from(0)).await?.finish().await?;
    ensure_eq!((after.text().as_str(), after.complaint().as_str()), ("out\n", "err\n"));
    // Its id is still taken.
    let again = ProcessSpec { id: Some(before.process.id), ..script("true") };
    ensure_err!(sandbox.inside()?.start(again).await, Error::AlreadyExists { .. });
    Ok(())
}

async fn input_goes_on_at_its_offset(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let mut session = sandbox.open(ProcessSpec { stdin: true, ..command(&["cat"]) }).await?;
    session.stdin.send("before ").await?;
    session.reader.until("before ").await?;
    let id = session.reader.process.id.clone();
    h.restart().await?;
    drop(session);
    let sandbox = h.adopt(&sandbox).await?;
    let options = AttachOptions { takeover: true, ..AttachOptions::everything() };
    let mut session = sandbox.attach_with(&id, options).await?;
    ensure_eq!(session.reader.process.stdin_offset, 7);
    // The client is not sure what arrived and begins earlier.
    session.stdin.offset = 3;
    session.stdin.send("ore after").await?;
    session.stdin.close().await?;
    ensure_eq!(session.finish().await?.success()?.text(), "before after");
    Ok(())
}

async fn a_terminal_goes_on(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let spec = ProcessSpec {
        terminal: Some(Default::default()),
        stdin: true,
        ..script("echo on; read line; echo got $line")
    };
    let mut session = sandbox.open(spec).await?;
    session.reader.until("on").await?;
    let id = session.reader.process.id.clone();
    h.restart().await?;
    drop(session);
    let sandbox = h.adopt(&sandbox).await?;
    let options = AttachOptions { takeover: true, ..AttachOptions::everything() };
    let mut session = sandbox.attach_with(&id, options).await?;
    session.stdin.send("text\n").await?;
    let said = session.finish().await?.success()?.text();
    ensure!(said.ends_with("got text\r\n"), "{said:?}");
    Ok(())
}

async fn files_and_environment_are_as_they_were(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h
        .sandbox_with(|spec| {
            spec.env = [("KEPT".to_owned(), "yes".to_owned())].into();
            spec.user = Some("1000".to_owned());
            spec.workdir = Some("/tmp/work".to_owned());
        })
        .await?;
    sandbox.sh("echo mine > file").await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    ensure_eq!(sandbox.sh("cat file; pwd; id -u; echo $KEPT").await?, "mine\n/tmp/work\n1000\nyes\n");
    ensure_eq!(sandbox.get("/tmp/work/file").await?, b"mine\n");
    Ok(())
}

async fn limits_still_hold(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox_with(|spec| spec.limits.pids = Some(20)).await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    let count = super::limits::refused(&sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure!(count < 20, "{count} processes of 20");
    let more = hostel_sandbox::ResourceLimits { pids: Some(60), ..Default::default() };
    let changed = sandbox.update_limits(&more).await;
    if super::limits::fixed(&changed) {
        return Ok(());
    }
    changed?;
    let count = super::limits::refused(&sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure!((20..60).contains(&count), "{count} processes of 60");
    Ok(())
}

async fn usage_is_still_known(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    sandbox.run_probe(&["spin", "200"]).await?.success()?;
    let before = sandbox.stats().await?;
    h.restart().await?;
    let after = h.adopt(&sandbox).await?.stats().await?;
    ensure!(after.cpu_time >= before.cpu_time, "was {:?}, is {:?}", before.cpu_time, after.cpu_time);
    Ok(())
}

async fn a_paused_sandbox_can_be_resumed(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let process =
        sandbox.inside()?.start(script("while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3")).await?;
    sandbox.pause().await?;
    h.restart().await?;
    let sandbox = patiently("adopting a paused sandbox", h.adopt(&sandbox)).await??;
    sandbox.resume().await?;
    sandbox.sh("touch /tmp/go").await?;
    ensure_eq!(
        patiently("the end", sandbox.inside()?.wait(&process.id)).await??.exit.and_then(|exit| exit.code),
        Some(3)
    );
    Ok(())
}

async fn templates_are_still_there(h: H) -> Outcome {
    let h = h.fresh().await?;
    let template = h.template(hostel_sandbox::template::TemplateSource::Imported);
    let id = template.id.clone();
    let tar = crate::archive::Archive::new().file("bin/p", 0o755, h.factory().probe())?.bytes()?;
    let stream = crate::archive::stream(tar);
    h.backend().import_template(template, stream, hostel_sandbox::file::Compression::None).await?;
    h.restart().await?;
    ensure!(h.backend().templates().await?.iter().any(|template| template.id == id), "{id} is not listed");
    h.sandbox_from(&id).await?.run(&["/bin/p", "exit", "0"]).await?.success()?;
    Ok(())
}

async fn what_is_gone_is_not_found(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    sandbox.destroy().await?;
    h.restart().await?;
    ensure_err!(patiently("adopting", h.adopt(&sandbox)).await?.map(|_| ()), Error::NotFound { .. });
    h.nothing_left(sandbox.id()).await
}

async fn a_wrong_handle_is_refused(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    h.restart().await?;
    let id = SandboxId::generate();
    for handle in [&b""[..], b"{}", b"\xff\xfe\0", &[b'x'; 100_000], &sandbox.handle] {
        let handle = bytes::Bytes::copy_from_slice(handle);
        let adopted = patiently("adopting", h.backend().adopt(&id, &handle)).await?;
        ensure!(adopted.is_err(), "{id} was adopted by a handle that is not its own");
    }
    // None of that hurt the one that exists.
    ensure_eq!(h.adopt(&sandbox).await?.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn what_nobody_adopts_is_removed(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandboxes = try_join_all((0..3).map(|_| h.sandbox())).await?;
    for sandbox in &sandboxes {
        sandbox.inside()?.start(script("exec sleep 1000")).await?;
    }
    h.restart().await?;
    let removed = patiently("removing orphans", h.backend().remove_orphans()).await??;
    ensure!(removed >= 3, "{removed} of 3 were removed");
    for sandbox in &sandboxes {
        h.nothing_left(sandbox.id()).await?;
        ensure_err!(h.adopt(sandbox).await.map(|_| ()), Error::NotFound { .. });
    }
    Ok(())
}

async fn what_is_adopted_is_not_removed(h: H) -> Outcome {
    let h = h.fresh().await?;
    let (kept, left) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let process = kept.inside()?.start(script(COUNT)).await?;
    h.restart().await?;
    let kept = h.adopt(&kept).await?;
    let new = h.sandbox().await?;
    patiently("removing orphans", h.backend().remove_orphans()).await??;
    h.nothing_left(left.id()).await?;
    ensure_eq!(new.sh("echo new").await?, "new\n");
    kept.sh("touch /tmp/stop").await?;
    consecutive(&kept.attach_with(&process.id, from(0)).await?.finish().await?.text(), "end")
}

async fn a_creation_cut_short_is_removed(h: H) -> Outcome {
    let h = h.fresh().await?;
    let mut ids = Vec::new();
    for micros in [0, 100, 300, 1000, 3000] {
        let id = SandboxId::generate();
        h.watch_id(&id);
        let spec = h.spec();
        let backend = h.backend();
        let _ =
            tokio::time::timeout(std::time::Duration::from_micros(micros), backend.create(&id, &spec)).await;
        ids.push(id);
    }
    // At once, before what was begun can be cleaned up.
    h.restart().await?;
    patiently("removing orphans", h.backend().remove_orphans()).await??;
    for id in &ids {
        h.nothing_left(id).await?;
    }
    Ok(())
}

async fn an_adopted_sandbox_can_be_destroyed(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    sandbox.inside()?.start(script("setsid sleep 1000 & exec sleep 1000")).await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    sandbox.destroy().await?;
    h.nothing_left(sandbox.id()).await
}

async fn new_sandboxes_can_be_made(h: H) -> Outcome {
    let h = h.fresh().await?;
    let old = h.sandbox().await?;
    for round in 0..3 {
        h.restart().await?;
        let adopted = h.adopt(&old).await?;
        let new = h.sandbox().await?;
        new.sh("echo new > /tmp/new").await?;
        adopted.sh("[ ! -e /tmp/new ]").await.map_err(|failure| failure.while_(format!("round {round}")))?;
        new.destroy().await?;
    }
    Ok(())
}

async fn many_sandboxes_come_back(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandboxes = try_join_all((0..20).map(|_| h.sandbox())).await?;
    let id = &ProcessId::parse("worker")?;
    for (number, sandbox) in sandboxes.iter().enumerate() {
        let text = format!("echo {number}; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo over");
        sandbox.inside()?.start(ProcessSpec { id: Some(id.clone()), ..script(&text) }).await?;
    }
    h.restart().await?;
    let adopted = try_join_all(sandboxes.iter().map(|sandbox| h.adopt(sandbox))).await?;
    for (number, sandbox) in adopted.iter().enumerate() {
        sandbox.sh("touch /tmp/go").await?;
        let said =
            eventually(|| async { Ok(sandbox.attach_with(id, from(0)).await?.finish().await?.text()) })
                .await?;
        ensure_eq!(said, format!("{number}\nover\n"));
    }
    Ok(())
}
