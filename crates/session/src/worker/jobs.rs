//! What a worker has done beside itself: calls to the daemon that take time.

use super::options;
use crate::error::{Error, Result};
use crate::local::Shared;
use crate::session::Session;
use crate::store::{AgentState, TranscriptFile};
use hostel_agent::{AgentDriver, claude};
use hostel_client::domain::process::ProcessSpec;
use hostel_client::domain::{ProcessId, SandboxId, SandboxState};
use hostel_client::model::{Sandbox, StartKind, UsageGroup, WriteFile};
use hostel_client::{
    Acknowledge, Attach, Client, CreateSandbox, ExecSession, ListSandboxes, ReconnectPolicy, StartProcess,
    Stdin, UpdateSandbox, UsageQuery,
};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The process that waits in a warm sandbox.
const WARM: &str = "warm";
/// How long a daemon that does not answer is asked again before a start fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long counting what was used may take; the agent's estimate stands in after that.
const COUNTING: Duration = Duration::from_secs(5);
/// The most files of a conversation that are brought back: its own, and those of subagents.
const MAX_TRANSCRIPTS: usize = 1000;
/// Why the daemon refuses what a sandbox cannot do now: it is paused, or ends.
const STATE: &str = "SANDBOX_STATE";
/// Why the daemon refuses a request that comes again and is another one.
const REUSED: &str = "REQUEST_ID_REUSED";
/// SIGINT, signal(7).
const INTERRUPT: i32 = 2;
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
    /// What was spent, where it is known.
    Settled(Option<u64>),
    /// The sandbox is gone.
    Closed(Result<()>),
    /// Whether the daemon knows the session's bounds.
    Bounded(Result<()>),
    /// Something that nobody waits for.
    Done,
}

/// An agent that was started.
pub(super) struct Started {
    pub(super) driver: Box<dyn AgentDriver>,
    pub(super) session: ExecSession,
    pub(super) process: ProcessId,
    /// The session as it was when this began.
    pub(super) with: Box<Session>,
}

/// What happens on the way.
pub(super) enum Progress {
    /// This is being done.
    Doing(&'static str),
    /// There is a sandbox now; whether it was warm.
    Sandbox(SandboxId, StartKind),
    /// The workspace is not the one that the conversation knows.
    FreshWorkspace,
}

/// What a start needs to know.
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Session,
    pub(super) agent: AgentState,
    pub(super) epoch: u64,
    pub(super) progress: mpsc::Sender<(u64, Progress)>,
    pub(super) cancel: CancellationToken,
}

impl Start {
    pub(super) async fn run(self) -> Job {
        Job::Started(self.epoch, self.start().await)
    }

    /// A call that makes something is never given up in the middle: what it makes is to be known, so that it can be
    /// taken away.
    async fn start(&self) -> Result<Started> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (error, what) = match self.try_start().await {
                Err(Error::Daemon(error)) if error.is_connection() => {
                    (Error::Daemon(error), "Waiting for the daemon")
                }
                // A store that is away is waited for by everybody.
                Err(error @ Error::Store { .. }) if !self.cancel.is_cancelled() => {
                    self.shared.store_failed(&error);
                    tokio::time::sleep(super::effects::PAUSE).await;
                    continue;
                }
                done => return done,
            };
            if tokio::time::Instant::now() >= deadline || self.cancel.is_cancelled() {
                return Err(error);
            }
            self.tell(Progress::Doing(what)).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn try_start(&self) -> Result<Started> {
        let client = self.shared.client().await?;
        let store = &self.shared.store;
        let resume = !self.session.session_id.is_empty() && store.has_transcripts(&self.session.id).await?;
        let (sandbox, warm) = match self.living_sandbox(&client).await? {
            Some(sandbox) => {
                self.clear(&client, &sandbox).await?;
                (sandbox, false)
            }
            None => {
                self.tell(Progress::Doing("Creating execution environment")).await;
                let create =
                    options::sandbox(&self.shared.config, store.name(), &self.session, self.agent.attempt)?;
                let created = self.make_sandbox(&client, create).await?;
                // Before it counts as there: who finds it later may rely on it.
                if resume {
                    let transcripts = store.transcripts(&self.session.id).await?;
                    self.bring_back(&client, &created.id, &transcripts).await?;
                }
                self.tell(Progress::Sandbox(created.id.clone(), created.start_kind)).await;
                (created.id, created.start_kind == StartKind::Warm)
            }
        };
        if self.cancel.is_cancelled() {
            return Err(Error::Stopping);
        }
        self.tell(Progress::Doing("Starting the agent")).await;
        if warm
            && !resume
            && let Some(started) = self.claim_spare(&client, &sandbox).await?
        {
            return Ok(started);
        }
        let config = &self.session.config;
        let launch = options::launch(&self.session, self.shared.config.gateway, resume, self.agent.attempt);
        let (launch, driver) = config.agent.launch(&launch)?;
        let process = self.process()?;
        let start = StartProcess {
            sandbox: sandbox.clone(),
            request_id: Some(process.to_string()),
            spec: ProcessSpec {
                id: Some(process.clone()),
                argv: launch.argv,
                env: launch.env,
                cwd: launch.cwd.or_else(|| Some(options::workspace(config).to_owned())),
                stdin: true,
                ..ProcessSpec::default()
            },
        };
        if let Err(error) = client.start_process(start).await {
            return Err(if error.reason() == REUSED { Error::Again } else { error.into() });
        }
        let session = attach(&client, &sandbox, &process, (0, 0)).await?;
        Ok(Started { driver, session, process, with: Box::new(self.session.clone()) })
    }

