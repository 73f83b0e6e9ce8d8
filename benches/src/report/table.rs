//! Numbers as people read them, and the cells that both ways of showing share.

use super::{Bound, Expectation, Section, Unit, to_f64};

/// A value in a unit that suits its kind.
pub(super) fn number(value: u64, unit: Unit) -> String {
    let value = to_f64(value);
    match unit {
        Unit::Nanoseconds if value >= 1e9 => format!("{:.2} s", value / 1e9),
        Unit::Nanoseconds => format!("{:.3} ms", value / 1e6),
        Unit::BytesPerSecond => format!("{:.2} GB/s", value / 1e9),
        Unit::MilliPerSecond => format!("{:.0} /s", value / 1e3),
        Unit::Bytes => format!("{:.0} KiB", value / 1024.0),
    }
}

/// A section as a table: its heading, then its rows. The last column compares with the first row's median.
pub(super) fn cells(section: &Section) -> Vec<Vec<String>> {
    let mut lines =
        vec![["", "p50", "p95", "p99", "min", "max", "samples", "÷ first"].map(str::to_owned).to_vec()];
    let first = section.rows.first().map(|row| row.summary);
    for row in &section.rows {
        let summary = row.summary;
        let shown = |value| number(value, summary.unit);
        let ratio = match first {
            Some(first) if first.unit == summary.unit && first.p50 > 0 => {
                format!("{:.2}×", to_f64(summary.p50) / to_f64(first.p50))
            }
            _ => String::new(),
        };
        // The tail of one sample is that sample.
        let (p95, p99) = match summary.count {
            0..20 => (String::new(), String::new()),
            _ => (shown(summary.p95), shown(summary.p99)),
        };
        lines.push(vec![
            row.label.clone(),
            shown(summary.p50),
            p95,
            p99,
            shown(summary.min),
            shown(summary.max),
            summary.count.to_string(),
            ratio,
        ]);
    }
    lines
}

/// What was expected and what came, without the verdict.
pub(super) fn expectation(expected: &Expectation) -> (String, String) {
    let sign = match expected.bound {
        Bound::AtMost => "≤",
        Bound::AtLeast => "≥",
    };
    let unit = match expected.unit.as_str() {
        "×" => "×".to_owned(),
        unit => format!(" {unit}"),
    };
    (format!("{sign} {}{unit}", short(expected.limit)), format!("{}{unit}", short(expected.measured)))
}

pub(super) fn verdict(expected: &Expectation) -> &'static str {
    if expected.met { "met" } else { "missed" }
}

fn short(value: f64) -> String {
    let digits = if value.abs() >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_unit_that_suits() {
        assert_eq!(number(1_234_567, Unit::Nanoseconds), "1.235 ms");
        assert_eq!(number(2_500_000_000, Unit::Nanoseconds), "2.50 s");
        assert_eq!(number(1_500_000_000, Unit::BytesPerSecond), "1.50 GB/s");
        assert_eq!(number(412_600, Unit::MilliPerSecond), "413 /s");
        assert_eq!(number(2048, Unit::Bytes), "2 KiB");
    }
}
