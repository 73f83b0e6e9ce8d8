//! How processes go on and end.

use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, eventually, script};
use crate::session::patiently;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use hostel_sandbox::process::{AttachOptions, ExitReason, ProcessSpec};
use hostel_sandbox::{Error, ProcessId};
use std::sync::Arc;
use std::time::Duration;

cases! { "process":
    exit_codes_are_reported,
    many_may_wait_for_one_end,
    an_ended_process_stays_listed_and_can_be_waited_for,
    processes_are_listed_oldest_first,
    a_missing_process_is_not_found,
    a_thousand_quick_processes,
    a_hundred_processes_at_once,
    usage_is_reported,
    a_background_child_does_not_hold_up_the_exit,
    output_of_a_child_that_outlives_its_parent_breaks_nothing,
    a_timeout_ends_a_process,
    a_timeout_ends_a_process_that_ignores_sigterm,
    a_timeout_ends_the_whole_group,
    a_process_within_its_timeout_is_left_alone,
    orphans_are_reaped,
    kill_on_disconnect_kills,
    without_it_a_disconnect_changes_nothing,
    a_dropped_exec_leaves_the_sandbox_usable,
    a_dropped_wait_leaves_the_process_alone,
}

type H = Arc<Harness>;

async fn exit_codes_are_reported(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for code in [0, 1, 2, 77, 126, 127, 128, 255] {
        let finished = sandbox.finish(script(&format!("exit {code}"))).await?;
        ensure_eq!((finished.exit.reason, finished.exit.code), (ExitReason::Exited, Some(code)));
        ensure_eq!(finished.exit.shell_code(), code);
    }
    Ok(())
}

async fn many_may_wait_for_one_end(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let spec = ProcessSpec { stdin: true, ..script("read line; exit 9") };
    let session = sandbox.open(spec).await?;
    let id = session.reader.process.id.clone();
    let inside = sandbox.inside()?;
    let waits = try_join_all((0..32).map(|_| inside.wait(&id)));
    let talk = session.talk("go\n");
    let (exits, finished) = patiently("waiting", futures::future::join(waits, talk)).await?;
    let finished = finished?;
    ensure_eq!(finished.exit.code, Some(9));
    for ended in exits? {
        ensure_eq!(ended.exit.as_ref(), Some(&finished.exit));
    }
    Ok(())
}

async fn an_ended_process_stays_listed_and_can_be_waited_for(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished = sandbox.finish(script("echo out; echo err >&2; exit 4")).await?;
    let id = finished.process.id;
    ensure_eq!(sandbox.inside()?.wait(&id).await?.exit.as_ref(), Some(&finished.exit));
    let listed = sandbox.inside()?.processes().await?;
    let known = listed.iter().find(|process| process.id == id);
    ensure!(known.is_some_and(|known| known.exit.as_ref() == Some(&finished.exit)), "listed: {listed:?}");
    let info = sandbox.inside()?.process(&id).await?;
    ensure_eq!((info.stdout, info.stderr), (0..4, 0..4));
    Ok(())
}

async fn processes_are_listed_oldest_first(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let names = ["zebra", "apple", "mango", "berry"];
    for name in names {
        sandbox
            .inside()?
            .start(ProcessSpec { id: Some(ProcessId::parse(name)?), ..script("exec sleep 1000") })
            .await?;
    }
    let listed: Vec<String> =
        sandbox.inside()?.processes().await?.iter().map(|process| process.id.to_string()).collect();
    ensure_eq!(listed, names);
    for process in sandbox.inside()?.processes().await? {
        ensure!(process.exit.is_none() && process.pid > 1, "{process:?}");
    }
    Ok(())
}

async fn a_missing_process_is_not_found(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let id = ProcessId::parse("nobody")?;
    ensure_err!(sandbox.inside()?.process(&id).await, Error::NotFound { .. });
    ensure_err!(patiently("waiting", sandbox.inside()?.wait(&id)).await?, Error::NotFound { .. });
    ensure_err!(sandbox.inside()?.signal(&id, 15).await, Error::NotFound { .. });
    ensure_err!(sandbox.inside()?.attach(&id, AttachOptions::everything()).await, Error::NotFound { .. });
    Ok(())
}

