//! Making and ending sandboxes.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, eventually, script};
use crate::session::patiently;
use futures::future::{join_all, try_join_all};
use hostel_sandbox::process::{AttachOptions, ExitReason, Output};
use hostel_sandbox::{Error, SandboxId, TemplateId};
use std::sync::Arc;
use std::time::Duration;

cases! { "lifecycle":
    a_sandbox_runs_a_command_and_goes_away,
    what_is_gone_answers_that_it_is_gone,
    destroying_twice_succeeds,
    destroying_from_many_tasks_succeeds,
    destroying_ends_attached_processes,
    destroying_ends_what_daemonised_itself,
    destroying_ends_a_stubborn_tree,
    a_dropped_creation_leaves_nothing,
    twenty_creations_at_once,
    creating_and_destroying_in_turns_leaves_nothing,
    a_taken_id_is_refused_and_its_sandbox_undisturbed,
    a_missing_template_is_not_found,
    environment_user_and_directory_come_from_the_specification [OtherUsers],
    the_working_directory_is_made [OtherUsers],
    destroying_during_starts_is_clean,
    a_dropped_destroy_can_be_repeated,
}

type H = Arc<Harness>;

async fn a_sandbox_runs_a_command_and_goes_away(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_eq!(sandbox.sh("echo hello").await?, "hello\n");
    sandbox.destroy().await?;
    h.nothing_left(sandbox.id()).await
}

async fn what_is_gone_answers_that_it_is_gone(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.destroy().await?;
    let start = patiently("starting in what is gone", sandbox.inside()?.start(script("true"))).await?;
    ensure_err!(start, Error::NotFound { .. } | Error::WrongState { .. } | Error::Unavailable { .. });
    let stat = patiently("looking into what is gone", sandbox.inside()?.stat("/", true)).await?;
    ensure_err!(stat, Error::NotFound { .. } | Error::WrongState { .. } | Error::Unavailable { .. });
    Ok(())
}

async fn destroying_twice_succeeds(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.destroy().await?;
    sandbox.destroy().await?;
    Ok(())
}

async fn destroying_from_many_tasks_succeeds(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    try_join_all((0..8).map(|_| sandbox.destroy())).await?;
    h.nothing_left(sandbox.id()).await
}

async fn destroying_ends_attached_processes(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = sandbox.open(script("echo ready; exec sleep 1000")).await?;
    session.reader.until("ready").await?;
    sandbox.destroy().await?;
    loop {
        // The reader fails by itself where the attachment ends silently.
        match session.reader.next().await {
            Ok(Output::Exited(exit)) => {
                let reasons = [ExitReason::SandboxGone, ExitReason::Signaled];
                ensure!(reasons.contains(&exit.reason), "ended as {exit:?}");
                return Ok(());
            }
            Ok(_) => {}
            Err(failure) if failure.to_string().contains("without an exit and without an error") => {
                return Err(failure);
            }
            Err(_) => return Ok(()),
        }
    }
}

/// A number of seconds that no other process on the host sleeps.
fn unique_sleep() -> String {
    let digits = uuid::Uuid::new_v4().as_u128() % 1_000_000_000;
    format!("1000.{digits:09}")
}

