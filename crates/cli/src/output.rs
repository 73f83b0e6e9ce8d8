//! What is printed: data to stdout, as text or JSON; everything else to stderr.

pub(crate) mod bar;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod table;

use crate::failure::Failure;
use serde::Serialize;
use serde_json::json;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prints a line, or several, of data.
///
/// # Errors
/// [`Failure::NobodyReads`] and other failures of stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
}

/// Prints a value as JSON on one line.
///
/// # Errors
/// As for [`line`].
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::other("JSON", format!("cannot write JSON: {error}")))?;
    line(&text)
}

/// Whether notes are JSON, too.
static JSON: AtomicBool = AtomicBool::new(false);

/// Has notes printed as `{"note":{"message":…}}`, so that all of stderr is JSON.
pub(crate) fn notes_in_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Says something to whoever looks on, on stderr.
pub(crate) fn note(text: &str) {
    // Whoever does not listen to us does not want to know.
    let _ = if JSON.load(Ordering::Relaxed) {
        writeln!(std::io::stderr(), "{}", json!({ "note": { "message": text } }))
    } else {
        // A raw terminal does not go back to the first column by itself.
        let end = if crate::terminal::is_raw() { "\r\n" } else { "\n" };
        write!(std::io::stderr(), "hostel: {}{end}", human::printable(text))
    };
}

/// Says why a command failed.
pub(crate) fn failure(failure: &Failure, json: bool) {
    if matches!(failure, Failure::NobodyReads | Failure::Signal(_)) {
        return;
    }
    if json {
        let _ = writeln!(std::io::stderr(), "{}", failure.to_json());
        return;
    }
    note(&failure.message());
    if let Some(hint) = failure.hint() {
        let _ = writeln!(std::io::stderr(), "  {hint}");
    }
}
