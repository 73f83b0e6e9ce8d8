//! Limits of memory, processor and processes, and who feels them.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, command, script};
use crate::session::patiently;
use hostel_sandbox::process::{ExitReason, ProcessSpec};
use hostel_sandbox::{Capability, Error, ResourceLimits};
use std::sync::Arc;
use std::time::{Duration, Instant};

cases! { "limits":
    limits_in_force_are_told,
    memory_ends_in_out_of_memory [MemoryLimit],
    memory_of_a_grandchild_is_reported [MemoryLimit],
    memory_in_use_below_the_limit_is_fine [MemoryLimit],
    memory_of_one_does_not_hurt_another [MemoryLimit],
    shared_memory_is_bounded [MemoryLimit],
    system_v_shared_memory_is_bounded [MemoryLimit],
    the_sandbox_survives_running_out_of_memory_often [MemoryLimit],
    processor_time_is_bounded [CpuLimit],
    processor_time_of_many_processes_is_bounded [CpuLimit],
    processes_are_bounded [PidsLimit],
    a_fork_bomb_ends_with_its_sandbox [PidsLimit],
    memory_of_the_kernels_answers_is_bounded [NetworkNone],
    filters_of_system_calls_are_bounded,
    memory_can_be_changed_live [MemoryLimit],
    memory_below_what_is_in_use_is_refused [MemoryLimit],
    processes_can_be_changed_live [PidsLimit],
    processor_time_can_be_changed_live [CpuLimit],
    more_processors_than_there_are_can_be_asked_for [CpuLimit],
}

type H = Arc<Harness>;

/// `refused COUNT ERROR`, as the probe says it.
pub(super) fn refused(text: &str) -> Outcome<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("refused ")?.split(' ').next()?.parse().ok())
        .ok_or_else(|| Failure::new(format!("nothing was refused: {text:?}")))
}

pub(super) async fn limited(h: &Harness, change: impl FnOnce(&mut ResourceLimits)) -> Outcome<Sandbox> {
    h.sandbox_with(|spec| change(&mut spec.limits)).await
}

async fn limits_in_force_are_told(h: H) -> Outcome {
    let asked = h.limits();
    let sandbox = h.sandbox().await?;
    for (told, asked) in [
        (sandbox.limits.memory_bytes, asked.memory_bytes),
        (sandbox.limits.pids.map(u64::from), asked.pids.map(u64::from)),
        (sandbox.limits.open_files.map(u64::from), asked.open_files.map(u64::from)),
    ] {
        ensure!(asked.is_none() || told == asked, "asked {asked:?}, told {told:?} in {:?}", sandbox.limits);
    }
    // Files that are in memory have less where there is little of that.
    let (told, asked) = (sandbox.limits.disk_bytes, asked.disk_bytes);
    ensure!(asked.is_none() || told.is_some() && told <= asked, "asked {asked:?}, told {told:?} of disk");
    Ok(())
}

const SMALL: u64 = 64 << 20;

async fn memory_ends_in_out_of_memory(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let exit = sandbox.run_probe(&["eat-memory", "1073741824"]).await?.exit;
    ensure_eq!((exit.reason, exit.signal, exit.shell_code()), (ExitReason::OutOfMemory, Some(9), 137));
    ensure!(exit.oom_kills >= 1, "{exit:?}");
    ensure_eq!(sandbox.sh("echo alive").await?, "alive\n");
    Ok(())
}

async fn memory_of_a_grandchild_is_reported(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let probe = sandbox.probe().await?;
    let finished = sandbox.finish(script(&format!("{probe} eat-memory 1073741824; echo $?; exit 5"))).await?;
    ensure!(finished.text().contains("137"), "the child was not killed: {:?}", finished.text());
    ensure_eq!((finished.code(), finished.exit.reason), (Some(5), ExitReason::Exited));
    ensure!(finished.exit.oom_kills >= 1, "{:?}", finished.exit);
    // A process that has nothing to do with it reports none.
    ensure_eq!(sandbox.finish(script("true")).await?.exit.oom_kills, 0);
    Ok(())
}

async fn memory_in_use_below_the_limit_is_fine(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let finished = sandbox.run_probe(&["eat-memory", &(SMALL / 2).to_string()]).await?.success()?;
    ensure_eq!(finished.text(), format!("took {}\n", SMALL / 2));
    Ok(())
}

async fn memory_of_one_does_not_hurt_another(h: H) -> Outcome {
    let greedy = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let neighbour = h.sandbox().await?;
    let mut quiet =
        neighbour.open(script("echo on; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 4")).await?;
    quiet.reader.until("on").await?;
    for _ in 0..3 {
        let exit = greedy.run_probe(&["eat-memory", "1073741824"]).await?.exit;
        ensure_eq!(exit.reason, ExitReason::OutOfMemory);
        ensure_eq!(neighbour.sh("echo fine").await?, "fine\n");
    }
    neighbour.sh("touch /tmp/go").await?;
    let exit = quiet.finish().await?.exit;
    ensure_eq!((exit.code, exit.oom_kills), (Some(4), 0));
    Ok(())
}

