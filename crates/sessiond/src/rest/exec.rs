//! Commands in a session's sandbox, beside the agent.

use super::app::App;
use super::control::bounded;
use super::input::{Id, Json as Body};
use super::problem::{Problem, Result};
use axum::Json;
use axum::extract::State;
use hostel_session::client::domain::process::{ExitReason, OutputStream, ProcessSpec};
use hostel_session::client::model::ExitStatus;
use hostel_session::client::{Event, Exec, ExecSession};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a command may take where nobody says.
const TIMEOUT_MS: u64 = 60_000;
/// How long after its timeout a command is waited for: it gets SIGTERM, and SIGKILL five seconds later.
const AFTER: Duration = Duration::from_secs(15);
/// Bytes of each stream that are answered. The rest is read and dropped, so that the command goes on.
const OUTPUT: usize = 1 << 20;

/// What to run.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExecBody {
    /// A line for `sh -c`, or a program with its arguments.
    command: Command,
    /// Where; the session's working directory where absent.
    #[serde(default)]
    cwd: Option<String>,
    /// Environment over the sandbox's.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// How long it may take, in milliseconds; 60000 where absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 600000)]
    timeout_ms: Option<u64>,
}

/// A line for a shell, or a program with its arguments.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum Command {
    /// For `sh -c`.
    Line(String),
    /// A program with its arguments.
    Words(Vec<String>),
}

/// How a command ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ran {
    /// Its exit code, where it ended itself.
    exit_code: Option<i32>,
    /// The signal that ended it.
    signal: Option<i32>,
    /// `exited`, `signaled`, `out_of_memory`, `timed_out` or `sandbox_gone`.
    reason: &'static str,
    /// What it wrote, at most a mebibyte; what is no UTF-8 is replaced.
    stdout: String,
    /// As `stdout`.
    stderr: String,
    /// Whether it wrote more than is here.
    truncated: bool,
}

/// Run a command in the sandbox, beside the agent
///
/// It ends when the caller goes away, or the server stops.
#[utoipa::path(post, path = "/api/sessions/{id}/exec", tag = "files", request_body = ExecBody, responses(
    (status = 200, description = "How it ended, well or not", body = Ran)
))]
pub(super) async fn exec(
    State(app): State<App>,
    Id(id): Id,
    Body(body): Body<ExecBody>,
) -> Result<Json<Ran>> {
    let argv = match body.command {
        Command::Line(line) => vec!["sh".to_owned(), "-c".to_owned(), line],
        Command::Words(words) => words,
    };
    let timeout = bounded("timeoutMs", Some(body.timeout_ms.unwrap_or(TIMEOUT_MS)))?;
    let cwd = match body.cwd {
        Some(cwd) => cwd,
        None => app.working_directory(&id).await?,
    };
    let spec = ProcessSpec {
        argv,
        env: body.env,
        cwd: Some(cwd),
        timeout: Some(timeout),
        kill_on_disconnect: true,
        ..ProcessSpec::default()
    };
    let (client, sandbox) = app.host.environment(&id).await?;
    let session = client.exec(Exec::new(sandbox, spec)).await?;
    let slow = |_| {
        let detail = "the command did not end in time, and not when it was told to";
        Problem::new(axum::http::StatusCode::GATEWAY_TIMEOUT, "slow", "Timeout", detail)
    };
    tokio::select! {
        () = app.stop.cancelled() => Err(hostel_session::Error::Stopping.into()),
        ran = tokio::time::timeout(timeout + AFTER, collect(session)) => ran.map_err(slow)?.map(Json),
    }
}

async fn collect(mut session: ExecSession) -> Result<Ran> {
    let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
    while let Some(event) = session.output.next().await {
        match event? {
            Event::Output { stream, data, .. } => {
                let kept = if stream == OutputStream::Stdout { &mut stdout } else { &mut stderr };
                let room = OUTPUT.saturating_sub(kept.len()).min(data.len());
                kept.extend_from_slice(&data[..room]);
                truncated |= room < data.len();
            }
            Event::Gap { .. } => truncated = true,
            Event::Exited(exit) => return Ok(ran(&exit, &stdout, &stderr, truncated)),
        }
    }
    Err(hostel_session::client::Error::SessionClosed.into())
}

fn ran(exit: &ExitStatus, stdout: &[u8], stderr: &[u8], truncated: bool) -> Ran {
    let reason = match exit.reason {
        ExitReason::Exited => "exited",
        ExitReason::Signaled => "signaled",
        ExitReason::OutOfMemory => "out_of_memory",
        ExitReason::TimedOut => "timed_out",
        ExitReason::SandboxGone => "sandbox_gone",
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(stdout), text(stderr));
    Ran { exit_code: exit.exit_code, signal: exit.signal, reason, stdout, stderr, truncated }
}
