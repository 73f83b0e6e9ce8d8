//! Terminals.

use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, command, script};
use crate::session::Session;
use hostel_sandbox::Error;
use hostel_sandbox::process::{AttachOptions, ExitReason, Input, ProcessSpec, TerminalSize};
use std::sync::Arc;

cases! { "terminal":
    a_terminal_has_the_size_asked_for [Pty],
    a_new_size_is_signalled [Pty],
    a_new_size_may_come_through_the_attachment [Pty],
    control_c_interrupts [Pty],
    control_d_is_the_end_of_input [Pty],
    both_outputs_are_one_stream [Pty],
    it_is_the_controlling_terminal [Pty],
    input_is_echoed_once [Pty],
    detaching_hangs_nothing_up [Pty],
    much_output_arrives [Pty],
    without_a_terminal_there_is_nothing_to_resize,
}

type H = Arc<Harness>;

const SIZE: TerminalSize = TerminalSize { rows: 33, columns: 121 };

async fn open(sandbox: &Sandbox, spec: ProcessSpec) -> Outcome<Session> {
    sandbox.open(ProcessSpec { terminal: Some(SIZE), stdin: true, ..spec }).await
}

async fn a_terminal_has_the_size_asked_for(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let session = open(&sandbox, command(&[probe, "terminal"])).await?;
    ensure!(session.reader.process.terminal, "it does not say that it has one");
    ensure_eq!(session.finish().await?.text(), "tty 33 121\r\n");
    Ok(())
}

/// Prints the size whenever it changes, and ends at the size 50×90.
const RESIZED: &str = "trap 'PROBE terminal' WINCH; echo ready
    while [ \"$(PROBE terminal)\" != 'tty 50 90' ]; do sleep 0.05; done; sleep 0.1; echo enough";

async fn a_new_size_is_signalled(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = RESIZED.replace("PROBE", sandbox.probe().await?);
    let mut session = open(&sandbox, script(&text)).await?;
    session.reader.until("ready").await?;
    let id = session.reader.process.id.clone();
    sandbox.inside()?.resize(&id, TerminalSize { rows: 20, columns: 10 }).await?;
    session.reader.until("tty 20 10").await?;
    sandbox.inside()?.resize(&id, TerminalSize { rows: 50, columns: 90 }).await?;
    ensure!(session.finish().await?.text().contains("tty 50 90"), "no signal for the second size");
    Ok(())
}

async fn a_new_size_may_come_through_the_attachment(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = RESIZED.replace("PROBE", sandbox.probe().await?);
    let mut session = open(&sandbox, script(&text)).await?;
    session.reader.until("ready").await?;
    session.stdin.input(Input::Resize(TerminalSize { rows: 50, columns: 90 })).await?;
    ensure!(session.finish().await?.text().contains("tty 50 90"), "no signal");
    Ok(())
}

async fn control_c_interrupts(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, script("echo ready; exec sleep 1000")).await?;
    session.reader.until("ready").await?;
    session.stdin.send("\x03").await?;
    let exit = session.finish().await?.exit;
    ensure_eq!((exit.reason, exit.signal), (ExitReason::Signaled, Some(2)));
    Ok(())
}

async fn control_d_is_the_end_of_input(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, script("echo ready; cat > /tmp/typed; echo over")).await?;
    session.reader.until("ready").await?;
    session.stdin.send("line\n\x04").await?;
    session.finish().await?.success()?;
    ensure_eq!(sandbox.get("/tmp/typed").await?, b"line\n");
    Ok(())
}

async fn both_outputs_are_one_stream(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished =
        open(&sandbox, script("echo one; echo two >&2; echo three")).await?.finish().await?.success()?;
    ensure_eq!((finished.text().as_str(), finished.stderr.len()), ("one\r\ntwo\r\nthree\r\n", 0));
    Ok(())
}

async fn it_is_the_controlling_terminal(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Only a controlling terminal can be opened under that name.
    let said =
        open(&sandbox, script("echo through > /dev/tty; tty")).await?.finish().await?.success()?.text();
    ensure!(said.starts_with("through\r\n/dev/pts/"), "{said:?}");
    Ok(())
}

async fn input_is_echoed_once(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, script("echo ready; read line; echo got $line")).await?;
    // The whole line: what is typed may be echoed between its parts.
    session.reader.until("ready\r\n").await?;
    session.stdin.send("typed\n").await?;
    ensure_eq!(session.finish().await?.text(), "ready\r\ntyped\r\ngot typed\r\n");
    Ok(())
}

async fn detaching_hangs_nothing_up(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text =
        "trap 'echo hung up; exit 1' HUP; echo on; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo off";
    let mut session = open(&sandbox, script(text)).await?;
    session.reader.until("on").await?;
    let id = session.reader.process.id.clone();
    drop(session);
    sandbox.sh("touch /tmp/go").await?;
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    ensure_eq!(sandbox.attach_with(&id, options).await?.finish().await?.success()?.text(), "on\r\noff\r\n");
    Ok(())
}

async fn much_output_arrives(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "stty raw -echo; head -c 8388608 /dev/zero | tr '\\000' y; echo end";
    let finished = open(&sandbox, script(text)).await?.finish().await?.success()?;
    ensure_eq!(finished.stdout.len(), (8 << 20) + 4);
    ensure!(finished.text().ends_with("yend\n"), "the end is missing");
    Ok(())
}

async fn without_a_terminal_there_is_nothing_to_resize(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let process = sandbox.inside()?.start(script("exec sleep 1000")).await?;
    ensure_err!(sandbox.inside()?.resize(&process.id, SIZE).await, Error::WrongState { .. });
    Ok(())
}
