//! Signals.

use crate::archive::{self, Archive};
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, command, script};
use crate::session::patiently;
use hostel_sandbox::Error;
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::process::{ExitReason, Input};
use std::sync::Arc;

cases! { "signals":
    a_signal_ends_a_process_and_is_reported,
    a_signal_reaches_the_whole_group,
    a_process_may_handle_a_signal,
    a_signal_may_come_through_the_attachment,
    a_stopped_process_can_be_killed,
    a_signal_after_the_end_is_a_wrong_state,
    a_signal_that_does_not_exist_is_refused,
    a_process_that_kills_itself_is_reported,
    everything_can_be_killed_and_the_sandbox_stays,
    a_fork_bomb_can_be_killed [PidsLimit],
    a_fork_bomb_can_be_killed_beside_a_download [PidsLimit],
    a_download_outlives_the_end_of_everything,
    what_an_upload_has_half_done_is_removed_while_everything_ends,
}

type H = Arc<Harness>;

async fn a_signal_ends_a_process_and_is_reported(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for signal in [1, 2, 9, 10, 15, 34, 64] {
        let mut session = sandbox.open(script("echo on; exec sleep 1000")).await?;
        session.reader.until("on").await?;
        sandbox.inside()?.signal(&session.reader.process.id, signal).await?;
        let exit = session.finish().await?.exit;
        ensure_eq!((exit.reason, exit.signal), (ExitReason::Signaled, Some(signal)));
        ensure_eq!(exit.shell_code(), 128 + signal);
    }
    Ok(())
}

async fn a_signal_reaches_the_whole_group(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "trap 'echo parent; wait; exit 0' USR1
        sh -c 'trap \"echo child; exit 0\" USR1; echo ready; while :; do sleep 0.05; done' &
        while :; do sleep 0.05; done";
    let mut session = sandbox.open(script(text)).await?;
    session.reader.until("ready").await?;
    sandbox.inside()?.signal(&session.reader.process.id, 10).await?;
    let said = session.finish().await?.text();
    ensure!(said.contains("parent") && said.contains("child"), "{said:?}");
    Ok(())
}

async fn a_process_may_handle_a_signal(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "trap 'echo caught; exit 42' TERM; echo on; while :; do sleep 0.05; done";
    let mut session = sandbox.open(script(text)).await?;
    session.reader.until("on").await?;
    sandbox.inside()?.signal(&session.reader.process.id, 15).await?;
    let finished = session.finish().await?;
    ensure_eq!((finished.text().as_str(), finished.code()), ("on\ncaught\n", Some(42)));
    Ok(())
}

async fn a_signal_may_come_through_the_attachment(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = sandbox.open(script("echo on; exec sleep 1000")).await?;
    session.reader.until("on").await?;
    session.stdin.input(Input::Signal(15)).await?;
    ensure_eq!(session.finish().await?.exit.signal, Some(15));
    Ok(())
}

async fn a_stopped_process_can_be_killed(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = sandbox.open(script("sleep 1000 & echo on; wait")).await?;
    session.reader.until("on").await?;
    let id = session.reader.process.id.clone();
    sandbox.inside()?.signal(&id, 19).await?;
    ensure!(sandbox.inside()?.process(&id).await?.exit.is_none(), "a stop is no end");
    sandbox.inside()?.signal(&id, 9).await?;
    ensure_eq!(session.finish().await?.exit.signal, Some(9));
    Ok(())
}

async fn a_signal_after_the_end_is_a_wrong_state(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let process = sandbox.inside()?.start(script("true")).await?;
    patiently("the end", sandbox.inside()?.wait(&process.id)).await??;
    ensure_err!(sandbox.inside()?.signal(&process.id, 15).await, Error::WrongState { .. });
    Ok(())
}

async fn a_signal_that_does_not_exist_is_refused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let process = sandbox.inside()?.start(script("exec sleep 1000")).await?;
    for signal in [-1, 0, 65, i32::MAX, i32::MIN] {
        ensure_err!(sandbox.inside()?.signal(&process.id, signal).await, Error::InvalidArgument { .. });
    }
    ensure!(sandbox.inside()?.process(&process.id).await?.exit.is_none(), "it ended");
    Ok(())
}

async fn a_process_that_kills_itself_is_reported(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for signal in [6, 9, 11, 15] {
        let exit = sandbox.finish(script(&format!("kill -{signal} $$"))).await?.exit;
        ensure_eq!((exit.reason, exit.signal, exit.oom_kills), (ExitReason::Signaled, Some(signal), 0));
    }
    Ok(())
}

