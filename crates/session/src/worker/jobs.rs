//! What a worker has done beside itself: calls to the daemon that take time.

use super::options;
use super::tool_results::{Mirrored, Restored};
use crate::error::{Error, Result};
use crate::local::Shared;
use crate::session::Session;
use crate::store::AgentState;
use hostel_agent::AgentDriver;
use hostel_client::domain::{ProcessId, SandboxId, SandboxState};
use hostel_client::model::{StartKind, UsageGroup};
use hostel_client::{
    Acknowledge, Attach, Client, ExecSession, ListSandboxes, ReconnectPolicy, Stdin, UpdateSandbox,
    UsageQuery,
};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// How long counting what was used may take. What is not known by then is counted the next time.
const COUNTING: Duration = Duration::from_secs(5);
/// How soon a daemon that is away is asked again what was used.
const COUNT_AGAIN: Duration = Duration::from_millis(200);
/// Why the daemon refuses what a sandbox cannot do now: it is paused, or ends.
const STATE: &str = "SANDBOX_STATE";
/// SIGINT, signal(7).
const INTERRUPT: i32 = 2;
/// SIGKILL, signal(7).
pub(super) const KILL: i32 = 9;
/// Why the daemon refuses to signal a process: there is none any more.
pub(super) const ENDED: &str = "PROCESS_ENDED";
/// What gRPC says of a call that the daemon does not know.
const UNKNOWN_CALL: &str = "UNIMPLEMENTED";
/// How long the processes of a sandbox may take to die.
const DYING: Duration = Duration::from_secs(10);

/// What came of a job. Each carries the epoch in which it was begun, so that late ones can be told.
pub(super) enum Job {
    /// A sandbox with an agent in it.
    Started(u64, Result<Started>),
    /// The agent is attached to again.
    Attached(u64, Result<ExecSession>),
    /// Nothing runs in the sandbox but what keeps it.
    Swept(u64, Result<()>),
    /// What was spent until the end of that message's turn, where it is known.
    Settled(String, Option<u64>),
    /// What was spent until now, where it is known.
    Counted(Option<u64>),
    /// What the agent keeps beside its transcripts is mirrored.
    Mirrored(u64, Mirrored),
    /// The sandbox is gone; and what was spent until then, where it is known.
    Closed(Result<Option<u64>>),
    /// Whether the daemon knows the session's bounds.
    Bounded(Result<()>),
    /// Something that nobody waits for.
    Done,
}

/// An agent that was started.
pub(super) struct Started {
    pub(super) driver: Box<dyn AgentDriver>,
    pub(super) session: ExecSession,
    pub(super) sandbox: SandboxId,
    pub(super) process: ProcessId,
    /// The agent was there before anybody wanted it.
    pub(super) claimed: bool,
    /// The session as it was when this began.
    pub(super) with: Box<Session>,
}

