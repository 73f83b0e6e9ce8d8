//! What is shown: the agent's words on stdout, all else on stderr, which may be the same terminal.

use super::happening::{Block, Happening, Outcome};
use super::paint::Paint;
use super::spinner::Spinner;
use super::tool::{Tools, complaint};
use crate::failure::Failure;
use crate::output::human;
use crate::{output, terminal};
use hostel_client::model::SessionEvent;
use std::collections::HashMap;
use std::io::Write as _;

/// Blocks of which it is kept in mind how much was printed.
const MOST_BLOCKS: usize = 4096;
/// Columns where nobody says how many there are.
const COLUMNS: u16 = 100;

/// What is shown of a conversation.
#[derive(Debug)]
pub(crate) struct Screen {
    paint: Paint,
    spinner: Spinner,
    tools: Tools,
    /// How many bytes of each text were printed.
    printed: HashMap<String, usize>,
    /// Whether a turn is under way.
    in_turn: bool,
    /// Whether stdout is somewhere in a line.
    in_line: bool,
    /// Whether stdout is a terminal, which must not obey what the agent says.
    terminal: bool,
    json: bool,
    verbose: bool,
}

impl Screen {
    /// With `json` events are printed as they are; `verbose` shows what the agent thinks.
    pub(crate) fn new(json: bool, verbose: bool) -> Self {
        let spinner = if json { Spinner::default() } else { Spinner::new() };
        Self {
            paint: Paint::of_stderr(),
            spinner,
            tools: Tools::default(),
            printed: HashMap::new(),
            in_turn: false,
            in_line: false,
            terminal: terminal::stdout_is_terminal(),
            json,
            verbose,
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn show(&mut self, event: &SessionEvent, happening: &Happening) -> Result<(), Failure> {
        if self.json {
            return output::json(event);
        }
        match happening {
            Happening::TurnStarted => {
                self.in_turn = true;
                self.spin("thinking…");
            }
            Happening::TurnCompleted { outcome, .. } => self.ended(outcome)?,
            Happening::Block { subagent, block, complete } => self.block(*subagent, block, *complete)?,
            Happening::Delta { subagent: false, block, kind, delta } if kind == "text" => {
                *self.printed.entry(block.clone()).or_default() += delta.len();
                self.say(delta)?;
            }
            Happening::Delta { kind, .. } if kind == "thinking" => self.spin("thinking…"),
            Happening::Environment { status, message } => self.environment(status, message)?,
            Happening::Retry { attempt, of, error } => {
                self.spin(&format!("the model did not answer ({error}); try {attempt} of {of} failed…"));
            }
            Happening::Told { level, message } => self.told(level, message)?,
            Happening::Ended { reason, message } => {
                let why = if message.is_empty() { String::new() } else { format!(": {message}") };
                let text = human::printable(&format!("■ the session ended: {reason}{why}"));
                self.aside(&self.paint.yellow(&text))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Shows a message of a user.
    pub(crate) fn user(&mut self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        self.aside(&self.paint.bold(&format!("› {}", human::printable(text).replace('\n', "\n  "))))
    }

    fn block(&mut self, subagent: bool, block: &Block, complete: bool) -> Result<(), Failure> {
        match block.kind.as_str() {
            "assistant_text" if complete && !subagent => {
                // What deltas did not bring: all of it where they were compacted.
                let printed = self.printed.remove(&block.id).unwrap_or(0);
                let text = block.text.as_deref().unwrap_or_default();
                self.say(text.get(printed..).unwrap_or_default())?;
                self.finish_line()?;
            }
            "assistant_text" if !complete && !subagent => {
                if self.printed.len() >= MOST_BLOCKS {
                    self.printed.clear();
                }
                self.finish_line()?;
            }
            "thinking" if complete && self.verbose => {
                let text = human::printable(block.text.as_deref().unwrap_or_default().trim());
                if !text.is_empty() {
                    self.aside(&self.paint.dim(&text))?;
                }
            }
            "thinking" => self.spin("thinking…"),
            "system" if complete => {
                let message = block.message.clone().unwrap_or_default();
                self.told("info", &message)?;
            }
            _ => self.tool(subagent, block)?,
        }
        Ok(())
    }

    fn tool(&mut self, subagent: bool, block: &Block) -> Result<(), Failure> {
        let ended = self.tools.told(block);
        let indent = if subagent { "    " } else { "  " };
        if let Some(ended) = ended {
            let mark = if ended.failed { self.paint.red("✗") } else { self.paint.green("✓") };
            let took = if ended.seconds >= 0.1 { human::brief(ended.seconds) } else { String::new() };
            let what = fit(&ended.what, took.len() + 8);
            self.aside(&format!("{indent}{mark} {what} {}", self.paint.dim(&took)))?;
        }
        // It comes after the end of the call has been told.
        if block.kind == "tool_result"
            && block.is_error
            && let Some(why) = complaint(block.content.as_ref())
        {
            self.aside(&self.paint.dim(&format!("{indent}  {}", fit(&why, 8))))?;
        }
        match self.tools.running() {
            Some(what) => self.spin(&fit(&what, 12)),
            None if !self.in_line => self.spin("thinking…"),
            None => {}
        }
        Ok(())
    }

    fn ended(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        self.in_turn = false;
        self.tools.clear();
        self.spinner.hide();
        self.finish_line()?;
        match outcome.result.as_str() {
            "interrupted" | "stopped" | "killed" => {
                self.aside(&self.paint.yellow(&format!("■ {}", outcome.result)))?;
            }
            result if outcome.is_error => {
                let why = outcome.text.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
                // The agent says both.
                self.aside(&self.paint.red(&human::printable(&format!("✗ {result}{why}"))))?;
            }
            _ => {}
        }
        self.aside(&self.paint.dim(&summary(outcome)))
    }

    fn environment(&mut self, status: &str, message: &str) -> Result<(), Failure> {
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        match status {
            "starting" => self.spin(&format!("the sandbox is being made{message}…")),
            "error" => {
                let text = human::printable(&format!("✗ the sandbox failed{message}"));
                self.aside(&self.paint.red(&text))?;
            }
            "ready" if self.in_turn => self.spin("thinking…"),
            _ => self.spinner.hide(),
        }
        Ok(())
    }

    fn told(&mut self, level: &str, message: &str) -> Result<(), Failure> {
        let text = human::printable(message);
        match level {
            _ if text.is_empty() => Ok(()),
            "error" => self.aside(&self.paint.red(&text)),
            "warn" => self.aside(&self.paint.yellow(&text)),
            _ if self.verbose => self.aside(&self.paint.dim(&text)),
            _ => Ok(()),
        }
    }

    /// Says what is going on, where that can be taken away again.
    pub(crate) fn spin(&mut self, what: &str) {
        // Not below half a line of the agent's words: taking it away would take them along.
        if !self.in_line || !self.terminal {
            self.spinner.show(what);
        }
    }

    /// Prints words of the agent.
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        self.spinner.hide();
        let safe = if self.terminal { shown(text) } else { text.to_owned() };
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(safe.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::stdout(&error))?;
        self.in_line = !text.ends_with('\n');
        Ok(())
    }

    /// Has stdout at the beginning of a line.
    pub(crate) fn finish_line(&mut self) -> Result<(), Failure> {
        if self.in_line { self.say("\n") } else { Ok(()) }
    }

    /// Prints a line beside the agent's words.
    pub(crate) fn aside(&mut self, line: &str) -> Result<(), Failure> {
        // On another stdout the words are for themselves.
        if self.terminal {
            self.finish_line()?;
        }
        self.spinner.hide();
        if !self.json {
            // Whoever does not look at stderr does not want to know.
            let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
        }
        Ok(())
    }

    /// Takes away what moves: somebody else writes to the terminal.
    pub(crate) fn quiet(&mut self) {
        self.spinner.hide();
    }

    /// How text beside the agent's words looks.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }
}

/// What the agent says, made safe for a terminal: control characters but line ends and tabs are shown, not obeyed.
fn shown(text: &str) -> String {
    text.split('\t').map(human::printable).collect::<Vec<_>>().join("\t")
}

/// A line cut so that it has room for so many columns more.
fn fit(line: &str, more: usize) -> String {
    let columns = usize::from(terminal::size().map_or(COLUMNS, |size| size.columns));
    let width = columns.saturating_sub(more).max(20);
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width - 1).chain(['…']).collect()
}

/// What a turn took and cost, on one line.
fn summary(outcome: &Outcome) -> String {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a turn, for people")]
    let seconds = outcome.latency as f64 / 1000.0;
    let usage = outcome.usage;
    let read = usage.input.saturating_add(usage.cache_read).saturating_add(usage.cache_creation);
    format!("{} · {} tokens in, {} out · ${:.4}", human::brief(seconds), read, usage.output, outcome.cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_says_cannot_drive_the_terminal() {
        assert_eq!(shown("a\tb\u{1b}[2J\nc\r"), "a\tb\\u{1b}[2J\nc\\r");
    }

    #[test]
    fn a_turn_is_summed_up() {
        let outcome = Outcome { cost: 0.0123, latency: 4200, ..Outcome::default() };
        assert_eq!(summary(&outcome), "4.2s · 0 tokens in, 0 out · $0.0123");
        assert!(fit(&"x".repeat(500), 10).ends_with('…'));
    }
}