async fn a_thousand_quick_processes(h: H) -> Outcome {
    let sandbox = &h.sandbox().await?;
    let results: Vec<String> = stream::iter(0..1000)
        .map(|number| async move { sandbox.sh(&format!("echo {number}")).await })
        .buffered(16)
        .try_collect()
        .await?;
    for (number, text) in results.iter().enumerate() {
        ensure_eq!(text.trim(), number.to_string());
    }
    Ok(())
}

async fn a_hundred_processes_at_once(h: H) -> Outcome {
    let sandbox = &h.sandbox().await?;
    // All run at the same time: each ends only when it is told to.
    let sessions = try_join_all((0..100).map(|number| async move {
        let spec = ProcessSpec {
            stdin: true,
            ..script(&format!("echo {number}; read line; echo $line; exit {number}"))
        };
        let mut session = sandbox.open(spec).await?;
        session.reader.until("\n").await?;
        Ok::<_, crate::Failure>(session)
    }))
    .await?;
    ensure_eq!(
        sandbox.inside()?.processes().await?.iter().filter(|process| process.exit.is_none()).count(),
        100
    );
    let finished = try_join_all(sessions.into_iter().map(|session| session.talk("end\n"))).await?;
    for (number, finished) in finished.iter().enumerate() {
        ensure_eq!(finished.text(), format!("{number}\nend\n"));
        ensure_eq!(finished.code(), i32::try_from(number).ok());
    }
    Ok(())
}

async fn usage_is_reported(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished = sandbox.run_probe(&["spin", "200"]).await?.success()?;
    let used = finished.exit.cpu_time;
    // By the clock it ran 200 ms; how much of that it had the processor depends on the host.
    ensure!(used > Duration::ZERO && used < Duration::from_secs(30), "cpu time {used:?}");
    let finished = sandbox.run_probe(&["eat-memory", "33554432"]).await?.success()?;
    let rss = finished.exit.max_rss_bytes;
    ensure!((32 << 20..200 << 20).contains(&rss), "max rss {rss}");
    Ok(())
}

async fn a_background_child_does_not_hold_up_the_exit(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // The child has both outputs open for longer than any patience.
    let finished = sandbox.finish(script("sleep 1000 & echo done; exit 3")).await?;
    ensure_eq!((finished.text().as_str(), finished.code()), ("done\n", Some(3)));
    Ok(())
}

async fn output_of_a_child_that_outlives_its_parent_breaks_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // The child writes only once its parent is no more. Whether that is still caught is not promised.
    let text = "p=$$; (while kill -0 $p 2>/dev/null; do :; done; echo late) & echo early";
    for _ in 0..20 {
        let said = sandbox.finish(script(text)).await?.success()?.text();
        ensure!(said == "early\n" || said == "early\nlate\n", "{said:?}");
    }
    Ok(())
}

async fn a_timeout_ends_a_process(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let spec =
        ProcessSpec { timeout: Some(Duration::from_millis(300)), ..script("echo on; exec sleep 1000") };
    let finished = sandbox.finish(spec).await?;
    ensure_eq!(finished.exit.reason, ExitReason::TimedOut);
    ensure_eq!((finished.exit.shell_code(), finished.text().as_str()), (124, "on\n"));
    Ok(())
}

async fn a_timeout_ends_a_process_that_ignores_sigterm(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "trap 'echo ignored' TERM; echo on; while :; do sleep 0.1; done";
    let spec = ProcessSpec { timeout: Some(Duration::from_millis(300)), ..script(text) };
    let finished = sandbox.finish(spec).await?;
    ensure_eq!(finished.exit.reason, ExitReason::TimedOut);
    ensure!(finished.text().contains("ignored"), "SIGTERM did not come first: {:?}", finished.text());
    Ok(())
}