/// Processes of the host with that argument.
pub(super) fn host_processes_with(argument: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

async fn gone_from_host(h: &Harness, argument: &str) -> Outcome {
    if !h.factory().is_local() {
        return Ok(());
    }
    eventually(|| async {
        let left = host_processes_with(argument);
        ensure!(left.is_empty(), "still running on the host: {left:?}");
        Ok(())
    })
    .await
}

async fn destroying_ends_what_daemonised_itself(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let time = unique_sleep();
    sandbox.sh(&format!("(setsid sleep {time} >/dev/null 2>&1 </dev/null &) ; echo left")).await?;
    if h.factory().is_local() {
        eventually(|| async {
            ensure!(!host_processes_with(&time).is_empty(), "the daemonised process does not run");
            Ok(())
        })
        .await?;
    }
    sandbox.destroy().await?;
    gone_from_host(&h, &time).await
}

async fn destroying_ends_a_stubborn_tree(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let time = unique_sleep();
    let text = format!("trap '' TERM HUP INT; sleep {time} & sleep {time} & kill -STOP $!; echo ready; wait");
    let mut session = sandbox.open(script(&text)).await?;
    session.reader.until("ready").await?;
    sandbox.destroy().await?;
    gone_from_host(&h, &time).await
}

async fn a_dropped_creation_leaves_nothing(h: H) -> Outcome {
    for step in 0..24_u32 {
        let id = SandboxId::generate();
        let spec = h.spec();
        h.watch_id(&id);
        // From "polled once" to "nearly done", in growing steps.
        let after = Duration::from_micros(30 * u64::from(step * step));
        match tokio::time::timeout(after, h.create(&id, &spec)).await {
            Ok(created) => created?.destroy().await?,
            Err(_) => {
                h.backend().settle(&id).await;
                h.nothing_left(&id)
                    .await
                    .map_err(|failure| failure.while_(format!("dropped after {after:?}")))?;
            }
        }
        // The id is free again.
        let again = h.create(&id, &spec).await?;
        ensure_eq!(again.sh("echo again").await?, "again\n");
        again.destroy().await?;
    }
    Ok(())
}

async fn twenty_creations_at_once(h: H) -> Outcome {
    let sandboxes: Vec<Sandbox> = try_join_all((0..20).map(|_| h.sandbox())).await?;
    let said = try_join_all(sandboxes.iter().enumerate().map(|(index, sandbox)| async move {
        sandbox.sh(&format!("echo {index} > /tmp/who; cat /tmp/who")).await
    }))
    .await?;
    for (index, text) in said.iter().enumerate() {
        ensure_eq!(text.trim(), index.to_string());
    }
    try_join_all(sandboxes.iter().map(|sandbox| sandbox.destroy())).await?;
    Ok(())
}

async fn creating_and_destroying_in_turns_leaves_nothing(h: H) -> Outcome {
    for turn in 0..40 {
        let sandbox = h.sandbox().await.map_err(|failure| failure.while_(format!("turn {turn}")))?;
        sandbox.destroy().await?;
    }
    Ok(())
}

async fn a_taken_id_is_refused_and_its_sandbox_undisturbed(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("echo mine > /tmp/mine").await?;
    let second = patiently("a creation", h.backend().create(sandbox.id(), &h.spec())).await?;
    ensure_err!(second, Error::AlreadyExists { .. });
    ensure_eq!(sandbox.sh("cat /tmp/mine").await?, "mine\n");
    Ok(())
}

async fn a_missing_template_is_not_found(h: H) -> Outcome {
    let mut spec = h.spec();
    spec.template = Some(TemplateId::parse("there-is-no-such-template")?);
    let id = SandboxId::generate();
    h.watch_id(&id);
    ensure_err!(h.backend().create(&id, &spec).await, Error::NotFound { kind: "template", .. });
    Ok(())
}

async fn environment_user_and_directory_come_from_the_specification(h: H) -> Outcome {
    let sandbox = h
        .sandbox_with(|spec| {
            spec.env = [("GREETING".to_owned(), "good day".to_owned())].into();
            spec.user = Some("1000:1000".to_owned());
            spec.workdir = Some("/tmp".to_owned());
        })
        .await?;
    ensure_eq!(sandbox.sh("echo $GREETING; id -u; id -g; pwd").await?, "good day\n1000\n1000\n/tmp\n");
    Ok(())
}

async fn the_working_directory_is_made(h: H) -> Outcome {
    let sandbox = h
        .sandbox_with(|spec| {
            spec.workdir = Some("/srv/some/new/place".to_owned());
            spec.user = Some("1000".to_owned());
        })
        .await?;
    // The user who works there can write there.
    ensure_eq!(sandbox.sh("pwd; echo x > file && cat file").await?, "/srv/some/new/place\nx\n");
    Ok(())
}

async fn destroying_during_starts_is_clean(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let starts = join_all((0..16).map(|_| async {
        let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
        let Ok(inside) = sandbox.inside() else { return };
        let Ok(mut attachment) = inside.exec(script("echo x; exec sleep 1000"), options).await else {
            return;
        };
        while attachment.output.recv().await.is_some() {}
    }));
    let both = futures::future::join(starts, async {
        tokio::task::yield_now().await;
        sandbox.destroy().await
    });
    let (_, destroyed) = patiently("starts and a destroy at the same time", both).await?;
    destroyed?;
    h.nothing_left(sandbox.id()).await
}

async fn a_dropped_destroy_can_be_repeated(h: H) -> Outcome {
    for micros in [0, 50, 200, 1000, 5000] {
        let sandbox = h.sandbox().await?;
        let _ = tokio::time::timeout(Duration::from_micros(micros), sandbox.destroy()).await;
        sandbox.destroy().await.map_err(|error| Failure::from(error).while_(format!("after {micros} µs")))?;
        h.nothing_left(sandbox.id()).await?;
    }
    Ok(())
}
