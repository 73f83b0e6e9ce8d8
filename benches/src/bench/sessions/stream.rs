//! What we add to each piece of an answer on its way to a client.

use super::A_LOOK;
use super::bare::Bare;
use super::model::Model;
use super::stage::Stage;
use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Bound, Section, Unit};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::Duration;

/// Pieces of an answer, and how far apart they are sent.
const DELTAS: usize = 200;
const DELAY: Duration = Duration::from_millis(10);

pub(super) fn heading() -> Section {
    Section::new(
        "sessions_stream",
        "Sessions: from the model to a client",
        "A turn whose answer comes in 200 pieces, 10 ms apart. Each piece has in it when the model sent it; its age is \
         taken by a client of `GET /api/sessions/ID/events` when its frame is there, which is after the piece was \
         journaled on disk, and at the standard output of the bare command line, which asks without a gateway. What the \
         agent itself takes is in both; the difference of the medians is what is ours. In turns, both agents live.",
    )
}

pub(super) async fn measure(
    stage: &Stage,
    model: &Model,
    scale: &Scale,
    section: &mut Section,
) -> Result<()> {
    let rounds = if scale.samples <= A_LOOK { 1 } else { 10 };
    let session = stage.session().await?;
    let mut events = Events { response: stage.events(&session).await?, rest: String::new() };
    let prompt = |deltas| model.prompt(deltas, DELAY);
    // Both have had a turn before anything counts.
    let mut bare = Bare::start(&stage.claude(), model.address(), &prompt(3).text).await?;
    bare.turn(|_| Ok(())).await?;
    stage.turn(&session, &prompt(3).text).await?;
    events.turn(|_| Ok(())).await?;

    let (mut ours, mut theirs) = (Samples::new()?, Samples::new()?);
    for _ in 0..rounds {
        bare.say(&prompt(DELTAS).text).await?;
        bare.turn(|line| {
            if line.contains("\"content_block_delta\"") && line.starts_with("{\"type\":\"stream_event\"") {
                model.ages(line).try_for_each(|age| theirs.add_duration(age))?;
            }
            Ok(())
        })
        .await?;
        let body = json!({ "prompt": prompt(DELTAS).text, "mode": "ack" });
        stage.post(&format!("{session}/message"), body).await?;
        events
            .turn(|frame| {
                if frame.contains("event: block:delta\n") {
                    model.ages(frame).try_for_each(|age| ours.add_duration(age))?;
                }
                Ok(())
            })
            .await?;
    }
    bare.end().await?;
    stage.delete(&session).await?;
    let (ours, theirs) = (ours.summary(Unit::Nanoseconds), theirs.summary(Unit::Nanoseconds));
    for (name, what, summary) in
        [("bare", "bare command line, stdout", theirs), ("hostel", "Hostel, event stream", ours)]
    {
        section.row(name, what, summary);
    }
    if let (Some(ours), Some(theirs)) = (section.median("hostel"), section.median("bare")) {
        section.expect("added to each event, p50", (ours - theirs) / 1e6, Bound::AtMost, 2.0, " ms");
    }
    if let (Some(ours), Some(theirs)) = (section.p99("hostel"), section.p99("bare")) {
        section.notes.push(format!("Added at p99: {:.2} ms.", (ours - theirs) / 1e6));
    }
    Ok(())
}

/// A stream of events.
struct Events {
    response: reqwest::Response,
    rest: String,
}

impl Events {
    /// Reads to the end of a turn, and gives every frame to `look` as soon as it is there.
    async fn turn(&mut self, mut look: impl FnMut(&str) -> Result<()>) -> Result<()> {
        loop {
            while let Some(end) = self.rest.find("\n\n") {
                let frame: String = self.rest.drain(..end + 2).collect();
                look(&frame)?;
                if frame.contains("event: turn:completed\n") {
                    return Ok(());
                }
            }
            let chunk =
                tokio::time::timeout(super::PATIENCE, self.response.chunk()).await.context("no events")?;
            let chunk = chunk.context("read events")?.context("the events ended")?;
            self.rest.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}
