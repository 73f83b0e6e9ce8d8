//! A plan as bars: hit rate by size, with idle memory beside it.

use crate::output::{bar::bar, human};
use hostel_client::model::PlanRow;

/// Characters of a full bar of the hit rate, and of one of memory.
const HIT_WIDTH: usize = 30;
const MEMORY_WIDTH: usize = 12;

/// Bars of the rows, the smallest size that is enough marked. Memory is drawn in proportion to the greatest.
#[expect(clippy::cast_precision_loss, reason = "a bar has no such precision")]
pub(super) fn plot(rows: &[PlanRow], smallest: Option<u32>, target: f64) -> String {
    let most = rows.iter().map(|row| row.idle_memory_bytes).max().unwrap_or(0).max(1) as f64;
    let names = rows.iter().map(|row| row.size.map_or_else(|| "auto".to_owned(), |size| size.to_string()));
    let names: Vec<_> = names.collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max("size".len());
    let mut lines = vec![format!(
        "{:>width$}  {:HIT_WIDTH$} {:7}  {:MEMORY_WIDTH$}",
        "size", "hit rate", "", "idle memory"
    )];
    for (row, name) in rows.iter().zip(names) {
        let hits = bar(row.hit_rate, HIT_WIDTH);
        let memory = bar(row.idle_memory_bytes as f64 / most, MEMORY_WIDTH);
        let (rate, bytes) = (human::percent(row.hit_rate), human::size(Some(row.idle_memory_bytes)));
        let enough = row.size.is_some() && row.size == smallest;
        let mark =
            if enough { format!("  ◀ smallest for {}", human::percent(target)) } else { String::new() };
        lines.push(format!("{name:>width$}  {hits} {rate:>7}  {memory} {bytes}{mark}"));
    }
    if smallest.is_none() {
        let target = human::percent(target);
        lines.push(format!(
            "none of these sizes reaches the target hit rate of {target}: try larger ones with --sizes"
        ));
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(size: Option<u32>, hit_rate: f64, memory: u64) -> PlanRow {
        PlanRow {
            size,
            hit_rate,
            wait_p50_seconds: 0.0,
            wait_p99_seconds: 0.0,
            idle_memory_bytes: memory << 20,
            idle_seconds: 0.0,
            mean_size: 3.25,
            largest_size: 7,
        }
    }

    #[test]
    fn bars_line_up_and_one_size_is_marked() {
        let rows =
            [row(Some(0), 0.0, 0), row(Some(2), 0.5, 512), row(Some(16), 0.995, 1024), row(None, 1.0, 256)];
        let text = plot(&rows, Some(16), 0.99);
        let lines: Vec<_> = text.lines().collect();
        let full = |count| "█".repeat(count);
        assert_eq!(lines[0], format!("size  hit rate{}idle memory", " ".repeat(32)));
        assert_eq!(lines[1], format!("   0  {}      0%  {} 0 B", " ".repeat(30), " ".repeat(12)));
        assert_eq!(
            lines[2],
            format!("   2  {}{}     50%  {}{} 512 MiB", full(15), " ".repeat(15), full(6), " ".repeat(6))
        );
        assert_eq!(lines[3], format!("  16  {}▉  99.50%  {} 1 GiB  ◀ smallest for 99%", full(29), full(12)));
        assert_eq!(lines[4], format!("auto  {}    100%  {}{} 256 MiB", full(30), full(3), " ".repeat(9)));
        assert_eq!(text.matches('◀').count(), 1);
    }

    #[test]
    fn it_says_when_no_size_is_enough() {
        let text = plot(&[row(Some(1), 0.4, 1), row(None, 1.0, 1)], None, 0.999);
        assert!(text.ends_with("99.90%: try larger ones with --sizes"), "{text}");
        assert!(!text.contains('◀'));
        // Nobody waits and nothing is kept: no division by nothing.
        assert!(plot(&[row(Some(0), 1.0, 0)], Some(0), 0.99).contains("◀"));
        assert!(plot(&[], None, 0.99).contains("none"));
    }
}