/// What happens on the way.
pub(super) enum Progress {
    /// This is being done.
    Doing(&'static str),
    /// There is a sandbox now; whether it was warm.
    Sandbox(SandboxId, StartKind),
    /// What the agent kept beside its transcripts is there again.
    ToolResults(Restored),
    /// The workspace is not the one that the conversation knows.
    FreshWorkspace,
}

/// Attaches to an agent, for as long as it takes for a daemon to come back.
pub(super) async fn attach(
    client: &Client,
    sandbox: &SandboxId,
    process: &ProcessId,
    from: (u64, u64),
) -> Result<ExecSession> {
    let attach = Attach {
        from: Some(from),
        stdin: Stdin::TakeOver,
        acknowledge: Acknowledge::Manual,
        reconnect: ReconnectPolicy { total: Duration::from_secs(600), ..ReconnectPolicy::default() },
        ..Attach::new(sandbox.clone(), process.clone())
    };
    Ok(client.attach(attach).await?)
}

/// Attaches to an agent that was started before; a daemon that is not there is waited for.
pub(super) async fn reattach(
    shared: Arc<Shared>,
    agent: AgentState,
    from: (u64, u64),
    number: u64,
    pause: Duration,
) -> Job {
    tokio::time::sleep(pause).await;
    let attached = async {
        let sandbox = SandboxId::parse(agent.sandbox_id.unwrap_or_default()).map_err(daemon)?;
        let process = ProcessId::parse(agent.process_id.unwrap_or_default()).map_err(daemon)?;
        loop {
            let attached = match shared.client().await {
                Ok(client) => attach(&client, &sandbox, &process, from).await,
                Err(error) => Err(error),
            };
            match attached {
                Err(Error::Daemon(error))
                    if error.is_connection() || is_paused(&shared, &sandbox, &error).await =>
                {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                // It is neither running nor paused, and will not run again.
                Err(Error::Daemon(error)) if error.reason() == STATE => {
                    return Err(Error::NoEnvironment { message: error.to_string() });
                }
                done => return done,
            }
        }
    };
    Job::Attached(number, attached.await)
}

/// Whether a sandbox refuses because somebody paused it: whoever did lets it go on.
async fn is_paused(shared: &Shared, sandbox: &SandboxId, error: &hostel_client::Error) -> bool {
    if error.reason() != STATE {
        return false;
    }
    let Ok(client) = shared.client().await else { return false };
    client.get_sandbox(sandbox).await.is_ok_and(|sandbox| sandbox.state == SandboxState::Paused)
}

/// Kills everything in the sandbox, the agent with what it started.
pub(super) async fn sweep(shared: Arc<Shared>, agent: AgentState, epoch: u64) -> Job {
    let swept = async {
        let Some(sandbox) = agent.sandbox_id else { return Ok(()) };
        let sandbox = SandboxId::parse(sandbox).map_err(daemon)?;
        let client = shared.client().await?;
        match kill_all(&client, &sandbox).await {
            // What is paused is not dead, and can only die awake.
            Err(Error::Daemon(error)) if is_paused(&shared, &sandbox, &error).await => {
                client.resume_sandbox(&sandbox).await?;
                kill_all(&client, &sandbox).await
            }
            killed => killed,
        }
    };
    let swept = match swept.await {
        // A sandbox that is gone has nothing running.
        Err(Error::Daemon(error)) if error.is_not_found() || error.reason() == STATE => Ok(()),
        other => other,
    };
    Job::Swept(epoch, swept)
}

/// Kills what runs in a sandbox, and returns when all is dead that was started over the API; the rest is dying.
pub(super) async fn kill_all(client: &Client, sandbox: &SandboxId) -> Result<()> {
    match client.kill_all_processes(sandbox).await {
        Err(error) if error.reason() == UNKNOWN_CALL => {
            tracing::warn!(%sandbox, "hosteld is older than this and cannot kill what is not listed; update it");
        }
        killed => killed?,
    }
    for process in client.list_processes(sandbox).await?.into_iter().filter(|process| process.running) {
        // Somebody may have started it since.
        match client.signal_process(sandbox, &process.id, KILL).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() || error.reason() == ENDED => continue,
            Err(error) => return Err(error.into()),
        }
        if client.wait_process(sandbox, &process.id, Some(DYING)).await?.running {
            let what = format!("process {} does not die", process.id);
            return Err(Error::Busy { what, retry_after_seconds: 1 });
        }
    }
    Ok(())
}

/// Asks what the session spent; a daemon that is away for a moment is asked again.
pub(super) async fn spent(shared: &Shared, session: &crate::id::SessionId, since: Timestamp) -> Option<u64> {
    let spent = tokio::time::timeout(COUNTING, async {
        loop {
            let counted = async {
                let query = of_session(shared, session, since);
                Result::Ok(shared.client().await?.get_usage(query).await?)
            };
            match counted.await {
                Err(Error::Daemon(error)) if error.is_connection() => tokio::time::sleep(COUNT_AGAIN).await,
                done => return done,
            }
        }
    });
    match spent.await {
        Ok(Ok(usage)) => Some(usage.total.cost_micros),
        Ok(Err(error)) => {
            tracing::warn!(%session, %error, "what was spent is not known; it is counted the next time");
            None
        }
        Err(_) => {
            tracing::warn!(%session, limit = ?COUNTING, "what was spent is not known in time; it is counted the next time");
            None
        }
    }
}

/// What all sandboxes of a session used, and not those of an earlier one of that name.
fn of_session(shared: &Shared, session: &crate::id::SessionId, since: Timestamp) -> UsageQuery {
    UsageQuery {
        since: Some(since.into()),
        until: None,
        sandbox: None,
        label_selector: options::selector(shared.store.name(), session),
        group_by: UsageGroup::Total,
    }
}

/// Takes away every sandbox that was made for a session, and finds out what was spent by then.
pub(super) async fn close(shared: Arc<Shared>, session: crate::id::SessionId, since: Timestamp) -> Job {
    let closed = async {
        remove_all(&shared.client().await?, shared.store.name(), &session).await?;
        Ok(if shared.config.gateway { spent(&shared, &session, since).await } else { None })
    };
    Job::Closed(closed.await)
}

pub(super) async fn remove_all(client: &Client, store: &str, session: &crate::id::SessionId) -> Result<()> {
    let list = ListSandboxes { label_selector: options::selector(store, session), states: Vec::new() };
    for sandbox in client.list_sandboxes(&list).await?.sandboxes {
        // One that broke by itself is still on record.
        client.delete_sandbox_if_there(&sandbox.id).await?;
    }
    Ok(())
}

pub(super) fn daemon(error: hostel_client::domain::Error) -> Error {
    Error::Daemon(error.into())
}

/// Sends the agent's process what Ctrl-C would.
pub(super) async fn interrupt(shared: Arc<Shared>, agent: AgentState) -> Job {
    let interrupted = async {
        let (Some(sandbox), Some(process)) = (agent.sandbox_id, agent.process_id) else { return Ok(()) };
        let sandbox = SandboxId::parse(sandbox).map_err(daemon)?;
        let process = ProcessId::parse(process).map_err(daemon)?;
        Result::Ok(shared.client().await?.signal_process(&sandbox, &process, INTERRUPT).await?)
    };
    if let Err(error) = interrupted.await {
        tracing::warn!(%error, "an agent could not be interrupted; stopping it works in any case");
    }
    Job::Done
}

/// Tells the daemon that more, or less, may be spent, and that the sandbox may live as long as its session from now.
pub(super) async fn tell_bounds(
    shared: Arc<Shared>,
    session: Session,
    sandbox: Option<String>,
    pause: Duration,
) -> Job {
    tokio::time::sleep(pause).await;
    let changed = async {
        let Some(sandbox) = sandbox else { return Ok(()) };
        let sandbox = SandboxId::parse(sandbox).map_err(daemon)?;
        let client = shared.client().await?;
        let mut update =
            UpdateSandbox { lifetime: Some(options::lifetime(&session.limits)), ..UpdateSandbox::default() };
        if shared.config.gateway {
            let all = of_session(&shared, &session.id, session.created_at);
            let here =
                UsageQuery { sandbox: Some(sandbox.clone()), label_selector: String::new(), ..all.clone() };
            // What earlier sandboxes of the session spent is not this one's to spend again.
            let all = client.get_usage(all).await?.total.cost_micros;
            let elsewhere = all.saturating_sub(client.get_usage(here).await?.total.cost_micros);
            update.model = Some(options::model_access(&shared.config, &session.limits, elsewhere));
        }
        client.update_sandbox(&sandbox, update).await?;
        Result::Ok(())
    };
    Job::Bounded(changed.await)
}