async fn shared_memory_is_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let finished = sandbox.run_probe(&["eat-disk", "/dev/shm/fill", "1073741824"]).await?;
    if finished.code() == Some(0) {
        let count = refused(&finished.text())?;
        ensure!(count <= SMALL + (1 << 20), "{count} bytes in /dev/shm of a sandbox with {SMALL}");
    } else {
        ensure_eq!(finished.exit.reason, ExitReason::OutOfMemory);
    }
    sandbox.inside()?.remove("/dev/shm/fill", false).await?;
    ensure_eq!(sandbox.sh("echo alive").await?, "alive\n");
    Ok(())
}

async fn system_v_shared_memory_is_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let neighbour = h.sandbox().await?;
    let finished = sandbox.run_probe(&["eat-shm", "1073741824"]).await?;
    let text = finished.text();
    ensure!(!text.contains("took"), "1 GiB in a sandbox with {SMALL} bytes: {text}");
    // What it left behind is charged to it alone, and goes away with it.
    ensure_eq!(neighbour.sh("echo fine").await?, "fine\n");
    sandbox.destroy().await?;
    Ok(())
}

async fn the_sandbox_survives_running_out_of_memory_often(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let probe = sandbox.probe().await?;
    let text = format!("for i in 1 2 3 4 5 6 7 8 9 10; do {probe} eat-memory 1073741824; done; echo done");
    let finished = sandbox.finish(script(&text)).await?;
    ensure_eq!(finished.text(), "done\n");
    ensure!(finished.exit.oom_kills >= 10, "{:?}", finished.exit);
    Ok(())
}

/// How much of the processor a command had, and how much it could have had at that quota, with room for the
/// granularity of quotas.
async fn spin(sandbox: &Sandbox, millis: u32, text: &str) -> Outcome<(Duration, Duration)> {
    let begin = Instant::now();
    let used = sandbox.finish(script(text)).await?.success()?.exit.cpu_time;
    let allowed = begin.elapsed().mul_f64(f64::from(millis) / 1000.0 * 1.3) + Duration::from_millis(250);
    Ok((used, allowed))
}

async fn processor_time_is_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.cpu_millis = Some(200)).await?;
    let probe = sandbox.probe().await?;
    let (used, allowed) = spin(&sandbox, 200, &format!("{probe} spin 3000")).await?;
    ensure!(used <= allowed, "used {used:?} of {allowed:?}");
    ensure!(used > Duration::from_millis(10), "it hardly ran: {used:?}");
    Ok(())
}

async fn processor_time_of_many_processes_is_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.cpu_millis = Some(300)).await?;
    let probe = sandbox.probe().await?;
    let text = format!("for i in 1 2 3 4 5 6; do {probe} spin 3000 >/dev/null & done; wait");
    let (used, allowed) = spin(&sandbox, 300, &text).await?;
    ensure!(used <= allowed, "used {used:?} of {allowed:?}");
    Ok(())
}

async fn processes_are_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.pids = Some(24)).await?;
    let neighbour = h.sandbox().await?;
    let finished = sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?;
    let count = refused(&finished.text())?;
    ensure!((4..24).contains(&count), "{count} processes of 24: {}", finished.text());
    ensure!(finished.text().contains("(os error 11)"), "not EAGAIN: {}", finished.text());
    ensure_eq!(neighbour.sh("echo fine").await?, "fine\n");
    ensure_eq!(sandbox.sh("echo again").await?, "again\n");
    Ok(())
}

async fn a_fork_bomb_ends_with_its_sandbox(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.pids = Some(40)).await?;
    let neighbour = h.sandbox().await?;
    // On a host without the limit this would be a real one.
    refused(&sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    let bomb = "bomb() { bomb & bomb & wait; }; echo lit; bomb 2>/dev/null";
    let mut session = sandbox.open(script(bomb)).await?;
    session.reader.until("lit").await?;
    for turn in 0..10 {
        ensure_eq!(neighbour.sh(&format!("echo {turn}")).await?, format!("{turn}\n"));
    }
    sandbox.destroy().await?;
    h.nothing_left(sandbox.id()).await
}

/// Whether a backend says that the limit on processes stays as it was made, here or for good.
pub(super) fn fixed<T>(changed: &hostel_sandbox::Result<T>) -> bool {
    matches!(changed, Err(hostel_sandbox::Error::CapabilityMissing { capability: Capability::PidsLimit, .. }))
}

