//! How long is waited. Nothing asserts that something is faster.

use crate::failure::Failure;
use std::time::Duration;

/// Seconds that a case may take.
const CASE_SECONDS: u64 = 240;
/// How many seconds it may take instead: on a machine that is emulated everything takes many times as long.
const CASE_SECONDS_VARIABLE: &str = "HOSTEL_CASE_SECONDS";
/// How many of the longest waits fit into a case.
const WAITS: u32 = 8;

/// How long a case may take.
pub(crate) fn of_a_case() -> Result<Duration, Failure> {
    let seconds = match std::env::var(CASE_SECONDS_VARIABLE) {
        Ok(given) => given.parse().map_err(|_| {
            Failure::new(format!("{CASE_SECONDS_VARIABLE}={given:?} is no whole number of seconds"))
        })?,
        Err(_) => CASE_SECONDS,
    };
    Ok(Duration::from_secs(seconds))
}

/// Longest that any single wait of the suite takes: 30 seconds, unless cases may take longer than usual.
#[must_use]
pub fn patience() -> Duration {
    // A wrong number is told when the first case begins.
    of_a_case().unwrap_or(Duration::from_secs(CASE_SECONDS)) / WAITS
}
