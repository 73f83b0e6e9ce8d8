//! Claims from a pool: warm, from a drained pool, and beside creations without a pool.

use super::docker::first_output;
use super::{Bench, tight};
use crate::measure::Samples;
use crate::options::Scale;
use crate::quiet::quiet;
use crate::report::{Bound, Section, Unit};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use hostel_client::model::{PoolSpec, StartKind};
use hostel_client::{Client, CreatePool, CreateSandbox};
use hostel_sandbox::{BackendName, SandboxId, SandboxSpec, TemplateId};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "claims";
const POOL: &str = "bench";
/// How often warm, drained and cold are measured in turn.
const CYCLES: usize = 3;
/// How long a pool may take to fill.
const PATIENCE: Duration = Duration::from_secs(120);

/// A backend, the clients at once, what a full pool holds, and how much is measured.
struct Kind {
    backend: &'static str,
    clients: &'static [usize],
    size: u32,
    samples: usize,
    /// Rounds at least in each cycle, for a p99 that is not the slowest of one round.
    rounds: usize,
}

pub(super) fn heading(_: &Scale) -> Section {
    Section::new(
        NAME,
        "Claiming from a pool",
        "From the call of `CreateSandbox` to its answer, by so many clients at the same time, each with a connection \
         of its own. Warm: the pool was full when they came. Drained: it holds none, so that each claim becomes a \
         cold start. Without: there is no pool. In turns; the pool is full again before the next warm round, and \
         the machine at rest: what the round before it made has been removed, by the kernel too. Deletions are not \
         timed. \"First output\" is a claim from a pool of containers and `echo hi` until its \
         output is there, beside `docker run` with the same limits.",
    )
}

pub(super) async fn measure(bench: &Bench<'_>, section: &mut Section) -> Result<()> {
    let samples = bench.scale.samples;
    let clients = &[1, 10, 50];
    measure_kind(bench, section, &Kind { backend: "jail", clients, size: 60, samples, rounds: 7 }).await?;
    if let Some(docker) = &bench.peers.docker {
        let samples = bench.scale.containers;
        measure_kind(bench, section, &Kind { backend: "docker", clients, size: 50, samples, rounds: 1 })
            .await?;
        let mut theirs = Samples::new()?;
        let mut ours = Samples::new()?;
        make_pool(&bench.client, "docker", 3).await?;
        for _ in 0..samples {
            fill(&bench.client, 3).await?;
            quiet().await?;
            ours.add_duration(first_output(&bench.client).await?)?;
            quiet().await?;
            theirs.add_duration(docker.first_output()?)?;
        }
        bench.client.delete_pool(POOL, true).await.context("delete the pool")?;
        section.row(
            "docker_first_warm",
            "Hostel, container, claim→first output",
            ours.summary(Unit::Nanoseconds),
        );
        section.row("docker_run_first", "docker run, first output", theirs.summary(Unit::Nanoseconds));
    }
    expect(section);
    Ok(())
}

fn expect(section: &mut Section) {
    if let Some(p50) = section.median("jail_warm_1") {
        section.expect("warm claim, p50", p50 / 1e6, Bound::AtMost, 1.0, " ms");
    }
    if let Some(p99) = section.p99("jail_warm_50") {
        section.expect("warm claim by 50 clients, p99", p99 / 1e6, Bound::AtMost, 10.0, " ms");
    }
    if let (Some(drained), Some(cold)) = (section.p99("jail_drained_50"), section.p99("jail_cold_50")) {
        section.expect("drained pool ÷ no pool, 50 clients, p99", drained / cold, Bound::AtMost, 1.1, "×");
    }
    if let (Some(theirs), Some(ours)) =
        (section.median("docker_run_first"), section.median("docker_first_warm"))
    {
        section.expect("docker run ÷ claim→first output", theirs / ours, Bound::AtLeast, 100.0, "×");
    }
}