    /// Makes a sandbox. Warm agents that are not there yet are no reason to have none.
    async fn make_sandbox(&self, client: &Client, mut create: CreateSandbox) -> Result<Sandbox> {
        let again = |id: Option<String>, how: &str| id.map(|id| format!("{id}-{how}"));
        let error = match client.create_sandbox(create.clone()).await {
            Ok(created) => return Ok(created.sandbox),
            Err(error) => error,
        };
        if error.is_not_found() && create.pool.as_deref() == Some(options::WARM_POOL) {
            create.pool = None;
            // Another request: the first may be found again by then.
            create.request_id = again(create.request_id, "cold");
        } else if error.reason() == REUSED {
            // Whoever began this attempt wanted another sandbox: something was changed since. What it made goes.
            remove_all(client, self.shared.store.name(), &self.session.id).await?;
            create.request_id = again(create.request_id, &crate::id::new_id());
        } else {
            return Err(error.into());
        }
        Ok(client.create_sandbox(create).await?.sandbox)
    }

    /// What the agent's process is called: the same whenever this attempt is made.
    fn process(&self) -> Result<ProcessId> {
        ProcessId::parse(format!("agent-{}", self.agent.attempt)).map_err(daemon)
    }

    /// The sandbox that there was, where it still is.
    async fn living_sandbox(&self, client: &Client) -> Result<Option<SandboxId>> {
        let Some(id) = &self.agent.sandbox_id else { return Ok(None) };
        let id = SandboxId::parse(id.as_str()).map_err(daemon)?;
        match client.get_sandbox(&id).await {
            Ok(sandbox) if sandbox.state == SandboxState::Ready => Ok(Some(id)),
            Ok(sandbox) if sandbox.state == SandboxState::Paused => {
                client.resume_sandbox(&id).await?;
                Ok(Some(id))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that nothing of an earlier agent runs in a sandbox that is used again, unless this very agent does:
    /// then it was started before somebody could note that.
    async fn clear(&self, client: &Client, sandbox: &SandboxId) -> Result<()> {
        let own = self.process()?;
        let processes = client.list_processes(sandbox).await?;
        if processes.iter().any(|process| process.running && process.id == own) {
            return Ok(());
        }
        kill_all(client, sandbox).await
    }

    /// Puts the conversation into a sandbox that does not know it.
    async fn bring_back(
        &self,
        client: &Client,
        sandbox: &SandboxId,
        transcripts: &[TranscriptFile],
    ) -> Result<()> {
        for file in wanted(transcripts, &self.session.session_id) {
            let write = WriteFile { path: file.path.clone(), permissions: Some(0o600), create_parents: true };
            client.write_file(sandbox, write, file.content.as_bytes()).await?;
        }
        if self.session.num_turns > 0 {
            self.tell(Progress::FreshWorkspace).await;
        }
        Ok(())
    }

    /// The agent that waits in the sandbox, where it is one that fits.
    async fn claim_spare(&self, client: &Client, sandbox: &SandboxId) -> Result<Option<Started>> {
        let mut options = options::launch(&self.session, self.shared.config.gateway, false, 1);
        // What is in its environment was fixed before anybody knew of this session.
        let Some(spare) = claude::spare(&options).filter(|_| self.session.config.env.is_empty()) else {
            return Ok(None);
        };
        let process = ProcessId::parse(WARM).map_err(daemon)?;
        match client.get_process(sandbox, &process).await {
            Ok(waiting) if waiting.running && waiting.command == spare.argv => {}
            Ok(_) => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        options.claimed_spare = true;
        let (_, driver) = self.session.config.agent.launch(&options)?;
        let session = attach(client, sandbox, &process, (0, 0)).await?;
        Ok(Some(Started { driver, session, process, with: Box::new(self.session.clone()) }))
    }

    async fn tell(&self, progress: Progress) {
        // A worker that is gone needs to know nothing.
        let _ = self.progress.send((self.epoch, progress)).await;
    }
}

/// The transcripts to put into a sandbox: those that are where agents keep them, the conversation's own first, and not
/// more than an agent is waited for. Another sandbox said what they are called.
fn wanted<'a>(transcripts: &'a [TranscriptFile], conversation: &str) -> Vec<&'a TranscriptFile> {
    let own = format!("/{conversation}.jsonl");
    let mut wanted: Vec<_> = transcripts.iter().filter(|file| claude::is_transcript(&file.path)).collect();
    wanted.sort_by_key(|file| !file.path.ends_with(&own));
    wanted.truncate(MAX_TRANSCRIPTS);
    wanted
}

/// Attaches to an agent, for as long as it takes for a daemon to come back.
async fn attach(
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

/// Kills every process of the sandbox's user, the agent among them.
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

/// Kills what runs in a sandbox, and returns when it is dead.
async fn kill_all(client: &Client, sandbox: &SandboxId) -> Result<()> {
    // Whoever asks is left out by the kernel, and so is the guest (kill(2)).
    let kill = ProcessSpec {
        argv: ["sh", "-c", "kill -9 -1 2>/dev/null; exit 0"].map(str::to_owned).to_vec(),
        timeout: Some(DYING),
        ..ProcessSpec::default()
    };
    let start = StartProcess { sandbox: sandbox.clone(), request_id: None, spec: kill };
    match client.start_process(start).await {
        Ok(process) => {
            client.wait_process(sandbox, &process.id, Some(DYING)).await?;
        }
        // A sandbox that is full of processes, or has no shell: those that we know of can be killed all the same.
        Err(error) if !error.is_connection() => {
            tracing::warn!(%sandbox, %error, "what an agent started may go on in its sandbox");
        }
        Err(error) => return Err(error.into()),
    }
    for process in client.list_processes(sandbox).await?.into_iter().filter(|process| process.running) {
        match client.signal_process(sandbox, &process.id, 9).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() || error.reason() == "PROCESS_ENDED" => continue,
            Err(error) => return Err(error.into()),
        }
        if client.wait_process(sandbox, &process.id, Some(DYING)).await?.running {
            let what = format!("process {} does not die", process.id);
            return Err(Error::Busy { what, retry_after_seconds: 1 });
        }
    }
    Ok(())
}

/// Asks what the session spent.
pub(super) async fn settle(shared: Arc<Shared>, session: crate::id::SessionId, since: Timestamp) -> Job {
    let query = of_session(&shared, &session, since);
    let spent = tokio::time::timeout(COUNTING, async {
        let client = shared.client().await?;
        Result::Ok(client.get_usage(query).await?)
    });
    match spent.await {
        Ok(Ok(usage)) => Job::Settled(Some(usage.total.cost_micros)),
        Ok(Err(error)) => {
            tracing::warn!(%session, %error, "what a turn cost is not known; the agent's estimate stands in");
            Job::Settled(None)
        }
        Err(_) => {
            tracing::warn!(%session, limit = ?COUNTING, "what a turn cost is not known in time; the agent's estimate stands in");
            Job::Settled(None)
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

/// Takes away every sandbox that was made for a session, until that is done.
pub(super) async fn close(shared: Arc<Shared>, session: crate::id::SessionId) -> Job {
    let closed = async { remove_all(&shared.client().await?, shared.store.name(), &session).await };
    Job::Closed(closed.await)
}

async fn remove_all(client: &Client, store: &str, session: &crate::id::SessionId) -> Result<()> {
    let list = ListSandboxes { label_selector: options::selector(store, session), states: Vec::new() };
    for sandbox in client.list_sandboxes(&list).await?.sandboxes {
        // One that broke by itself is still on record.
        client.delete_sandbox_if_there(&sandbox.id).await?;
    }
    Ok(())
}

fn daemon(error: hostel_client::domain::Error) -> Error {
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
pub(super) async fn tell_bounds(shared: Arc<Shared>, session: Session, pause: Duration) -> Job {
    tokio::time::sleep(pause).await;
    let changed = async {
        let Some(sandbox) = &session.environment.sandbox_id else { return Ok(()) };
        let sandbox = SandboxId::parse(sandbox.as_str()).map_err(daemon)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transcripts_are_brought_back() {
        let file = |path: String| TranscriptFile { path, content: String::new() };
        let mut files: Vec<_> =
            (0..2000).map(|number| file(format!("/s/projects/p/c/subagents/{number}.jsonl"))).collect();
        files.insert(0, file("/home/agent/.profile".to_owned()));
        files.push(file("/s/projects/p/c.jsonl".to_owned()));
        let wanted = wanted(&files, "c");
        assert_eq!((wanted.len(), wanted[0].path.as_str()), (MAX_TRANSCRIPTS, "/s/projects/p/c.jsonl"));
        assert!(wanted.iter().all(|file| file.path.starts_with("/s/projects/")));
    }
}
