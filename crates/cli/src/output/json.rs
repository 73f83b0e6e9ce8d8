//! Frames of a streaming command as JSON, one a line.

pub(crate) use bytes_text::base64;

use bytes_text::Text;
use hostel_client::Event;
use hostel_client::model::{CreatedSandbox, ExitStatus, Process};
use hostel_sandbox::process::OutputStream;
use serde_json::{Value, json};
use std::time::Duration;

mod bytes_text;

/// A sandbox was made for one command; `took` is from asking to the answer.
pub(crate) fn created(created: &CreatedSandbox, took: Duration) -> Value {
    let sandbox = &created.sandbox;
    json!({
        "event": "created", "sandbox_id": sandbox.id, "start_kind": sandbox.start_kind, "pool": sandbox.pool,
        "seconds": took.as_secs_f64(), "stages": created.stages
    })
}

/// The first line: what is attached.
pub(crate) fn opened(process: &Process) -> Value {
    json!({ "event": "opened", "sandbox_id": process.sandbox_id, "process_id": process.id })
}

/// What a process wrote, or what is missing of it. Its end is [`exited`].
pub(crate) fn event(event: &Event) -> Value {
    match event {
        Event::Output { stream, offset, data } => {
            let (key, text) = match Text::of(data) {
                Text::Plain(text) => ("text", text),
                Text::Base64(text) => ("base64", text),
            };
            json!({ "event": "output", "stream": name(*stream), "offset": offset, key: text })
        }
        Event::Gap { stream, missing } => json!({
            "event": "gap", "stream": name(*stream), "from_offset": missing.start, "to_offset": missing.end
        }),
        Event::Exited(status) => json!({ "event": "exited", "exit": status }),
    }
}

/// What a step of a build wrote.
pub(crate) fn step_output(index: u32, stream: OutputStream, data: &[u8]) -> Value {
    let (key, text) = match Text::of(data) {
        Text::Plain(text) => ("text", text),
        Text::Base64(text) => ("base64", text),
    };
    json!({ "event": "output", "step": index, "stream": name(stream), key: text })
}

/// The last line: how it ended.
pub(crate) fn exited(process: &Process, status: &ExitStatus) -> Value {
    json!({ "event": "exited", "sandbox_id": process.sandbox_id, "process_id": process.id, "exit": status })
}

/// The name of a stream.
pub(crate) fn name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}