async fn measure_kind(bench: &Bench<'_>, section: &mut Section, kind: &Kind) -> Result<()> {
    for clients in kind.clients.iter().copied() {
        let connections = try_join_all((0..clients).map(|_| bench.daemon.client())).await?;
        let (mut warm, mut drained, mut cold) = (Samples::new()?, Samples::new()?, Samples::new()?);
        let mut calls = Samples::new()?;
        let rounds = (kind.samples / clients / CYCLES).max(kind.rounds);
        for _ in 0..CYCLES {
            make_pool(&bench.client, kind.backend, kind.size).await?;
            for _ in 0..rounds {
                fill(&bench.client, kind.size).await?;
                quiet().await?;
                ask(&connections, &mut calls).await?;
                round(&connections, kind.backend, Some(StartKind::Warm), &mut warm).await?;
            }
            bench.client.drain_pool(POOL).await.context("drain the pool")?;
            for _ in 0..rounds {
                round(&connections, kind.backend, Some(StartKind::Cold), &mut drained).await?;
            }
            bench.client.delete_pool(POOL, false).await.context("delete the pool")?;
            for _ in 0..rounds {
                round(&connections, kind.backend, None, &mut cold).await?;
            }
        }
        let at_once = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        for (name, what, samples) in [
            ("call", "`GetPool`: a call that claims nothing", &calls),
            ("warm", "warm", &warm),
            ("drained", "drained pool", &drained),
            ("cold", "without a pool", &cold),
        ] {
            let label = format!("Hostel, {}, {at_once}, {what}", kind.backend);
            let row = format!("{}_{name}_{clients}", kind.backend);
            section.row(&row, label, samples.summary(Unit::Nanoseconds));
        }
    }
    Ok(())
}

async fn make_pool(client: &Client, backend: &str, size: u32) -> Result<()> {
    let template = client.node_info().await?.backends.into_iter().find(|one| one.name == backend);
    let template = template.context("no such backend")?.default_template;
    let template = TemplateId::parse(template).context("a template")?;
    let spec = PoolSpec {
        backend: Some(BackendName::parse(backend).context("a name")?),
        limits: tight(),
        pinned_size: Some(size),
        refill_concurrency: Some(4),
        ..PoolSpec::new(template, 0, size)
    };
    let create = CreatePool { name: POOL.to_owned(), request_id: None, spec };
    client.create_pool(create).await.context("make a pool")?;
    fill(client, size).await
}

/// Waits until the pool is full, and at rest.
async fn fill(client: &Client, size: u32) -> Result<()> {
    let start = Instant::now();
    loop {
        let status = client.get_pool(POOL).await?.status;
        if status.ready == size && status.creating == 0 && status.removing == 0 {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the pool does not fill: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One call by each client at the same time, which only reads.
async fn ask(clients: &[Client], samples: &mut Samples) -> Result<()> {
    let calls = clients.iter().map(|client| async move {
        let start = Instant::now();
        client.get_pool(POOL).await.context("ask for the pool")?;
        anyhow::Ok(start.elapsed())
    });
    try_join_all(calls).await?.into_iter().try_for_each(|duration| samples.add_duration(duration))
}

/// One claim by each client at the same time.
async fn round(
    clients: &[Client],
    backend: &str,
    kind: Option<StartKind>,
    samples: &mut Samples,
) -> Result<()> {
    let claims = clients.iter().map(|client| async move {
        let backend = Some(BackendName::parse(backend).context("a name")?);
        let spec = SandboxSpec { limits: tight(), backend, ..SandboxSpec::default() };
        let start = Instant::now();
        let made = client.create_sandbox(CreateSandbox { spec, ..Default::default() }).await;
        let (made, duration) = (made.context("claim")?, start.elapsed());
        ensure!(
            kind.is_none_or(|kind| kind == made.sandbox.start_kind),
            "a claim was {:?}",
            made.sandbox.start_kind
        );
        anyhow::Ok((made.sandbox.id, duration))
    });
    let made: Vec<(SandboxId, Duration)> = try_join_all(claims).await?;
    try_join_all(made.iter().zip(clients).map(|((id, _), client)| client.delete_sandbox(id))).await?;
    made.iter().try_for_each(|(_, duration)| samples.add_duration(*duration))
}
