//! Plain programs of the host, without any sandbox: what nothing can be faster than.

use super::{counted, timed};
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// `true`, with output caught as ours is.
pub(crate) fn spawn() -> Result<Duration> {
    timed(&mut Command::new("true"))
}

/// `echo hi`, with its output read.
pub(crate) fn echo() -> Result<Duration> {
    let (count, duration) = counted(Command::new("echo").arg("hi"))?;
    ensure!(count == 3, "echo wrote {count} bytes");
    Ok(duration)
}

/// `dd` into a pipe.
pub(crate) fn stream_dd(bytes: u64) -> Result<Duration> {
    let (count, duration) = counted(Command::new("dd").args(dd_arguments(bytes)))?;
    ensure!(count == bytes, "dd wrote {count} of {bytes} bytes");
    Ok(duration)
}

/// Arguments that make dd write so many zeros, whole MiB.
pub(crate) fn dd_arguments(bytes: u64) -> [String; 4] {
    [
        "if=/dev/zero".to_owned(),
        "bs=1M".to_owned(),
        format!("count={}", bytes >> 20),
        "status=none".to_owned(),
    ]
}

/// Writes a file of the host and reads it again, without waiting for the disk.
pub(crate) fn write_and_read(path: &Path, bytes: u64) -> Result<(Duration, Duration)> {
    let mut buffer = vec![0; 256 << 10];
    let start = Instant::now();
    let mut file = File::create(path).context("create a file")?;
    let mut left = bytes;
    while left > 0 {
        let length = buffer.len().min(usize::try_from(left).unwrap_or(buffer.len()));
        file.write_all(&buffer[..length]).context("write a file")?;
        left -= u64::try_from(length)?;
    }
    drop(file);
    let written = start.elapsed();
    let start = Instant::now();
    let mut file = File::open(path).context("open a file")?;
    while file.read(&mut buffer).context("read a file")? > 0 {}
    let read = start.elapsed();
    fs::remove_file(path).context("remove a file")?;
    Ok((written, read))
}
