//! From making a session to its agent's first request, cold and warm, beside the agent's bare command line.

use super::bare::Bare;
use super::model::{Model, Prompt};
use super::stage::Stage;
use super::{A_LOOK, PATIENCE};
use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Bound, Section, Unit};
use anyhow::{Context as _, Result};
use futures::future::{try_join, try_join_all};
use jiff::Timestamp;
use std::time::{Duration, Instant};

pub(super) fn heading() -> Section {
    Section::new(
        "sessions_first",
        "Sessions: to the first request",
        "From the first byte of `POST /api/sessions` until the model has its first request, over the message that is sent \
         as soon as the session is made; from the message; and from a second message, whose agent is live. Ready is \
         when the agent has answered that it has begun, or was claimed. Cold: no \
         sandbox and no agent is there before. Warm: the session server keeps as many agents as there are clients, and \
         they are at rest; the pool starts others in their place at once, on the same processors. Bare: the same \
         binary started by us with pipes and a home of its own, its message written at once, asking the same model \
         without a gateway; for ready, others that are told to begin and asked nothing. All at once by as many clients, and one kind after another in turns.",
    )
}

/// What one kind took.
struct Kind {
    name: &'static str,
    label: &'static str,
    ready: Samples,
    created: Samples,
    asked: Samples,
    live: Samples,
    /// Sessions whose sandbox came out of a pool.
    warm: usize,
}

impl Kind {
    fn new(name: &'static str, label: &'static str) -> Result<Self> {
        Ok(Self {
            name,
            label,
            ready: Samples::new()?,
            created: Samples::new()?,
            asked: Samples::new()?,
            live: Samples::new()?,
            warm: 0,
        })
    }

    fn rows(&self, section: &mut Section, clients: usize) {
        let (name, label) = (self.name, self.label);
        let parts = [
            ("", "create→request", &self.created),
            ("_ready", "create→agent ready", &self.ready),
            ("_message", "message→request", &self.asked),
            ("_live", "live agent, message→request", &self.live),
        ];
        for (part, what, samples) in parts {
            let summary = samples.summary(Unit::Nanoseconds);
            if summary.count > 0 {
                section.row(
                    &format!("{name}{part}_{clients}"),
                    format!("{clients} at once: {label}, {what}"),
                    summary,
                );
            }
        }
    }
}

pub(super) async fn measure(
    cold: &mut Stage,
    warm: &mut Stage,
    model: &Model,
    scale: &Scale,
    section: &mut Section,
) -> Result<()> {
    let look = scale.samples <= A_LOOK;
    for clients in if look { [1, 2, 4] } else { [1, 8, 32] } {
        let rounds = if look { 1 } else { (scale.samples / 10 / clients).max(2) };
        warm.serve(clients).await?;
        let mut bare = Kind::new("bare", "bare command line")?;
        let mut cold_kind = Kind::new("hostel_cold", "Hostel, cold")?;
        let mut warm_kind = Kind::new("hostel_warm", "Hostel, warm")?;
        eprintln!("  {clients} at once …");
        for _ in 0..rounds {
            warm.settle(clients).await?;
            run_bare(cold, model, clients, &mut bare).await.context("bare")?;
            run(cold, model, clients, &mut cold_kind).await.context("cold")?;
            warm.settle(clients).await?;
            run(warm, model, clients, &mut warm_kind).await.context("warm")?;
        }
        for kind in [&bare, &cold_kind, &warm_kind] {
            kind.rows(section, clients);
        }
        for kind in [&cold_kind, &warm_kind] {
            let (got, of) = (kind.warm, rounds * clients);
            let note =
                format!("{clients} at once: {}: {got} of {of} sandboxes came out of a pool.", kind.label);
            section.notes.push(note);
        }
        let median = |name: &str| section.median(&format!("{name}_{clients}"));
        if let (Some(bare), Some(warm)) = (median("bare"), median("hostel_warm")) {
            let what = format!("warm create→request ÷ bare cold start, {clients} at once, p50");
            section.expect(what, warm / bare, Bound::AtMost, 0.5, "×");
        }
    }
    Ok(())
}

/// Says nothing that takes time.
fn prompt(model: &Model) -> Prompt {
    model.prompt(1, Duration::ZERO)
}

async fn run(stage: &Stage, model: &Model, clients: usize, kind: &mut Kind) -> Result<()> {
    let first = (0..clients).map(|_| async {
        let prompt = prompt(model);
        let (began, start) = (Timestamp::now(), Instant::now());
        let session = stage.session().await?;
        let made = Instant::now();
        let ((), seen) = try_join(stage.turn(&session, &prompt.text), model.seen(&prompt)).await?;
        anyhow::Ok((session, began, seen.duration_since(start), seen.duration_since(made)))
    });
    let mut sessions = Vec::new();
    for (session, began, created, asked) in try_join_all(first).await? {
        kind.created.add_duration(created)?;
        kind.asked.add_duration(asked)?;
        sessions.push((session, began));
    }
    kind.warm += stage.warm_starts().await?;
    // Not while it is measured.
    for (session, began) in &sessions {
        let ready = stage.ready(session).await?.duration_since(*began);
        kind.ready.add_duration(ready.try_into().context("a clock that was set back")?)?;
    }
    let second = sessions.iter().map(|(session, _)| async move {
        let (prompt, start) = (prompt(model), Instant::now());
        let ((), seen) = try_join(stage.turn(session, &prompt.text), model.seen(&prompt)).await?;
        anyhow::Ok(seen.duration_since(start))
    });
    for live in try_join_all(second).await? {
        kind.live.add_duration(live)?;
    }
    try_join_all(sessions.iter().map(|(session, _)| stage.delete(session))).await?;
    Ok(())
}

async fn run_bare(stage: &Stage, model: &Model, clients: usize, kind: &mut Kind) -> Result<()> {
    let claude = stage.claude();
    let first = (0..clients).map(|_| async {
        let (prompt, start) = (prompt(model), Instant::now());
        let mut bare = Bare::start(&claude, model.address(), &prompt.text).await?;
        let ((), seen) = try_join(bare.turn(|_| Ok(())), model.seen(&prompt)).await?;
        anyhow::Ok((bare, seen.duration_since(start)))
    });
    let mut all = Vec::new();
    for (bare, created) in try_join_all(first).await? {
        kind.created.add_duration(created)?;
        all.push(bare);
    }
    let second = all.iter_mut().map(|bare| async move {
        let (prompt, start) = (prompt(model), Instant::now());
        bare.say(&prompt.text).await?;
        let ((), seen) = try_join(bare.turn(|_| Ok(())), model.seen(&prompt)).await?;
        anyhow::Ok(seen.duration_since(start))
    });
    for live in tokio::time::timeout(PATIENCE, try_join_all(second)).await.context("second messages")?? {
        kind.live.add_duration(live)?;
    }
    try_join_all(all.into_iter().map(Bare::end)).await?;
    let ready = (0..clients).map(|_| async {
        let start = Instant::now();
        let bare = Bare::ready(&claude, model.address()).await?;
        anyhow::Ok((bare, start.elapsed()))
    });
    for (bare, took) in try_join_all(ready).await? {
        kind.ready.add_duration(took)?;
        bare.end().await?;
    }
    Ok(())
}
