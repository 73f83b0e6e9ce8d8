//! What is going on just now, in the last line of the terminal.

use crate::output::human::printable;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// A line that moves while something is waited for; nothing where stderr is no terminal.
#[derive(Debug, Default)]
pub(crate) struct Spinner {
    enabled: bool,
    bar: Option<ProgressBar>,
}

impl Spinner {
    /// One that is not shown yet.
    pub(crate) fn new() -> Self {
        Self { enabled: crate::terminal::stderr_is_terminal(), bar: None }
    }

    /// Shows what is going on. The same again keeps its clock.
    pub(crate) fn show(&mut self, what: &str) {
        if !self.enabled {
            return;
        }
        let what = printable(what).replace('\n', " ");
        if let Some(bar) = &self.bar {
            if bar.message() != what {
                bar.reset_elapsed();
                bar.set_message(what);
            }
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    /// Takes it away: something is printed in its place.
    pub(crate) fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.hide();
    }
}
