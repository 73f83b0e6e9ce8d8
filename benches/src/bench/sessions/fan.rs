//! One session, and many who look on.

use super::PATIENCE;
use super::model::Model;
use super::stage::Stage;
use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Section, Unit};
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const CLIENTS: usize = 500;
/// Pieces of the answer, and how far apart they are sent.
const DELTAS: usize = 50;
const DELAY: Duration = Duration::from_millis(20);
/// Ticks of a second in /proc, on x86-64 and aarch64 (`USER_HZ` of the kernel).
const TICKS: u64 = 100;
/// The last event of a turn that is waited for, and the first of every session.
const LAST: &[u8] = b"event: turn:completed\n";
const FIRST: &[u8] = b"event: session:created\n";

pub(super) fn heading() -> Section {
    Section::new(
        "sessions_fan",
        "Sessions: 500 clients of one",
        "500 clients follow the events of one session, each over a connection of its own, while a turn has an answer in 50 \
         pieces, 20 ms apart. From the first client to the last that has `turn:completed`; the clients are one thread on \
         the same machine, and what they take is in there. CPU time of the session server over the turn, all clients \
         together, beside the same turn with one client.",
    )
}

pub(super) async fn measure(
    stage: &Stage,
    model: &Model,
    scale: &Scale,
    section: &mut Section,
) -> Result<()> {
    let session = stage.session().await?;
    let (mut spread, mut together, mut alone) = (Samples::new()?, Samples::new()?, Samples::new()?);
    let mut rounds = Rounds { stage, model, session: &session };
    // The agent is started by the first turn, which does not count.
    rounds.run(1, 1, None, &mut Samples::new()?).await?;
    rounds.run(1, scale.bulk_samples, None, &mut alone).await?;
    rounds.run(CLIENTS, scale.bulk_samples, Some(&mut spread), &mut together).await?;
    section.row("spread", "first client to last", spread.summary(Unit::Nanoseconds));
    section.row("cpu_500", "CPU time of the server, 500 clients", together.summary(Unit::Nanoseconds));
    section.row("cpu_1", "CPU time of the server, 1 client", alone.summary(Unit::Nanoseconds));
    stage.delete(&session).await
}

struct Rounds<'a> {
    stage: &'a Stage,
    model: &'a Model,
    session: &'a str,
}

impl Rounds<'_> {
    /// Some turns with so many clients.
    async fn run(
        &mut self,
        clients: usize,
        rounds: usize,
        mut spread: Option<&mut Samples>,
        cpu: &mut Samples,
    ) -> Result<()> {
        let address = self.stage.address()?;
        let (told, mut ends) = mpsc::channel(clients);
        let mut readers = JoinSet::new();
        for _ in 0..clients {
            readers.spawn(follow(address, self.session.to_owned(), told.clone()));
        }
        drop(told);
        // What was there before: each client has the first event, and the turns that are over.
        wait(&mut ends, clients, FIRST).await?;
        for _ in 0..rounds {
            tokio::time::sleep(Duration::from_millis(200)).await;
            while ends.try_recv().is_ok() {}
            let before = cpu_time(self.stage.pid()?)?;
            let prompt = self.model.prompt(DELTAS, DELAY);
            let sent = serde_json::json!({ "prompt": prompt.text, "mode": "ack" });
            self.stage.post(&format!("{}/message", self.session), sent).await?;
            let (first, last) = wait(&mut ends, clients, LAST).await?;
            cpu.add_duration(cpu_time(self.stage.pid()?)?.saturating_sub(before))?;
            if let Some(spread) = &mut spread {
                spread.add_duration(last.duration_since(first))?;
            }
        }
        readers.shutdown().await;
        Ok(())
    }
}

/// Waits until all clients have told of this, and gives the times of the first and the last.
async fn wait(
    ends: &mut mpsc::Receiver<(&'static [u8], Instant)>,
    clients: usize,
    what: &[u8],
) -> Result<(Instant, Instant)> {
    let mut times = Vec::with_capacity(clients);
    while times.len() < clients {
        let next = tokio::time::timeout(PATIENCE, ends.recv()).await.context("not all clients have it")?;
        let (kind, time) = next.context("the clients ended")?;
        if kind == what {
            times.push(time);
        }
    }
    let first = times.iter().min().copied().context("a client")?;
    Ok((first, times.iter().max().copied().unwrap_or(first)))
}

/// Follows the events, and tells when one came that is waited for. Ends with who waits.
async fn follow(
    address: SocketAddr,
    session: String,
    told: mpsc::Sender<(&'static [u8], Instant)>,
) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    let request = format!("GET {session}/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("ask for events")?;
    let (mut rest, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let length = stream.read(&mut buffer).await.context("read events")?;
        ensure!(length > 0, "the events ended");
        rest.extend_from_slice(&buffer[..length]);
        for what in [FIRST, LAST] {
            while let Some(at) = rest.windows(what.len()).position(|part| part == what) {
                rest.drain(..at + what.len());
                if told.send((what, Instant::now())).await.is_err() {
                    return Ok(());
                }
            }
        }
        rest.drain(..rest.len().saturating_sub(LAST.len().max(FIRST.len())));
    }
}

/// What a process has used of the processors, proc(5).
fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let (_, after) = text.rsplit_once(')').context("a name")?;
    let ticks = after.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>().context("times")?;
    let nanoseconds = ticks.saturating_mul(1_000_000_000 / TICKS);
    Ok(Duration::from_nanos(nanoseconds))
}
