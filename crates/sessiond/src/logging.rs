//! Logs: for people or as JSON, on standard error. What is logged is chosen with `HOSTEL_LOG`, as in
//! `HOSTEL_LOG=hostel_sessiond=debug`. What is said in sessions is never logged.

use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the whole process. Does nothing the second time.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("HOSTEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
}
