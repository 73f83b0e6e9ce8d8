//! How long sandboxes are out of reach when the daemon dies.

use super::{Bench, memory};
use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Bound, Section, Unit, to_f64};
use anyhow::{Context as _, Result};
use hostel_client::ListSandboxes;
use std::time::Duration;

pub(super) fn heading(scale: &Scale) -> Section {
    Section::new(
        "recovery",
        "Recovery",
        format!(
            "With {} sandboxes the daemon is killed with SIGKILL and started again. Time from the start of the new \
             process until it answers a client, and until all sandboxes are listed as ready, asked every millisecond.",
            scale.sandboxes
        ),
    )
}

pub(super) async fn measure(bench: &mut Bench<'_>, section: &mut Section) -> Result<()> {
    let count = bench.scale.sandboxes;
    let list = bench.client.list_sandboxes(&ListSandboxes::default()).await.context("list sandboxes")?;
    memory::fill_node(&bench.daemon.address(), count.saturating_sub(list.sandboxes.len())).await?;
    let (mut serving, mut ready) = (Samples::new()?, Samples::new()?);
    for _ in 0..bench.scale.recoveries {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.daemon.kill()?;
        let times = bench.daemon.restart(count).await?;
        serving.add_duration(times.serving)?;
        ready.add_duration(times.ready)?;
    }
    bench.client = bench.daemon.client().await?;
    section.row("serving", "until it answers", serving.summary(Unit::Nanoseconds));
    let ready = ready.summary(Unit::Nanoseconds);
    section.row("ready", "until all are ready", ready);
    section.expect(
        format!("recovery of {count} sandboxes, worst"),
        to_f64(ready.max) / 1e9,
        Bound::AtMost,
        1.0,
        "s",
    );
    Ok(())
}
