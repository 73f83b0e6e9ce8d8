//! How long a sandbox takes until it is ready.

use super::tight;
use crate::measure::{Case, Samples};
use crate::peers;
use crate::report::{Bound, Section, Unit};
use crate::stages::{Staged, StagedClient};
use anyhow::Result;
use std::cell::RefCell;
use std::time::Duration;

const NAME: &str = "create";

/// What the prototype of a jail took, without a daemon, records or gRPC; medians on a quiet machine of this kind.
struct Floor {
    what: &'static str,
    nanoseconds: f64,
}
const FRESH: Floor = Floor { what: "floor with nothing prepared (1.134 ms)", nanoseconds: 1_134_000.0 };
const PREPARED: Floor =
    Floor { what: "floor with network and control groups prepared (0.516 ms)", nanoseconds: 516_000.0 };

/// Times of the steps, by name, in order of first appearance.
#[derive(Default)]
pub(super) struct Stages(RefCell<Vec<(String, Vec<Duration>)>>);

impl Stages {
    /// A row for each.
    pub(super) fn show(&self, section: &mut Section) -> Result<()> {
        for (name, durations) in self.0.borrow().iter() {
            let mut samples = Samples::new()?;
            for duration in durations {
                samples.add_duration(*duration)?;
            }
            let label = format!("of that, step `{name}`");
            section.row(&format!("stage_{name}"), label, samples.summary(Unit::Nanoseconds));
        }
        Ok(())
    }

    pub(super) fn add(&self, staged: &Staged) {
        let mut all = self.0.borrow_mut();
        for (name, duration) in &staged.stages {
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, durations)) => durations.push(*duration),
                None => all.push((name.clone(), vec![*duration])),
            }
        }
    }
}

pub(super) fn heading() -> Section {
    Section::new(
        NAME,
        "Creating a sandbox",
        "From the call of `CreateSandbox` to its answer, after which processes can be started; the record is durable \
         by then. Memory, processor and process limits, template `host`. \"After another\" follows an untimed \
         creation and deletion at once, with warm caches, as the floor was measured; \"after a pause\" comes after \
         whatever else was measured, and 10 ms of rest. Deletion is not part of it. The steps are the daemon's own \
         account of both kinds.",
    )
}

pub(super) fn cases<'a>(client: &'a StagedClient, stages: &'a Stages) -> Vec<Case<'a>> {
    let take = move || async move {
        let staged = client.create("", &tight()).await?;
        stages.add(&staged);
        client.delete(&staged.id).await?;
        Ok(staged.total)
    };
    vec![
        Case::timed(NAME, "hostel_warm", "Hostel, after another", move || async move {
            let first = client.create("", &tight()).await?;
            client.delete(&first.id).await?;
            take().await
        }),
        Case::timed(NAME, "hostel", "Hostel, after a pause", take),
        Case::timed(NAME, "posix_spawn", "posix_spawn of `true`, after a pause", || async { peers::spawn() }),
    ]
}

pub(super) fn finish(section: &mut Section, stages: &Stages) -> Result<()> {
    for floor in [FRESH, PREPARED] {
        if let Some(median) = section.median("hostel_warm") {
            let what = format!("create→ready after another ÷ {}", floor.what);
            section.expect(what, median / floor.nanoseconds, Bound::AtMost, 2.5, "×");
        }
    }
    stages.show(section)
}
