//! How fast files go in and out.

use super::{Bench, fill};
use crate::measure::{Case, interleave};
use crate::options::Scale;
use crate::peers;
use crate::report::Section;
use anyhow::{Context as _, Result, ensure};
use hostel_client::Client;
use hostel_client::model::WriteFile;
use hostel_sandbox::SandboxId;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

const NAME: &str = "files";
const PATH: &str = "/tmp/bench";
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn heading(scale: &Scale) -> Section {
    let mebibytes = scale.file_bytes >> 20;
    Section::new(
        NAME,
        "Files",
        format!(
            "`WriteFile` and `ReadFile` of {mebibytes} MiB over gRPC with the Rust client, the file being in the \
             sandbox's own layer. On the host: the same with write(2) and read(2) of 256 KiB. Nobody waits for a disk."
        ),
    )
}

pub(super) async fn measure(bench: &Bench<'_>, section: &mut Section) -> Result<()> {
    let bytes = bench.scale.file_bytes;
    let directory = tempfile::tempdir().context("make a directory")?;
    let (client, sandbox) = (&bench.client, &bench.sandbox(peers::roomy()).await?);
    let path = &directory.path().join("file");
    // Something to read, should reading come first.
    write(client, sandbox, bytes).await?;
    let cases = vec![
        Case::moving(NAME, "hostel_write", "Hostel, write", bytes, move || write(client, sandbox, bytes)),
        Case::moving(NAME, "hostel_read", "Hostel, read", bytes, move || read(client, sandbox, bytes)),
        Case::moving(NAME, "host_write", "host, write", bytes, move || async move {
            Ok(peers::write_and_read(path, bytes)?.0)
        }),
        Case::moving(NAME, "host_read", "host, read", bytes, move || async move {
            Ok(peers::write_and_read(path, bytes)?.1)
        }),
    ];
    fill(section, interleave(cases, 1, bench.scale.bulk_samples, PAUSE).await?);
    bench.client.delete_sandbox(sandbox).await.context("delete a sandbox")
}

async fn write(client: &Client, sandbox: &SandboxId, bytes: u64) -> Result<Duration> {
    let content = tokio::io::repeat(0x55).take(bytes);
    let file = WriteFile { path: PATH.to_owned(), ..WriteFile::default() };
    let start = Instant::now();
    client.write_file(sandbox, file, content).await.context("write a file")?;
    Ok(start.elapsed())
}

async fn read(client: &Client, sandbox: &SandboxId, bytes: u64) -> Result<Duration> {
    let mut count = 0;
    let start = Instant::now();
    let mut reader = client.read_file(sandbox, PATH, 0, None).await.context("read a file")?;
    while let Some(data) = reader.next().await.context("read a file")? {
        count += u64::try_from(data.len())?;
    }
    let duration = start.elapsed();
    ensure!(count == bytes, "{count} of {bytes} bytes came");
    Ok(duration)
}
