//! A report for a terminal.

use super::{Report, table};
use std::fmt::Write as _;

impl Report {
    /// Tables and, beside each expectation, whether it is met.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{}   {}   load {} to {}",
            self.machine.cpu, self.machine.kernel, self.machine.load_before, self.machine.load_after
        )?;
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        for section in &self.sections {
            writeln!(out, "\n{}", section.title)?;
            if !section.rows.is_empty() {
                write_table(out, &table::cells(section))?;
            }
            for expected in &section.expectations {
                let (limit, measured) = table::expectation(expected);
                let verdict = table::verdict(expected);
                writeln!(out, "  {verdict:>6}: {}: {measured}, expected {limit}", expected.what)?;
            }
            for note in &section.notes {
                writeln!(out, "  note: {note}")?;
            }
            for failure in &section.failures {
                writeln!(out, "  FAILED: {failure}")?;
            }
        }
        let all = self.sections.iter().flat_map(|section| &section.expectations);
        let (met, total) = all.fold((0, 0), |(met, total), one| (met + usize::from(one.met), total + 1));
        writeln!(out, "\n{met} of {total} expectations met")
    }
}

/// The first column to the left, the others to the right.
fn write_table(out: &mut String, lines: &[Vec<String>]) -> std::fmt::Result {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            if column == 0 {
                write!(out, "  {cell:<width$}")?;
            } else {
                write!(out, "  {cell:>width$}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::report::tests::example;

    #[test]
    fn the_table_shows_ratios_and_verdicts() {
        let text = example().text();
        for part in ["2.00×", "met: Hostel ÷ bwrap: 0.50×, expected ≤ 1.00×", "missed: stdout", "1 of 2"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
