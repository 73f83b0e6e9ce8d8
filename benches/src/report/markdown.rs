//! A report as `docs/benchmarks.md`.

use super::{Report, Section, table};
use std::fmt::Write as _;

const READING: &str = "\
## How to read it

* **Ratios, not times.** Machines differ and are never quiet. Ours and the peers are measured in one run, in turns:
  each round takes one sample of each, in an order drawn anew, after rounds that do not count, and with a pause
  before each sample so that what one leaves behind (deletion goes on behind the caller's back) does not burden the
  next. What the machine does besides meets all alike. The column \"÷ first\" is the median divided by the median of
  the table's first row.
* **Everything of ours goes through the API**, over gRPC on a unix socket, with the Rust client in another process
  than the daemon, as a user has it. The peers are programs; they are started with `posix_spawn` and waited for.
* **p95 and p99** are shown from 20 samples on. With some hundred samples p99 is the worst three: read it as \"how bad
  is bad\", not as a number to compare.
* **Peers give less.** `bwrap` here sets no limits, no system call filter and no disk; `runc` gets the same memory,
  processor and process limits as ours, all namespaces, and no seccomp filter, which makes it faster.
* **runc joins control groups by process number**, which on version 1 costs it about 8 ms for each hierarchy on a
  default kernel, and almost nothing where any program used `favordynmods` since boot. The facts above say what the
  mounts say now; the option's effect outlasts its mount.
* **Load.** The facts above say how busy the machine was. Ours takes part in more wake-ups than a lone process does
  (client, daemon, guest), so other work on the same cores costs it more than it costs `posix_spawn`; compare the
  `min` columns too.
* **The floor** is a prototype that made the same jail without a daemon, records or gRPC, on another day on the same
  kind of machine. `posix_spawn` of a static `true` took 1.07 ms then; the row here is of a dynamic one, and tells
  how quiet this run was.
* **Expectations are the project's own** and fail no build. A missed one stays in the table.
";

impl Report {
    /// The document.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_markdown(&mut out);
        out
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# Benchmarks\n")?;
        writeln!(out, "Written by `make bench` on {}; do not edit by hand.\n", self.date)?;
        self.write_summary(out)?;
        self.write_machine(out)?;
        writeln!(out, "## Commands\n\n```sh")?;
        writeln!(out, "make bench    # or, step by step:")?;
        writeln!(out, "cargo build --profile dist --workspace")?;
        writeln!(out, "target/dist/{} --json target/benchmarks.json", self.command)?;
        writeln!(out, "target/dist/hostel-bench report target/benchmarks.json > docs/benchmarks.md\n```\n")?;
        for section in &self.sections {
            write_section(out, section)?;
        }
        out.push_str(READING);
        Ok(())
    }

    fn write_summary(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "| expectation | wanted | measured | |\n|---|---|---|---|")?;
        for expected in self.sections.iter().flat_map(|section| &section.expectations) {
            let (limit, measured) = table::expectation(expected);
            let verdict = if expected.met { "met" } else { "**missed**" };
            writeln!(out, "| {} | {limit} | {measured} | {verdict} |", expected.what)?;
        }
        writeln!(out)
    }

    fn write_machine(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## Machine\n")?;
        for (name, value) in self.machine.facts() {
            writeln!(out, "* {name}: {value}")?;
        }
        for note in &self.notes {
            writeln!(out, "* Left out: {note}")?;
        }
        writeln!(out)
    }
}

fn write_section(out: &mut String, section: &Section) -> std::fmt::Result {
    writeln!(out, "## {}\n\n{}\n", section.title, section.method)?;
    for (index, line) in table::cells(section).iter().enumerate() {
        if section.rows.is_empty() {
            break;
        }
        writeln!(out, "| {} |", line.join(" | "))?;
        if index == 0 {
            writeln!(out, "|---|{}", "--:|".repeat(line.len() - 1))?;
        }
    }
    writeln!(out)?;
    for expected in &section.expectations {
        let (limit, measured) = table::expectation(expected);
        writeln!(out, "* {}: {measured}, wanted {limit}: **{}**", expected.what, table::verdict(expected))?;
    }
    for note in &section.notes {
        writeln!(out, "* {note}")?;
    }
    for failure in &section.failures {
        writeln!(out, "* Could not be measured: {failure}")?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use crate::report::tests::example;

    #[test]
    fn the_document_has_every_part() {
        let text = example().markdown();
        for part in
            ["# Benchmarks", "## Machine", "## One-shot", "| bwrap | 8.000 ms |", "**missed**", "## How"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
