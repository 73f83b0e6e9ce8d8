//! What the daemon's way out costs: the model gateway, and connections that pass through, beside direct ones and nginx.
//!
//! The client is ours, in the network namespace of a real sandbox: what it connects to is what a program there does.

mod stage;
mod wire;

use super::fill;
use crate::measure::{Case, Samples, interleave};
use crate::options::Scale;
use crate::peers::Nginx;
use crate::report::{Bound, Section, Unit};
use anyhow::{Context as _, Result, ensure};
use stage::Stage;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::{Model, Raw};

pub(super) const NAME: &str = "reach";
const FIRST_BYTE: &str = "first_byte";
const STREAM: &str = "model_stream";
const PASSING: &str = "passing";
const CONNECT: &str = "connect";
/// Streams at the same time, over as many sandboxes as hold them.
const STREAMS: usize = 200;
const STREAMS_EACH: usize = 50;
/// Bytes of a model's long answer, and of a connection that passes through.
const ANSWER: u64 = 64 << 20;

/// Measures all of it with a daemon of its own, which has an upstream.
pub(super) async fn sections(binaries: &Path, scale: &Scale) -> Result<Vec<Section>> {
    let stage = Stage::start(binaries).await?;
    let nginx = Nginx::start(stage.model());
    let mut sections = headings();
    let raw = Raw::start()?;
    let inside = stage.sandbox(raw.address()).await?;
    let places = Places { stage: &stage, inside: &inside, nginx: nginx.as_ref().ok(), raw: &raw };
    let latencies = [places.first_byte()?, places.connects()].into_iter().flatten().collect();
    let bulk = [places.answers(), places.passing(scale.stdout_bytes / 2)].into_iter().flatten().collect();
    let mut measured = interleave(latencies, scale.warm_up, scale.samples, scale.pause).await?;
    measured.extend(interleave(bulk, 1, scale.bulk_samples, Duration::from_millis(100)).await?);
    for section in &mut sections {
        let name = section.name.clone();
        let (mine, rest) = measured.into_iter().partition(|one| one.section == name);
        fill(section, mine);
        measured = rest;
        expect(section);
    }
    let mut streams = streams(&stage, scale).await?;
    if let Err(error) = &nginx {
        streams.notes.push(format!("nginx (package nginx): {error:#}"));
    }
    sections.push(streams);
    stage.end().await?;
    Ok(sections)
}

fn headings() -> Vec<Section> {
    vec![
        Section::new(
            FIRST_BYTE,
            "Asking a model: first byte",
            "From a request with 48 KB to the first byte of its answer, over a connection that is open already, to the \
             scripted endpoint: directly, through nginx as a reverse proxy, and from inside a sandbox through the model \
             gateway, which checks budgets before and keeps a record of each request on disk.",
        ),
        Section::new(
            STREAM,
            "Asking a model: a long answer",
            "An answer of 64 MiB as server-sent events, read to its end. The gateway reads usage out of it on the way.",
        ),
        Section::new(
            PASSING,
            "Passing through: throughput",
            "One connection out of a sandbox by CONNECT to an address that its policy allows, and as many bytes as come, \
             beside the same connection made directly.",
        ),
        Section::new(
            CONNECT,
            "Passing through: connecting",
            "From connecting until one byte went there and one came back. Each connection of the sandbox is decided \
             about, and recorded in the audit log before a byte of it goes out.",
        ),
    ]
}

fn expect(section: &mut Section) {
    let (ours, direct) = (section.median("hostel"), section.median("direct"));
    let (Some(ours), Some(direct)) = (ours, direct) else { return };
    match section.name.as_str() {
        FIRST_BYTE => {
            section.expect("added to the first byte, p50", (ours - direct) / 1e6, Bound::AtMost, 0.5, " ms");
        }
        PASSING => section.expect("through ÷ direct", ours / direct, Bound::AtLeast, 0.9, "×"),
        _ => {}
    }
    if let (FIRST_BYTE | CONNECT, Some(ours), Some(direct)) =
        (section.name.as_str(), section.p99("hostel"), section.p99("direct"))
    {
        section.expect("through ÷ direct, p99", ours / direct, Bound::AtMost, 2.0, "×");
    }
}

struct Places<'a> {
    stage: &'a Stage,
    inside: &'a stage::Inside,
    nginx: Option<&'a Nginx>,
    raw: &'a Raw,
}