async fn a_timeout_ends_the_whole_group(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $! > /tmp/child; wait";
    let spec = ProcessSpec { timeout: Some(Duration::from_millis(300)), ..script(text) };
    ensure_eq!(sandbox.finish(spec).await?.exit.reason, ExitReason::TimedOut);
    eventually(|| async {
        let finished = sandbox.finish(script("kill -0 $(cat /tmp/child) 2>/dev/null")).await?;
        ensure!(finished.code() != Some(0), "the child goes on after the timeout");
        Ok(())
    })
    .await
}

async fn a_process_within_its_timeout_is_left_alone(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let spec = ProcessSpec { timeout: Some(Duration::from_secs(1000)), ..script("exit 6") };
    ensure_eq!(sandbox.finish(spec).await?.code(), Some(6));
    Ok(())
}

async fn orphans_are_reaped(h: H) -> Outcome {
    let sandbox = &h.sandbox().await?;
    ensure_eq!(sandbox.run_probe(&["orphans", "500"]).await?.success()?.text(), "took 500\n");
    eventually(|| async move {
        let report = sandbox.report().await?;
        let processes = report["processes"].as_array().cloned().unwrap_or_default();
        let zombies = processes.iter().filter(|process| process["state"] == "Z").count();
        ensure!(zombies == 0, "{zombies} of {} processes wait to be reaped", processes.len());
        Ok(())
    })
    .await
}

async fn kill_on_disconnect_kills(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let spec = ProcessSpec { kill_on_disconnect: true, ..script("echo on; exec sleep 1000") };
    let mut session = sandbox.open(spec).await?;
    session.reader.until("on").await?;
    let id = session.reader.process.id.clone();
    drop(session);
    let ended = patiently("the end after the disconnect", sandbox.inside()?.wait(&id)).await??;
    ensure_eq!(ended.exit.map(|exit| exit.reason), Some(ExitReason::Signaled));
    Ok(())
}

async fn without_it_a_disconnect_changes_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "echo on; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo off; exit 8";
    let mut session = sandbox.open(script(text)).await?;
    session.reader.until("on").await?;
    let id = session.reader.process.id.clone();
    drop(session);
    sandbox.sh("touch /tmp/go").await?;
    ensure_eq!(
        patiently("the end", sandbox.inside()?.wait(&id)).await??.exit.and_then(|exit| exit.code),
        Some(8)
    );
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    ensure_eq!(sandbox.attach_with(&id, options).await?.finish().await?.text(), "on\noff\n");
    Ok(())
}

async fn a_dropped_exec_leaves_the_sandbox_usable(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for step in 0..40_u64 {
        let options = AttachOptions::everything();
        let exec = sandbox.inside()?.exec(ProcessSpec { stdin: true, ..script("cat") }, options);
        let _ = tokio::time::timeout(Duration::from_micros(step * 50), exec).await;
    }
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    for process in sandbox.inside()?.processes().await?.iter().filter(|process| process.exit.is_none()) {
        // What did start can be found, and ended.
        match sandbox.inside()?.signal(&process.id, 9).await {
            Ok(()) | Err(Error::WrongState { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        patiently("the end", sandbox.inside()?.wait(&process.id)).await??;
    }
    Ok(())
}

async fn a_dropped_wait_leaves_the_process_alone(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let process =
        sandbox.inside()?.start(script("while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 2")).await?;
    for _ in 0..10 {
        let waited =
            tokio::time::timeout(Duration::from_millis(5), sandbox.inside()?.wait(&process.id)).await;
        ensure!(waited.is_err(), "ended early: {waited:?}");
    }
    sandbox.sh("touch /tmp/go").await?;
    ensure_eq!(
        patiently("the end", sandbox.inside()?.wait(&process.id)).await??.exit.and_then(|exit| exit.code),
        Some(2)
    );
    Ok(())
}
