//! Waiting for the machine to come to rest: what was made before a sample is removed by then, by the daemons and by
//! the kernel, which clears away namespaces and mounts long after their owner was told that they are gone.

use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// What one look at the processors spans: ten of the kernel's ticks, times the processors.
const LOOK: Duration = Duration::from_millis(100);
/// At rest, the processors are busy for at most this part of it.
const BUSY: f64 = 0.1;
/// How long a machine that never rests is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until the machine is at rest, within reason.
pub(crate) async fn quiet() -> Result<()> {
    let begin = Instant::now();
    let mut before = times()?;
    while begin.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let after = times()?;
        let share = (after.busy - before.busy) / (after.all - before.all).max(1.0);
        if share <= BUSY {
            break;
        }
        before = after;
    }
    Ok(())
}

/// What all processors did since the start of the machine, in ticks.
struct Times {
    busy: f64,
    all: f64,
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)); what comes
/// after is in those already.
fn times() -> Result<Times> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("the first line of /proc/stat is {line:?}"))?;
    let all: f64 = ticks.iter().sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok(Times { busy: all - idle, all })
}