impl<'a> Places<'a> {
    fn first_byte(&self) -> Result<Vec<Case<'a>>> {
        let mut cases = Vec::new();
        let mut add = |name, label, mut model: Model| {
            let take = move || {
                let took = model.ask("hi", None);
                async move { took.map(|times| times.first) }
            };
            cases.push(Case::timed(FIRST_BYTE, name, label, take));
        };
        add("direct", "directly", Model::direct(self.stage.model())?);
        if let Some(nginx) = self.nginx {
            add("nginx", "through nginx", Model::direct(nginx.address())?);
        }
        add("hostel", "from a sandbox, through the gateway", self.inside.model()?);
        Ok(cases)
    }

    fn answers(&self) -> Vec<Case<'a>> {
        let prompt = format!("@@[{{\"gen\":{ANSWER}}}]");
        let (stage, inside) = (self.stage, self.inside);
        let mut cases = Vec::new();
        let (first, second) = (prompt.clone(), prompt.clone());
        cases.push(Case::moving(STREAM, "direct", "directly", ANSWER, move || {
            let took = Model::direct(stage.model()).and_then(|mut model| model.ask(&first, Some(ANSWER)));
            async move { took.map(|times| times.all) }
        }));
        if let Some(nginx) = self.nginx {
            cases.push(Case::moving(STREAM, "nginx", "through nginx", ANSWER, move || {
                let took =
                    Model::direct(nginx.address()).and_then(|mut model| model.ask(&second, Some(ANSWER)));
                async move { took.map(|times| times.all) }
            }));
        }
        cases.push(Case::moving(
            STREAM,
            "hostel",
            "from a sandbox, through the gateway",
            ANSWER,
            move || {
                let took = inside.model().and_then(|mut model| model.ask(&prompt, Some(ANSWER)));
                async move { took.map(|times| times.all) }
            },
        ));
        cases
    }

    fn passing(&self, bytes: u64) -> Vec<Case<'a>> {
        let (raw, inside) = (self.raw, self.inside);
        let address = raw.address();
        vec![
            Case::moving(PASSING, "direct", "directly", bytes, move || {
                let took = wire::connect(address).and_then(|stream| wire::drain(stream, bytes));
                async move { took }
            }),
            Case::moving(PASSING, "hostel", "from a sandbox, by CONNECT", bytes, move || {
                let took = inside.tunnel(address).and_then(|stream| wire::drain(stream, bytes));
                async move { took }
            }),
        ]
    }

    fn connects(&self) -> Vec<Case<'a>> {
        let inside = self.inside;
        let address: SocketAddr = self.raw.address();
        vec![
            Case::timed(CONNECT, "direct", "directly", move || {
                let start = Instant::now();
                let took = wire::connect(address).and_then(wire::touch).map(|()| start.elapsed());
                async move { took }
            }),
            Case::timed(CONNECT, "hostel", "from a sandbox, by CONNECT", move || {
                let took = inside.touch(address);
                async move { took }
            }),
        ]
    }
}

/// Many streams of slow tokens at the same time, to the end of the last one.
async fn streams(stage: &Stage, scale: &Scale) -> Result<Section> {
    let mut section = Section::new(
        "model_streams",
        "Asking a model: 200 streams at a time",
        "200 requests at a time, by 4 sandboxes, each answered with 50 pieces of text 10 ms apart; until the last has ended.",
    );
    let prompt =
        "@@[{\"text\":\"slow tokens, and many of them, one after another\",\"chunks\":50,\"delay_ms\":10}]";
    let mut insides = Vec::new();
    for _ in 0..STREAMS / STREAMS_EACH {
        insides.push(stage.sandbox(stage.model()).await?);
    }
    let (mut direct, mut ours) = (Samples::new()?, Samples::new()?);
    for _ in 0..scale.bulk_samples {
        direct.add_duration(together(STREAMS, |_| Model::direct(stage.model()), prompt)?)?;
        ours.add_duration(together(STREAMS, |index| insides[index / STREAMS_EACH].model(), prompt)?)?;
    }
    section.row("direct", "directly", direct.summary(Unit::Nanoseconds));
    section.row("hostel", "from sandboxes, through the gateway", ours.summary(Unit::Nanoseconds));
    Ok(section)
}

fn together(count: usize, open: impl Fn(usize) -> Result<Model>, prompt: &str) -> Result<Duration> {
    let models = (0..count).map(open).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            models.into_iter().map(|mut model| scope.spawn(move || model.ask(prompt, None))).collect();
        for one in asked {
            let asked = one.join().ok().context("a thread broke")?;
            ensure!(asked?.bytes > 0, "an answer was empty");
        }
        Ok(start.elapsed())
    })
}
