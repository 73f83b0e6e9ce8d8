//! How fast output comes to a client.

use super::{Bench, fill};
use crate::measure::{Case, interleave};
use crate::options::Scale;
use crate::peers;
use crate::report::{Bound, Section};
use anyhow::{Context as _, Result, bail, ensure};
use hostel_client::{Client, Event, Exec};
use hostel_sandbox::SandboxId;
use std::time::{Duration, Instant};

const NAME: &str = "stdout";
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn heading(scale: &Scale) -> Section {
    let mebibytes = scale.stdout_bytes >> 20;
    Section::new(
        NAME,
        "Streaming output",
        format!(
            "`dd if=/dev/zero bs=1M count={mebibytes}` in a sandbox with all cores, its output counted by the Rust \
             client over gRPC, process start included. The same `dd` on the host into a pipe, and through `runc exec`."
        ),
    )
}

pub(super) async fn measure(bench: &Bench<'_>, section: &mut Section) -> Result<()> {
    let bytes = bench.scale.stdout_bytes;
    let (client, sandbox) = (&bench.client, &bench.sandbox(peers::roomy()).await?);
    let container = bench.peers.runc.as_ref().and_then(|runc| runc.start().ok());
    let mut cases = vec![
        Case::moving(NAME, "hostel", "Hostel to a gRPC client", bytes, move || async move {
            stream(client, sandbox, bytes).await
        }),
        Case::moving(NAME, "pipe", "host, a pipe", bytes, move || async move { peers::stream_dd(bytes) }),
    ];
    if let Some(container) = &container {
        let run = move || async move { container.stream_dd(bytes) };
        cases.push(Case::moving(NAME, "runc", "runc exec, a pipe", bytes, run));
    }
    fill(section, interleave(cases, 1, bench.scale.bulk_samples, PAUSE).await?);
    if let Some(median) = section.median("hostel") {
        section.expect("stdout to a local client", median / 1e9, Bound::AtLeast, 1.0, "GB/s");
    }
    bench.client.delete_sandbox(sandbox).await.context("delete a sandbox")
}

async fn stream(client: &Client, sandbox: &SandboxId, bytes: u64) -> Result<Duration> {
    let arguments = peers::dd_arguments(bytes);
    stream_of(client, Exec::command(sandbox, std::iter::once("dd".to_owned()).chain(arguments)), bytes).await
}

/// Runs a program that writes so many bytes, and counts them.
pub(super) async fn stream_of(client: &Client, exec: Exec, bytes: u64) -> Result<Duration> {
    let mut count = 0;
    let start = Instant::now();
    let mut session = client.exec(exec).await.context("exec")?;
    while let Some(event) = session.output.next().await {
        match event.context("the output of a program")? {
            Event::Output { data, .. } => count += u64::try_from(data.len())?,
            Event::Gap { missing, .. } => bail!("output {missing:?} is missing"),
            Event::Exited(status) => {
                let duration = start.elapsed();
                ensure!(status.shell_code() == 0, "it ended with {}", status.shell_code());
                ensure!(count == bytes, "{count} of {bytes} bytes came");
                return Ok(duration);
            }
        }
    }
    bail!("output ended without an exit status")
}
