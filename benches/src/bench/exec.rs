//! A process in a sandbox that is there.

use super::Bench;
use crate::measure::Case;
use crate::peers::{self, RuncContainer};
use crate::report::{Bound, Section};
use anyhow::{Context as _, Result, bail, ensure};
use hostel_client::{Client, Event, Exec};
use hostel_sandbox::SandboxId;
use std::time::{Duration, Instant};

const NAME: &str = "exec";

pub(super) fn heading() -> Section {
    Section::new(
        NAME,
        "Running a program in a sandbox that is there",
        "Ours: from `Exec` over gRPC to the exit status, all output read. `posix_spawn` starts the same program on the \
         host with pipes and waits for it. `runc exec` runs it in a running container like ours. Each comes after \
         whatever else was measured, and 10 ms of rest; \"after another\" follows an untimed one of the same at once, \
         with warm caches.",
    )
}

pub(super) fn cases<'a>(
    bench: &'a Bench<'_>,
    sandbox: &'a SandboxId,
    container: Option<&'a RuncContainer<'a>>,
) -> Vec<Case<'a>> {
    let client = &bench.client;
    let run = move |argv: &'static [&'static str], expected: &'static [u8]| async move {
        run_to_end(client, sandbox, argv, expected).await
    };
    let mut cases = vec![
        Case::timed(NAME, "posix_spawn_true", "posix_spawn of `true`", || async { peers::spawn() }),
        Case::timed(NAME, "hostel_true", "Hostel, `true`", move || run(&["true"], b"")),
        Case::timed(NAME, "posix_spawn_true_warm", "posix_spawn of `true`, after another", || async {
            peers::spawn()?;
            peers::spawn()
        }),
        Case::timed(NAME, "hostel_true_warm", "Hostel, `true`, after another", move || async move {
            run(&["true"], b"").await?;
            run(&["true"], b"").await
        }),
        Case::timed(
            NAME,
            "hostel_get",
            "Hostel, `GetSandbox`: a call that runs nothing",
            move || async move {
                let start = Instant::now();
                client.get_sandbox(sandbox).await.context("ask for a sandbox")?;
                Ok(start.elapsed())
            },
        ),
        Case::timed(NAME, "posix_spawn_echo", "posix_spawn of `echo hi`", || async { peers::echo() }),
        Case::timed(NAME, "hostel_echo", "Hostel, `echo hi`", move || run(&["echo", "hi"], b"hi\n")),
        Case::timed(NAME, "posix_spawn_echo_warm", "posix_spawn of `echo hi`, after another", || async {
            peers::echo()?;
            peers::echo()
        }),
        Case::timed(NAME, "hostel_echo_warm", "Hostel, `echo hi`, after another", move || async move {
            run(&["echo", "hi"], b"hi\n").await?;
            run(&["echo", "hi"], b"hi\n").await
        }),
    ];
    if let Some(container) = container {
        let runs_true = move || async move { container.exec_true() };
        cases.push(Case::timed(NAME, "runc_true", "runc exec, `true`", runs_true));
        let runs_echo = move || async move { container.exec_echo() };
        cases.push(Case::timed(NAME, "runc_echo", "runc exec, `echo hi`", runs_echo));
    }
    cases
}

/// Runs a program to its end, checks what it says, and tells how long it took.
pub(super) async fn run_to_end(
    client: &Client,
    sandbox: &SandboxId,
    argv: &[&str],
    expected: &[u8],
) -> Result<Duration> {
    let exec = Exec::command(sandbox, argv.iter().copied());
    let mut output = Vec::new();
    let start = Instant::now();
    let mut session = client.exec(exec).await.context("exec")?;
    while let Some(event) = session.output.next().await {
        match event.context("the output of a process")? {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Gap { missing, .. } => bail!("output {missing:?} is missing"),
            Event::Exited(status) => {
                let duration = start.elapsed();
                ensure!(status.shell_code() == 0, "{argv:?} ended with {}", status.shell_code());
                ensure!(output == expected, "{argv:?} wrote {output:?}");
                return Ok(duration);
            }
        }
    }
    bail!("{argv:?}: output ended without an exit status")
}

pub(super) fn finish(section: &mut Section) {
    for (suffix, when) in [("_warm", "after another"), ("", "after a pause")] {
        for program in ["true", "echo"] {
            let (ours, plain) =
                (format!("hostel_{program}{suffix}"), format!("posix_spawn_{program}{suffix}"));
            if let (Some(ours), Some(plain)) = (section.median(&ours), section.median(&plain)) {
                let what = format!("exec of `{program}` {when} − posix_spawn");
                section.expect(what, (ours - plain) / 1e6, Bound::AtMost, 0.5, "ms");
            }
        }
    }
}
