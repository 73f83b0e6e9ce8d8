//! Pausing, and usage.

use super::limits::{limited, refused};
use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, command, eventually, script};
use crate::session::patiently;
use hostel_sandbox::{Error, ResourceLimits};
use std::sync::Arc;
use std::time::Duration;

cases! { "pause":
    nothing_happens_while_paused [Pause, Stats],
    output_goes_on_after_the_pause [Pause],
    nothing_can_be_started_while_paused [Pause],
    a_paused_sandbox_can_be_destroyed [Pause],
    pausing_again_changes_nothing [Pause],
    who_waits_for_an_answer_of_the_supervisor_can_be_paused [Pause, NetworkNone],
    limits_of_a_paused_sandbox_change_wholly_or_not_at_all [Pause, PidsLimit, OpenFilesLimit],
    usage_grows_with_use [Stats],
    usage_counts_out_of_memory_kills [Stats, MemoryLimit],
    usage_of_one_is_not_that_of_another [Stats],
}

type H = Arc<Harness>;

async fn nothing_happens_while_paused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let busy = sandbox.inside()?.start(command(&[probe, "spin", "100000000"])).await?;
    let used = || async {
        let stats = sandbox.stats().await?;
        stats.cpu_time.ok_or_else(|| Failure::new("no cpu time in the usage"))
    };
    let begin = used().await?;
    eventually(|| async {
        ensure!(used().await? > begin, "it does not run");
        Ok(())
    })
    .await?;
    sandbox.pause().await?;
    let paused = used().await?;
    // Time for it to show if it went on. A spinning process would use all of it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = used().await?;
    ensure!(later - paused < Duration::from_millis(50), "it used {:?} while paused", later - paused);
    sandbox.resume().await?;
    eventually(|| async {
        ensure!(used().await? > later + Duration::from_millis(60), "it does not go on");
        Ok(())
    })
    .await?;
    sandbox.inside()?.signal(&busy.id, 9).await?;
    Ok(())
}

/// A process that asks the kernel for what the supervisor decides upon waits for that, most of its time.
async fn who_waits_for_an_answer_of_the_supervisor_can_be_paused(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.open_files = Some(8192)).await?;
    let probe = sandbox.probe().await?;
    let mut begging = Vec::new();
    for _ in 0..3 {
        begging.push(sandbox.open(command(&[probe, "beg"])).await?);
    }
    for session in &mut begging {
        session.reader.until("refused").await?;
    }
    for _ in 0..5 {
        sandbox.pause().await?;
        sandbox.resume().await?;
    }
    Ok(())
}

async fn output_goes_on_after_the_pause(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i + 1)); sleep 0.01; done; echo end";
    let mut session = sandbox.open(script(text)).await?;
    for round in 1..=3 {
        session.reader.until(&format!("\n{}\n", round * 10)).await?;
        sandbox.pause().await?;
        sandbox.resume().await?;
    }
    sandbox.sh("touch /tmp/stop").await?;
    super::restart::consecutive(&session.finish().await?.success()?.text(), "end")
}

async fn nothing_can_be_started_while_paused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.pause().await?;
    let start = async { sandbox.inside()?.start(script("true")).await };
    ensure_err!(patiently("starting while paused", start).await?, Error::WrongState { .. });
    sandbox.resume().await?;
    ensure_eq!(sandbox.sh("echo again").await?, "again\n");
    Ok(())
}

async fn a_paused_sandbox_can_be_destroyed(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.inside()?.start(script("exec sleep 1000")).await?;
    sandbox.pause().await?;
    patiently("destroying", sandbox.destroy()).await??;
    h.nothing_left(sandbox.id()).await
}

async fn pausing_again_changes_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.pause().await?;
    sandbox.pause().await?;
    sandbox.resume().await?;
    sandbox.resume().await?;
    ensure_eq!(sandbox.sh("echo runs").await?, "runs\n");
    Ok(())
}

async fn usage_grows_with_use(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let before = sandbox.stats().await?;
    sandbox.run_probe(&["spin", "500"]).await?.success()?;
    sandbox.sh("head -c 8000000 /dev/urandom > /tmp/written; sync /tmp/written").await?;
    let held = sandbox.inside()?.start(script("exec sleep 1000")).await?;
    // What is counted when may depend on the kernel's own time.
    eventually(|| async {
        let after = sandbox.stats().await?;
        ensure!(after.time >= before.time, "time goes back");
        let told = [
            (
                "cpu_time",
                before.cpu_time.map(|time| time.as_nanos()),
                after.cpu_time.map(|time| time.as_nanos()),
            ),
            ("pids", before.pids.map(u128::from), after.pids.map(u128::from)),
            (
                "memory_peak_bytes",
                before.memory_peak_bytes.map(u128::from),
                after.memory_peak_bytes.map(u128::from),
            ),
            ("disk_bytes", before.disk_bytes.map(u128::from), after.disk_bytes.map(u128::from)),
        ];
        for (name, before, after) in told {
            ensure!(
                before.is_none() && after.is_none() || after > before,
                "{name} was {before:?} and is {after:?}"
            );
        }
        ensure!(after.cpu_time.is_some() || after.memory_bytes.is_some(), "nothing is known: {after:?}");
        ensure!(after.memory_bytes.is_none_or(|bytes| bytes > 0), "no memory in use");
        Ok(())
    })
    .await?;
    sandbox.inside()?.signal(&held.id, 9).await?;
    Ok(())
}

async fn usage_counts_out_of_memory_kills(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.limits.memory_bytes = Some(64 << 20)).await?;
    ensure_eq!(sandbox.stats().await?.oom_kills, Some(0));
    sandbox.run_probe(&["eat-memory", "1073741824"]).await?;
    let kills = sandbox.stats().await?.oom_kills;
    ensure!(kills >= Some(1), "{kills:?}");
    Ok(())
}

async fn usage_of_one_is_not_that_of_another(h: H) -> Outcome {
    let (busy, idle) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let before = idle.stats().await?;
    busy.run_probe(&["spin", "1000"]).await?.success()?;
    let after = idle.stats().await?;
    if let (Some(before), Some(after)) = (before.cpu_time, after.cpu_time) {
        ensure!(after - before < Duration::from_millis(300), "the idle one used {:?}", after - before);
    }
    Ok(())
}

async fn limits_of_a_paused_sandbox_change_wholly_or_not_at_all(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.pids = Some(100)).await?;
    sandbox.pause().await?;
    // The second may need what is frozen.
    let both = ResourceLimits { pids: Some(24), open_files: Some(100), ..ResourceLimits::default() };
    let changed = sandbox.update_limits(&both).await;
    sandbox.resume().await?;
    let count = refused(&sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure_eq!((count < 24, sandbox.sh("ulimit -n").await? == "100\n"), (changed.is_ok(), changed.is_ok()));
    Ok(())
}
