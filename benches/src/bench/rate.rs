//! How many sandboxes can be made and deleted in a second.

use super::{Bench, create, tight};
use crate::measure::Samples;
use crate::options::Scale;
use crate::peers::Bwrap;
use crate::report::{Section, Unit, to_f64};
use anyhow::{Context as _, Result};
use hostel_client::{Address, Client};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CLIENTS: [usize; 3] = [1, 8, 32];

pub(super) fn heading(scale: &Scale) -> Section {
    Section::new(
        "rate",
        "Sandboxes per second",
        format!(
            "So many clients, each with a connection of its own, create a sandbox and delete it, again and again, in \
             slices of {:?}; then as many threads run `bwrap … true` for as long; in turns. Ours run no program; \
             `bwrap` cannot but run one.",
            scale.slice
        ),
    )
}

pub(super) async fn measure(bench: &Bench<'_>, section: &mut Section) -> Result<()> {
    let slice = bench.scale.slice;
    for clients in CLIENTS {
        let (mut ours, mut theirs) = (Samples::new()?, Samples::new()?);
        for _ in 0..bench.scale.slices {
            ours.add(slice_of_ours(&bench.daemon.address(), clients, slice).await?)?;
            settle().await;
            if let Some(bwrap) = &bench.peers.bwrap {
                theirs.add(slice_of_bwrap(bwrap, clients, slice).await?)?;
                settle().await;
            }
        }
        let label = format!("Hostel, {clients} {}", if clients == 1 { "client" } else { "clients" });
        section.row(&format!("hostel_{clients}"), label, ours.summary(Unit::MilliPerSecond));
        if bench.peers.bwrap.is_some() {
            let label = format!("bwrap, {clients} at a time");
            section.row(&format!("bwrap_{clients}"), label, theirs.summary(Unit::MilliPerSecond));
        }
    }
    Ok(())
}

/// Lets what a slice left behind be cleared away.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Thousandths of sandboxes per second.
fn rate(count: u64, duration: Duration) -> u64 {
    let rate = to_f64(count) * 1000.0 / duration.as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and far from the end"
    )]
    let rate = rate as u64;
    rate
}

async fn slice_of_ours(address: &Address, clients: usize, slice: Duration) -> Result<u64> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Client::connect(address).await.context("connect to the daemon")?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in connections {
        tasks.spawn(async move {
            let mut count = 0;
            while start.elapsed() < slice {
                let sandbox = create(&client, tight()).await?;
                client.delete_sandbox(&sandbox).await.context("delete a sandbox")?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    total(tasks, start).await
}

async fn slice_of_bwrap(bwrap: &Bwrap, clients: usize, slice: Duration) -> Result<u64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let bwrap = bwrap.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while start.elapsed() < slice {
                bwrap.run_true()?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    total(tasks, start).await
}

async fn total(mut tasks: JoinSet<Result<u64>>, start: Instant) -> Result<u64> {
    let mut count = 0;
    while let Some(ended) = tasks.join_next().await {
        count += ended.context("a client")??;
    }
    Ok(rate(count, start.elapsed()))
}
