//! Containers: ours beside Docker's own command line, on the same engine, with the same image and limits.

use super::create::Stages;
use super::{Bench, fill, tight};
use crate::bench::exec::run_to_end;
use crate::bench::stdout;
use crate::measure::{Case, Measured, interleave};
use crate::options::Scale;
use crate::peers::{self, Docker, DockerContainer};
use crate::report::{Bound, Section};
use crate::stages::StagedClient;
use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use hostel_client::{Client, CreateSandbox, Event, Exec};
use hostel_sandbox::{BackendName, ResourceLimits, SandboxId, SandboxSpec};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "docker";
const LIFE: &str = "docker";
const EXEC: &str = "docker_exec";
const STDOUT: &str = "docker_stdout";
const MANY: &str = "docker_many";
const AT_ONCE: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// Running a program is measured like that in jails, apart from what makes and removes containers.
const EXEC_PAUSE: Duration = Duration::from_millis(10);
const FILE: &str = "/workspace/bench";

fn headings(scale: &Scale) -> Vec<Section> {
    vec![
        Section::new(
            LIFE,
            "Containers: making, using once, removing",
            "The same image, engine and limits: memory without swap, processor, processes, no network, no \
             capabilities, a read-only root with writable places. Ours are calls over gRPC with the guest inside, and \
             a disk with one cap over all places, which `docker run` has no option for: its places are file systems \
             in memory. \"First output\" is creation and `echo hi` until its output is there; a one-shot creates, runs \
             `true`, and deletes, as `docker run --rm` does.",
        ),
        Section::new(
            EXEC,
            "Containers: running `true` in one that is there",
            "From the call to the exit status, all output read. Each comes after the other kinds, and 10 ms of rest; \
             \"after another\" follows an untimed one of the same at once, with warm caches.",
        ),
        Section::new(
            STDOUT,
            "Containers: `cat` of a file to a client",
            format!("{} MiB, process start included.", scale.file_bytes >> 20),
        ),
        Section::new(
            MANY,
            "Containers: 20 at once",
            "From the first call until the last of 20 is ready; their removal is not part of it.",
        ),
    ]
}

/// Measures all of it; nothing where there is no engine, which is noted among the peers.
pub(super) async fn sections(bench: &Bench<'_>) -> Result<Vec<Section>> {
    let Some(docker) = bench.peers.docker.as_ref().filter(|_| bench.wants(NAME)) else {
        return Ok(Vec::new());
    };
    eprintln!("measuring docker …");
    let client = &bench.client;
    let scale = &bench.scale;
    let home = create(client, peers::roomy()).await?;
    let container = docker.start_roomy()?;
    let writes = format!("dd if=/dev/zero of={FILE} bs=1M count={} status=none", scale.file_bytes >> 20);
    container.prepare(&["sh", "-c", &writes])?;
    run_to_end(client, &home, &["sh", "-c", &writes], b"").await?;

    let staged = StagedClient::connect(bench.daemon.socket()).await?;
    let stages = Stages::default();
    let mut cases = vec![creation(&staged, &stages)];
    cases.extend(life(client, docker));
    let mut measured = interleave(cases, 1, scale.containers, PAUSE).await?;
    let rounds = scale.samples.div_ceil(3);
    measured.extend(interleave(exec(client, &home, &container), 1, rounds, EXEC_PAUSE).await?);
    measured.extend(
        interleave(output(client, &home, &container, scale.file_bytes), 1, scale.bulk_samples, PAUSE).await?,
    );
    measured.extend(interleave(many(client, docker), 0, scale.bulk_samples.min(5), PAUSE).await?);
    client.delete_sandbox(&home).await.context("delete a sandbox")?;

    let mut measured: Vec<Option<Measured>> = measured.into_iter().map(Some).collect();
    let mut sections = headings(scale);
    for section in &mut sections {
        let own =
            measured.iter_mut().filter(|one| one.as_ref().is_some_and(|one| one.section == section.name));
        fill(section, own.filter_map(Option::take).collect());
        if section.name == LIFE {
            stages.show(section)?;
        }
        expect(section);
    }
    Ok(sections)
}

fn expect(section: &mut Section) {
    let comparisons: &[(&str, &str, &str, Bound, f64)] = match section.name.as_str() {
        LIFE => &[("create→first output ÷ docker run", "hostel_first", "docker_first", Bound::AtMost, 1.05)],
        EXEC => &[
            (
                "docker exec ÷ exec, after another",
                "docker_exec_warm",
                "hostel_exec_warm",
                Bound::AtLeast,
                30.0,
            ),
            ("docker exec ÷ exec, after a pause", "docker_exec", "hostel_exec", Bound::AtLeast, 30.0),
        ],
        STDOUT => &[("stdout ÷ docker exec cat", "hostel_cat", "docker_cat", Bound::AtLeast, 3.0)],
        _ => &[],
    };
    for (what, above, below, bound, limit) in comparisons {
        if let (Some(above), Some(below)) = (section.median(above), section.median(below)) {
            section.expect(*what, above / below, *bound, *limit, "×");
        }
    }
}

