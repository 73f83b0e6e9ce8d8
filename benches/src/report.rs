//! What was measured, as data; and the ways to show it.

mod markdown;
mod table;
mod text;

use crate::machine::Machine;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Everything that one run found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The day, in UTC.
    pub(crate) date: String,
    /// What was typed.
    pub(crate) command: String,
    /// Where.
    pub(crate) machine: Machine,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    pub(crate) sections: Vec<Section>,
}

/// One measurement with everything beside it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    /// As `--only` takes it.
    pub(crate) name: String,
    pub(crate) title: String,
    /// What exactly was done.
    pub(crate) method: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) expectations: Vec<Expectation>,
    /// What could not be measured of peers, and other remarks.
    pub(crate) notes: Vec<String>,
    /// What of ours could not be measured.
    pub(crate) failures: Vec<String>,
}

/// A line of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// For programs.
    pub(crate) name: String,
    /// For people.
    pub(crate) label: String,
    pub(crate) summary: Summary,
}

/// The spread of some samples.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) unit: Unit,
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) p50: u64,
    pub(crate) p95: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Nanoseconds,
    BytesPerSecond,
    /// Thousandths of something per second.
    MilliPerSecond,
    Bytes,
}

/// What the project wants of a number, and what it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Expectation {
    /// What is compared with what.
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    /// What both numbers count: `×`, `ms`, `GB/s`, `MB`, `s`.
    pub(crate) unit: String,
    pub(crate) met: bool,
}

/// On which side of the limit it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

impl Report {
    pub(crate) fn new(machine: Machine, command: String) -> Self {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        Self { date, command, machine, notes: Vec::new(), sections: Vec::new() }
    }

    pub(crate) fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("understand {}", file.display()))
    }

    /// A report in which later ones measured some sections again.
    pub(crate) fn read_all(file: &Path, again: &[PathBuf]) -> Result<Self> {
        let mut report = Self::read(file)?;
        for file in again {
            report.renew(Self::read(file)?);
        }
        Ok(report)
    }

    /// Takes what a later run measured again, and says of which run it is.
    fn renew(&mut self, later: Self) {
        for mut section in later.sections {
            let Some(own) = self.sections.iter_mut().find(|own| own.name == section.name) else { continue };
            section.notes.push(format!("Measured again, on {}, by `{}`.", later.date, later.command));
            *own = section;
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("write JSON")?;
        text.push('\n');
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Whether everything of ours could be measured.
    pub(crate) fn is_complete(&self) -> bool {
        self.sections.iter().all(|section| section.failures.is_empty())
    }
}

impl Section {
    pub(crate) fn new(name: &str, title: &str, method: impl Into<String>) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), method: method.into(), ..Self::default() }
    }

    pub(crate) fn row(&mut self, name: &str, label: impl Into<String>, summary: Summary) {
        self.rows.push(Row { name: name.to_owned(), label: label.into(), summary });
    }

    /// The median of a row; nothing if it was not measured.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(|row| to_f64(row.summary.p50))
    }

    /// The 99th percentile of a row; nothing if it was not measured.
    pub(crate) fn p99(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(|row| to_f64(row.summary.p99))
    }

    pub(crate) fn expect(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        bound: Bound,
        limit: f64,
        unit: &str,
    ) {
        let met = match bound {
            Bound::AtMost => measured <= limit,
            Bound::AtLeast => measured >= limit,
        };
        self.expectations.push(Expectation {
            what: what.into(),
            measured,
            bound,
            limit,
            unit: unit.to_owned(),
            met,
        });
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "2^53 of anything we count is enough")]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Report {
        let mut section = Section::new("one_shot", "One-shot", "Makes, runs, deletes.");
        let summary = |p50| Summary {
            unit: Unit::Nanoseconds,
            count: 10,
            min: p50 / 2,
            p50,
            p95: p50 * 2,
            p99: p50 * 3,
            max: p50 * 4,
        };
        section.row("hostel", "Hostel", summary(4_000_000));
        section.row("bwrap", "bwrap", summary(8_000_000));
        section.expect("Hostel ÷ bwrap", 0.5, Bound::AtMost, 1.0, "×");
        section.expect("stdout", 0.5, Bound::AtLeast, 1.0, "GB/s");
        let mut report = Report::new(Machine::default(), "hostel-bench".to_owned());
        report.sections.push(section);
        report
    }

    #[test]
    fn a_report_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("r.json");
        let report = example();
        report.write(&file).unwrap();
        let again = Report::read(&file).unwrap();
        assert_eq!(again.text(), report.text());
        assert!(again.is_complete());
    }

    #[test]
    fn what_was_measured_again_takes_its_place_and_says_so() {
        let mut report = example();
        report.sections.push(Section::new("exec", "Exec", ""));
        let mut later = example();
        later.sections[0].title = "One-shot, better".to_owned();
        report.renew(later);
        let sections: Vec<_> =
            report.sections.iter().map(|one| (one.title.as_str(), one.notes.len())).collect();
        assert_eq!(sections, [("One-shot, better", 1), ("Exec", 0)]);
    }

    #[test]
    fn expectations_know_which_side_is_well() {
        let report = example();
        let met: Vec<bool> = report.sections[0].expectations.iter().map(|expected| expected.met).collect();
        assert_eq!(met, [true, false]);
    }
}