/// Each netlink socket keeps what nobody reads, which no limit of memory counts.
async fn memory_of_the_kernels_answers_is_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.open_files = Some(8192)).await?;
    for user in [None, Some("0")] {
        let eat = async |words: &[&str]| {
            let words: Vec<&str> =
                [sandbox.probe().await?, "eat-netlink"].into_iter().chain(words.iter().copied()).collect();
            let spec = ProcessSpec { user: user.map(str::to_owned), ..command(&words) };
            Ok::<_, Failure>(sandbox.finish(spec).await?.success()?.text())
        };
        let text = eat(&["4000"]).await?;
        let count = refused(&text)?;
        ensure!((900..=1024).contains(&count), "{count} sockets: {text}");
        ensure!(text.contains("ENOBUFS") || text.contains("105"), "{text}");
        // It is over soon after who had them, and has nothing to do with connections.
        let again = async {
            while !eat(&["100", "1500"]).await?.contains("took 100") {}
            Ok::<_, Failure>(())
        };
        patiently("netlink sockets of an ended process to be gone", again).await??;
    }
    Ok(())
}

/// They are compiled into memory of which all sandboxes and the host have so much together.
async fn filters_of_system_calls_are_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.pids = Some(200)).await?;
    for (user, each) in [(None, "1000"), (Some("0"), "4"), (None, "3")] {
        let eat = async |most: &str| {
            let words = [sandbox.probe().await?, "eat-filters", most, each];
            let spec = ProcessSpec { user: user.map(str::to_owned), ..command(&words) };
            Ok::<_, Failure>(sandbox.finish(spec).await?.success()?.text())
        };
        let text = eat("1000").await?;
        let count = refused(&text)?;
        ensure!((200..=256).contains(&count), "{count} filters: {text}");
        ensure!(text.contains("os error 12"), "{text}");
        // Those of processes that ended are gone.
        ensure_eq!(eat("100").await?, "took 100\n");
    }
    Ok(())
}

async fn memory_can_be_changed_live(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(SMALL)).await?;
    let more = ResourceLimits { memory_bytes: Some(4 * SMALL), ..ResourceLimits::default() };
    let now = sandbox.update_limits(&more).await?;
    ensure_eq!(now.memory_bytes, Some(4 * SMALL));
    ensure_eq!(now.pids, sandbox.limits.pids, "a limit that was not named");
    sandbox.run_probe(&["eat-memory", &(2 * SMALL).to_string()]).await?.success()?;
    let less = ResourceLimits { memory_bytes: Some(SMALL), ..ResourceLimits::default() };
    sandbox.update_limits(&less).await?;
    let exit = sandbox.run_probe(&["eat-memory", &(2 * SMALL).to_string()]).await?.exit;
    ensure_eq!(exit.reason, ExitReason::OutOfMemory);
    Ok(())
}

async fn memory_below_what_is_in_use_is_refused(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.memory_bytes = Some(2 * SMALL)).await?;
    // Nothing that the kernel could take back.
    sandbox.sh("head -c 8388608 /dev/zero > /dev/shm/kept").await?;
    let less = ResourceLimits { memory_bytes: Some(7 << 20), ..ResourceLimits::default() };
    ensure_err!(sandbox.update_limits(&less).await, Error::WrongState { reason: "LIMIT_BELOW_USE", .. });
    ensure_eq!(sandbox.sh("wc -c < /dev/shm/kept").await?.trim(), "8388608");
    // It has what it had before.
    sandbox.run_probe(&["eat-memory", &(SMALL / 2).to_string()]).await?.success()?;
    Ok(())
}

async fn processes_can_be_changed_live(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.pids = Some(24)).await?;
    let more = ResourceLimits { pids: Some(100), ..ResourceLimits::default() };
    let changed = sandbox.update_limits(&more).await;
    if fixed(&changed) {
        return Ok(());
    }
    ensure_eq!(changed?.pids, Some(100));
    let count = refused(&sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure!((24..100).contains(&count), "{count} processes of 100");
    Ok(())
}

async fn processor_time_can_be_changed_live(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let less = ResourceLimits { cpu_millis: Some(200), ..ResourceLimits::default() };
    ensure_eq!(sandbox.update_limits(&less).await?.cpu_millis, Some(200));
    let probe = sandbox.probe().await?;
    let (used, allowed) = spin(&sandbox, 200, &format!("{probe} spin 3000")).await?;
    ensure!(used <= allowed, "used {used:?} of {allowed:?}");
    Ok(())
}

async fn more_processors_than_there_are_can_be_asked_for(h: H) -> Outcome {
    let many = ResourceLimits { cpu_millis: Some(1_024_000), ..ResourceLimits::default() };
    let sandbox = limited(&h, |limits| limits.cpu_millis = many.cpu_millis).await?;
    let told = sandbox.limits.cpu_millis;
    ensure!(told.is_some_and(|told| told >= 1000), "told {told:?}");
    let less = ResourceLimits { cpu_millis: Some(500), ..ResourceLimits::default() };
    ensure_eq!(sandbox.update_limits(&less).await?.cpu_millis, Some(500));
    ensure_eq!(sandbox.update_limits(&many).await?.cpu_millis, told);
    ensure_eq!(sandbox.sh("echo alive").await?, "alive\n");
    Ok(())
}
