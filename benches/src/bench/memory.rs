//! What a sandbox costs while nothing runs in it.

pub(super) mod proc;

use super::{Bench, create, tight};
use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Bound, Section, Unit, to_f64};
use anyhow::{Context as _, Result, ensure};
use hostel_client::{Address, Client};
use std::time::Duration;
use tokio::task::JoinSet;

/// Clients that fill the node.
const CLIENTS: usize = 4;
/// After this what was made or deleted has settled.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn heading(scale: &Scale) -> Section {
    Section::new(
        "memory",
        "Memory of idle sandboxes",
        format!(
            "With {} idle sandboxes. Guest: private bytes of each sandbox's first process (`smaps_rollup`). Daemon, newly \
             started, and kernel: growth since before the first one, divided by their number; the kernel's of the whole machine \
             (`/proc/meminfo`), so that what else happens on it is in there.",
            scale.sandboxes
        ),
    )
}

pub(super) async fn measure(bench: &mut Bench<'_>, section: &mut Section) -> Result<()> {
    let count = bench.scale.sandboxes;
    // A daemon that worked before has free memory to grow into, which would hide its growth.
    bench.daemon.kill()?;
    bench.daemon.restart(0).await?;
    bench.client = bench.daemon.client().await?;
    tokio::time::sleep(SETTLE).await;
    let daemon = bench.daemon.pid();
    let (daemon_before, kernel_before) = (proc::memory_of(daemon)?, proc::kernel_memory()?);
    fill_node(&bench.daemon.address(), count).await?;
    tokio::time::sleep(SETTLE).await;

    let guests = proc::guests(daemon)?;
    // A few jails more wait to become sandboxes.
    ensure!(guests.len() >= count, "{} guests of {count} sandboxes were found", guests.len());
    let mut private = Samples::new()?;
    let mut proportional = Samples::new()?;
    for guest in guests {
        let memory = proc::memory_of(guest)?;
        private.add(memory.private)?;
        proportional.add(memory.proportional)?;
    }
    let (daemon_after, kernel_after) = (proc::memory_of(daemon)?, proc::kernel_memory()?);

    let private = private.summary(Unit::Bytes);
    section.row("guest_private", "guest, private", private);
    section.row(
        "guest_proportional",
        "guest, with its share of what is shared",
        proportional.summary(Unit::Bytes),
    );
    let mut each = |name: &str, label: &str, before: u64, after: u64| -> Result<()> {
        let mut samples = Samples::new()?;
        samples.add(after.saturating_sub(before) / u64::try_from(count)?)?;
        section.row(name, label, samples.summary(Unit::Bytes));
        Ok(())
    };
    each("daemon_private", "daemon, private, per sandbox", daemon_before.private, daemon_after.private)?;
    each("daemon_resident", "daemon, resident, per sandbox", daemon_before.resident, daemon_after.resident)?;
    for (before, after) in kernel_before.iter().zip(&kernel_after) {
        each(before.0, &format!("kernel, {}, per sandbox", before.0), before.1, after.1)?;
    }
    section.expect("guest, private, largest", to_f64(private.max) / 1e6, Bound::AtMost, 0.5, "MB");
    Ok(())
}

/// Makes so many sandboxes.
pub(super) async fn fill_node(address: &Address, count: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for worker in 0..CLIENTS {
        let client = Client::connect(address).await.context("connect to the daemon")?;
        let share = (worker..count).step_by(CLIENTS).count();
        tasks.spawn(async move {
            for _ in 0..share {
                create(&client, tight()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client")??;
    }
    Ok(())
}