/// Makes a container.
async fn create(client: &Client, limits: ResourceLimits) -> Result<SandboxId> {
    let backend = Some(BackendName::parse("docker").context("a name")?);
    let spec = SandboxSpec { limits, backend, ..SandboxSpec::default() };
    let made = client.create_sandbox(CreateSandbox { spec, ..Default::default() }).await;
    Ok(made.context("create a container")?.sandbox.id)
}

fn creation<'a>(staged: &'a StagedClient, stages: &'a Stages) -> Case<'a> {
    Case::timed(LIFE, "hostel_create", "Hostel, create→ready", move || async move {
        let made = staged.create(NAME, &tight()).await?;
        stages.add(&made);
        staged.delete(&made.id).await?;
        Ok(made.total)
    })
}

fn life<'a>(client: &'a Client, docker: &'a Docker) -> Vec<Case<'a>> {
    vec![
        Case::timed(LIFE, "docker_create", "docker run --detach", move || async move {
            let (container, duration) = docker.start(&tight())?;
            container.remove()?;
            Ok(duration)
        }),
        Case::timed(LIFE, "hostel_first", "Hostel, create→first output", move || first_output(client)),
        Case::timed(LIFE, "docker_first", "docker run, first output", move || async move {
            docker.first_output()
        }),
        Case::timed(LIFE, "hostel_once", "Hostel, one-shot", move || async move {
            let start = Instant::now();
            let sandbox = create(client, tight()).await?;
            run_to_end(client, &sandbox, &["true"], b"").await?;
            client.delete_sandbox(&sandbox).await?;
            Ok(start.elapsed())
        }),
        Case::timed(LIFE, "docker_once", "docker run --rm", move || async move { docker.run_true() }),
        Case::timed(LIFE, "hostel_delete", "Hostel, delete", move || async move {
            let sandbox = create(client, tight()).await?;
            let start = Instant::now();
            client.delete_sandbox(&sandbox).await?;
            Ok(start.elapsed())
        }),
        Case::timed(LIFE, "docker_delete", "docker rm --force", move || async move {
            docker.start(&tight())?.0.remove()
        }),
    ]
}

pub(super) async fn first_output(client: &Client) -> Result<Duration> {
    let start = Instant::now();
    let sandbox = create(client, tight()).await?;
    let exec = Exec::command(&sandbox, ["echo", "hi"]);
    let mut session = client.exec(exec).await.context("exec")?;
    let duration = loop {
        match session.output.next().await.context("no output came")?.context("the output of echo")? {
            Event::Output { data, .. } => {
                ensure!(&data[..] == b"hi\n", "echo wrote {data:?}");
                break start.elapsed();
            }
            Event::Exited(status) => bail!("echo ended with {} before its output", status.shell_code()),
            Event::Gap { .. } => {}
        }
    };
    drop(session);
    client.delete_sandbox(&sandbox).await?;
    Ok(duration)
}

fn exec<'a>(client: &'a Client, home: &'a SandboxId, container: &'a DockerContainer) -> Vec<Case<'a>> {
    vec![
        Case::timed(EXEC, "hostel_exec", "Hostel, exec", move || async move {
            run_to_end(client, home, &["true"], b"").await
        }),
        Case::timed(EXEC, "docker_exec", "docker exec", move || async move { container.exec_true() }),
        Case::timed(EXEC, "hostel_exec_warm", "Hostel, exec, after another", move || async move {
            run_to_end(client, home, &["true"], b"").await?;
            run_to_end(client, home, &["true"], b"").await
        }),
        Case::timed(EXEC, "docker_exec_warm", "docker exec, after another", move || async move {
            container.exec_true()?;
            container.exec_true()
        }),
    ]
}

fn output<'a>(
    client: &'a Client,
    home: &'a SandboxId,
    container: &'a DockerContainer,
    bytes: u64,
) -> Vec<Case<'a>> {
    vec![
        Case::moving(STDOUT, "hostel_cat", "Hostel to a gRPC client", bytes, move || {
            stdout::stream_of(client, Exec::command(home, ["cat", FILE]), bytes)
        }),
        Case::moving(STDOUT, "docker_cat", "docker exec, a pipe", bytes, move || async move {
            container.cat(FILE, bytes)
        }),
    ]
}

fn many<'a>(client: &'a Client, docker: &'a Docker) -> Vec<Case<'a>> {
    vec![
        Case::timed(MANY, "hostel_many", "Hostel, 20 creations", move || async move {
            let start = Instant::now();
            let made = try_join_all((0..AT_ONCE).map(|_| create(client, tight()))).await?;
            let duration = start.elapsed();
            try_join_all(made.iter().map(|sandbox| client.delete_sandbox(sandbox))).await?;
            Ok(duration)
        }),
        Case::timed(MANY, "docker_many", "docker run --detach, 20 times", move || async move {
            docker.start_many(AT_ONCE)
        }),
    ]
}
