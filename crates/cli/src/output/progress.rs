//! How far something has come, on stderr, for people who wait.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::Path;
use std::time::Duration;

/// A bar, or nothing where stderr is no terminal or nothing takes long.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows how many bytes were copied of `total`, or just how many where that is not known.
    pub(crate) fn new(what: &str, total: Option<u64>, quiet: bool) -> Self {
        if quiet || !crate::terminal::stderr_is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        let template = match total {
            Some(_) => "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(super::human::printable(what));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// The length of a local file; `None` for anything else.
    pub(crate) fn total(path: &Path) -> Option<u64> {
        path.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    /// More was copied.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// A bar of things that are counted, or nothing where stderr is no terminal.
pub(crate) struct Count(ProgressBar);

impl Count {
    /// Shows how many of how many, as soon as [`Self::at`] says.
    pub(crate) fn new(what: &str) -> Self {
        if !crate::terminal::stderr_is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} ready {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(super::human::printable(what));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// So many of so many.
    pub(crate) fn at(&self, position: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(position);
    }

    /// Prints something beside the bar.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
