//! The border between `hostel.v1` and the words of the domain: generated types end here.

mod decision;
mod file;
mod model;
mod network;
mod node;
mod pool;
mod process;
mod sandbox;
mod secret;
mod session;
mod status;
mod template;

pub(crate) use decision::{audit, network_event, network_state};
pub(crate) use file::{compression, file_info};
pub(crate) use model::{bounds_to_wire, budget, period_to_wire, usage};
pub(crate) use node::{doctor_check, node};
pub(crate) use pool::{plan, pool, pool_event, pool_spec};
pub(crate) use process::{
    exit_status, output_stream, process, process_spec, signal_input, stdin_input, stream_to_wire,
    terminal_size,
};
pub(crate) use sandbox::{
    create_request, created, event, fork_outcome, sandbox, state_to_wire, stats, update_request,
};
pub(crate) use secret::known_secret;
pub(crate) use session::{
    Word, content_to_wire, export_part, session, session_delivery, session_error, session_event,
    session_limits_to_wire, session_message, session_question, session_statistics,
};
pub(crate) use status::{error, in_session};
pub(crate) use template::{build_event, template, template_defaults};

use crate::error::{Error, Result};
use jiff::Timestamp;
use std::time::Duration;

/// A part of an answer that must be there.
pub(crate) fn required<T>(part: Option<T>, what: &str) -> Result<T> {
    part.ok_or_else(|| Error::Protocol(format!("an answer without {what}")))
}

/// Text that may be empty, where empty means none.
pub(crate) fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A value of an enum that this client must know to go on.
pub(crate) fn unknown(what: &str, number: i32) -> Error {
    Error::Protocol(format!("{what} {number}, which this version does not know; update the client"))
}

/// A moment; what no calendar knows counts as absent.
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// A span for the wire.
pub(crate) fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A span in seconds.
#[expect(clippy::cast_precision_loss, reason = "seconds for people and JSON; 2^53 of them are enough")]
pub(crate) fn seconds(duration: prost_types::Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) / 1e9
}
