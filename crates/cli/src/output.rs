//! What is printed: data to stdout, as text or JSON; everything else to stderr.

pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod table;

use crate::failure::Failure;
use serde::Serialize;
use std::io::Write as _;

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

/// Says something to the person who looks on.
pub(crate) fn note(text: &str) {
    // Whoever does not listen to us does not want to know.
    let _ = writeln!(std::io::stderr(), "hostel: {}", human::printable(text));
}

/// Says why a command failed.
pub(crate) fn failure(failure: &Failure, json: bool) {
    if matches!(failure, Failure::NobodyReads) {
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