/// Programs that run in a sandbox beside the guest and whoever asks.
const STRANGERS: &str = "for comm in /proc/[0-9]*/comm; do
        read -r name < $comm && case $name in sleep|*probe) echo $name;; esac; done 2>/dev/null; exit 0";

async fn everything_can_be_killed_and_the_sandbox_stays(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Nobody knows what left its group, and hears no signal that can be ignored.
    let text =
        "printf kept > /tmp/kept; trap '' TERM HUP INT; setsid sh -c 'sleep 1000 & sleep 1000 & wait' &
        echo on; while :; do sleep 1000; done";
    let mut session = sandbox.open(script(text)).await?;
    session.reader.until("on").await?;
    let stopped = sandbox.inside()?.start(script("kill -STOP $$; exit 0")).await?;
    while sandbox.sh(STRANGERS).await?.lines().count() < 3 {}
    sandbox.inside()?.kill_all().await?;
    let exit = session.finish().await?.exit;
    ensure_eq!((exit.reason, exit.signal), (ExitReason::Signaled, Some(9)));
    let exit = patiently("its end", sandbox.inside()?.wait(&stopped.id)).await??.exit;
    ensure_eq!(exit.map(|exit| (exit.reason, exit.signal)), Some((ExitReason::Signaled, Some(9))));
    // They are dying: nobody could stop that.
    while !sandbox.sh(STRANGERS).await?.is_empty() {}
    ensure_eq!(sandbox.sh("cat /tmp/kept").await?, "kept");
    // Where nothing runs nothing is killed.
    sandbox.inside()?.kill_all().await?;
    ensure_eq!(sandbox.sh("echo alive").await?, "alive\n");
    Ok(())
}

async fn a_fork_bomb_can_be_killed(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.limits.pids = Some(40)).await?;
    blow_up(&sandbox).await
}

/// What works for us is spared, so that not all can be killed at once.
async fn a_fork_bomb_can_be_killed_beside_a_download(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.limits.pids = Some(40)).await?;
    let stream = large_download(&sandbox).await?;
    blow_up(&sandbox).await?;
    ensure!(archive::collect(stream).await?.len() > LARGE, "the archive is cut");
    Ok(())
}

/// Lights a bomb and puts it out.
async fn blow_up(sandbox: &Sandbox) -> Outcome {
    // Without the limit this would be a real one.
    ensure!(sandbox.limits.pids.is_some(), "no limit of processes");
    // Each has a group of its own, hears no hang-up, and fills every place that another leaves.
    let mut session = sandbox.open(command(&[sandbox.probe().await?, "multiply", "60000"])).await?;
    session.reader.until("lit").await?;
    // Full: a process more finds no place.
    while sandbox.inside()?.start(command(&["true"])).await.is_ok() {}
    sandbox.inside()?.kill_all().await?;
    ensure_eq!(session.finish().await?.exit.signal, Some(9));
    for turn in 0..20 {
        ensure_eq!(sandbox.sh(&format!("echo {turn}")).await?, format!("{turn}\n"));
    }
    // Nobody who could begin again.
    while !sandbox.sh(STRANGERS).await?.is_empty() {}
    Ok(())
}

/// Bytes of what is downloaded: more than fits on the way, so that it is being packed while everything dies.
const LARGE: usize = 32 << 20;

async fn large_download(sandbox: &Sandbox) -> Outcome<ByteStream> {
    sandbox.sh(&format!("head -c {LARGE} /dev/zero > /tmp/large")).await?;
    Ok(sandbox.inside()?.export("/tmp/large", Compression::None).await?)
}

async fn what_an_upload_has_half_done_is_removed_while_everything_ends(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d").await?;
    let mut tar = Archive::new().file("f", 0o644, &vec![7; 3 << 20])?.bytes()?;
    tar.truncate(2 << 20);
    for _ in 0..20 {
        let cut = archive::broken_stream(tar.clone());
        ensure!(sandbox.inside()?.import("/tmp/d", Compression::None, cut).await.is_err(), "half is whole");
        sandbox.inside()?.kill_all().await?;
        while !sandbox.sh("ls -A /tmp/d").await?.is_empty() {}
    }
    Ok(())
}

async fn a_download_outlives_the_end_of_everything(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let stream = large_download(&sandbox).await?;
    let mut session = sandbox.open(script("echo on; exec sleep 1000")).await?;
    session.reader.until("on").await?;
    sandbox.inside()?.kill_all().await?;
    ensure_eq!(session.finish().await?.exit.signal, Some(9));
    ensure!(archive::collect(stream).await?.len() > LARGE, "the archive is cut");
    Ok(())
}
