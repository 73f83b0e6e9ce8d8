//! What sessions cost the session server while nothing happens.

use super::model::Model;
use super::stage::Stage;
use crate::bench::memory::proc;
use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Section, Unit};
use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::Duration;

const SESSIONS: usize = 200;
const AGENTS: usize = 20;
/// What is made at the same time.
const AT_ONCE: usize = 4;
/// After this what was done has settled.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn heading() -> Section {
    Section::new(
        "sessions_idle",
        "Sessions: memory while idle",
        "Growth of the session server, newly started, divided by the number of sessions: long-running ones that were \
         made and told nothing; and on top of that, of those that then had a turn and keep their agent.",
    )
}

pub(super) async fn measure(
    stage: &mut Stage,
    model: &Model,
    scale: &Scale,
    section: &mut Section,
) -> Result<()> {
    let sessions = scale.sandboxes.min(SESSIONS);
    let agents = (sessions / 10).clamp(1, AGENTS);
    stage.serve(0).await?;
    // What the first request alone makes grow is not a session's.
    let first = stage.session().await?;
    stage.delete(&first).await?;
    tokio::time::sleep(SETTLE).await;
    let before = proc::memory_of(stage.pid()?)?;
    let here: &Stage = stage;
    let made: Vec<String> =
        stream::iter(0..sessions).map(|_| here.session()).buffer_unordered(AT_ONCE).try_collect().await?;
    tokio::time::sleep(SETTLE).await;
    let idle = proc::memory_of(here.pid()?)?;
    let turns = stream::iter(&made[..agents])
        .map(|session| async move { here.turn(session, &model.prompt(1, Duration::ZERO).text).await });
    turns.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    tokio::time::sleep(SETTLE).await;
    let live = proc::memory_of(here.pid()?)?;

    let mut row = |name: &str, label: String, bytes: u64| -> Result<()> {
        let mut samples = Samples::new()?;
        samples.add(bytes)?;
        section.row(name, label, samples.summary(Unit::Bytes));
        Ok(())
    };
    let each = |after: u64, before: u64, count: usize| -> Result<u64> {
        Ok(after.saturating_sub(before) / u64::try_from(count)?)
    };
    row("server", "the server before, resident".to_owned(), before.resident)?;
    let what = format!("each of {sessions} idle sessions");
    row("idle_resident", format!("{what}, resident"), each(idle.resident, before.resident, sessions)?)?;
    row("idle_private", format!("{what}, private"), each(idle.private, before.private, sessions)?)?;
    let what = format!("more for each of {agents} with a live agent");
    row("live_resident", format!("{what}, resident"), each(live.resident, idle.resident, agents)?)?;
    row("live_private", format!("{what}, private"), each(live.private, idle.private, agents)?)?;
    Ok(())
}
