//! How a session comes by a sandbox with an agent in it.

use super::jobs::{ENDED, Job, KILL, Progress, Started, attach, daemon, kill_all, remove_all};
use super::options;
use super::tool_results::Restore;
use crate::error::{Error, Result};
use crate::local::Shared;
use crate::session::Session;
use crate::store::AgentState;
use hostel_agent::claude;
use hostel_client::domain::process::ProcessSpec;
use hostel_client::domain::{ProcessId, SandboxId, SandboxState};
use hostel_client::model::{Sandbox, StartKind, WriteFile};
use hostel_client::{Client, CreateSandbox, StartProcess};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The process that waits in a warm sandbox.
const WARM: &str = "warm";
/// How long a daemon that does not answer is asked again before a start fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most files of a conversation that are brought back: its own, and those of subagents.
const MAX_TRANSCRIPTS: usize = 1000;
/// Why the daemon refuses a request that comes again and is another one.
const REUSED: &str = "REQUEST_ID_REUSED";

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
        let mut deadline = None;
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
            // Making a sandbox may have taken long before the daemon went away.
            let now = tokio::time::Instant::now();
            if now >= *deadline.get_or_insert(now + PATIENCE) || self.cancel.is_cancelled() {
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
                if resume && let Err(error) = self.bring_back(&client, &created.id).await {
                    self.give_up(&client, &created.id, &error).await;
                    return Err(error);
                }
                self.tell(Progress::Sandbox(created.id.clone(), created.start_kind)).await;
                (created.id, created.start_kind == StartKind::Warm)
            }
        };
        if self.cancel.is_cancelled() {
            return Err(Error::Stopping);
        }
        self.tell(Progress::Doing("Starting the agent")).await;
        if warm {
            let claimed = if resume { None } else { self.claim_spare(&client, &sandbox).await? };
            if let Some(started) = claimed {
                return Ok(started);
            }
            end_spare(&client, &sandbox).await?;
        }
        let config = &self.session.config;
        let mut launch =
            options::launch(&self.session, self.shared.config.gateway, resume, self.agent.attempt);
        launch.granted = claude::granted(&self.agent.driver);
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
        let with = Box::new(self.session.clone());
        Ok(Started { driver, session, sandbox, process, claimed: false, with })
    }

    /// Makes a sandbox. Warm agents that are not there yet are no reason to have none.
    async fn make_sandbox(&self, client: &Client, mut create: CreateSandbox) -> Result<Sandbox> {
        let again = |id: Option<String>, how: &str| id.map(|id| format!("{id}-{how}"));
        let error = match self.create(client, create.clone()).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(error) => error,
        };
        if self.cancel.is_cancelled() {
            return Err(error.into());
        }
        let of_spares = |pool: &str| options::Spares::ALL.iter().any(|spares| spares.pool() == pool);
        if error.is_not_found() && create.pool.as_deref().is_some_and(of_spares) {
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
        Ok(self.create(client, create).await?)
    }

    /// Takes away a sandbox that nobody will know of: another attempt makes another. The same attempt, which goes on
    /// when what is away is back, finds it again.
    async fn give_up(&self, client: &Client, sandbox: &SandboxId, error: &Error) {
        if !is_away(error)
            && let Err(error) = client.delete_sandbox_if_there(sandbox).await
        {
            tracing::warn!(session = %self.session.id, %sandbox, %error, "a sandbox is left until its session ends");
        }
    }

    /// Has the daemon make a sandbox, and waits for its answer in any case: what it makes is to be known. One that
    /// nobody wants any more is taken away while it is being made, and need not come to be.
    async fn create(&self, client: &Client, create: CreateSandbox) -> hostel_client::Result<Sandbox> {
        let creating = client.create_sandbox(create);
        tokio::pin!(creating);
        tokio::select! {
            created = &mut creating => return created.map(|created| created.sandbox),
            () = self.cancel.cancelled() => {}
        }
        loop {
            let removed = async {
                if let Err(error) = remove_all(client, self.shared.store.name(), &self.session.id).await {
                    tracing::debug!(session = %self.session.id, %error, "a sandbox that is being made cannot be removed yet");
                }
                tokio::time::sleep(super::effects::PAUSE).await;
            };
            tokio::select! {
                created = &mut creating => return created.map(|created| created.sandbox),
                () = removed => {}
            }
        }
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

    /// Puts the conversation into a sandbox that does not know it, a file at a time, and the tool results that it names.
    /// Without its own file it could not go on; what is missing of its subagents is missed by nobody but them.
    async fn bring_back(&self, client: &Client, sandbox: &SandboxId) -> Result<()> {
        let paths = self.shared.store.transcript_paths(&self.session.id).await?;
        for path in wanted(&paths, &self.session.session_id) {
            match self.bring_file_back(client, sandbox, path).await {
                Ok(()) => {}
                Err(error) if is_away(&error) || is_own(path, &self.session.session_id) => return Err(error),
                Err(error) => {
                    tracing::warn!(session = %self.session.id, path, %error, "a part of a conversation is not brought back");
                }
            }
        }
        let restore = Restore {
            shared: &self.shared,
            session: &self.session.id,
            transcripts: &paths,
            client,
            sandbox,
            cancel: &self.cancel,
        };
        self.tell(Progress::ToolResults(restore.run().await?)).await;
        if self.session.num_turns > 0 {
            self.tell(Progress::FreshWorkspace).await;
        }
        Ok(())
    }

    async fn bring_file_back(&self, client: &Client, sandbox: &SandboxId, path: &str) -> Result<()> {
        let content = self.shared.store.transcript(&self.session.id, path).await?;
        let write = WriteFile { path: path.to_owned(), permissions: Some(0o600), create_parents: true };
        client.write_file(sandbox, write, content.as_bytes()).await?;
        Ok(())
    }

    /// The agent that waits in the sandbox, where it is one that fits.
    async fn claim_spare(&self, client: &Client, sandbox: &SandboxId) -> Result<Option<Started>> {
        let mut options = options::launch(&self.session, self.shared.config.gateway, false, 1);
        let Some(spare) = claude::spare(&options) else { return Ok(None) };
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
        let (sandbox, with) = (sandbox.clone(), Box::new(self.session.clone()));
        Ok(Some(Started { driver, session, sandbox, process, claimed: true, with }))
    }

    async fn tell(&self, progress: Progress) {
        // A worker that is gone needs to know nothing.
        let _ = self.progress.send((self.epoch, progress)).await;
    }
}

/// The transcripts to put into a sandbox: those that are where agents keep them, the conversation's own first, and not
/// more than an agent is waited for. Another sandbox said what they are called.
fn wanted<'a>(paths: &'a [String], conversation: &str) -> Vec<&'a str> {
    let transcripts = paths.iter().map(String::as_str).filter(|path| claude::is_transcript(path));
    let mut wanted: Vec<_> = transcripts.collect();
    wanted.sort_by_key(|path| !is_own(path, conversation));
    wanted.truncate(MAX_TRANSCRIPTS);
    wanted
}

/// Whether a transcript is that of the conversation itself.
pub(super) fn is_own(path: &str, conversation: &str) -> bool {
    path.rsplit('/').next().and_then(|name| name.strip_suffix(".jsonl")) == Some(conversation)
}

/// Whether the daemon or the store is away: then the same may go well a moment later.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Daemon(error) => error.is_connection(),
        Error::Store { .. } => true,
        _ => false,
    }
}

/// Ends the agent that waits in a warm sandbox for a claim that will not come.
async fn end_spare(client: &Client, sandbox: &SandboxId) -> Result<()> {
    let process = ProcessId::parse(WARM).map_err(daemon)?;
    let gone = |error: &hostel_client::Error| error.is_not_found() || error.reason() == ENDED;
    let waiting = match client.get_process(sandbox, &process).await {
        Ok(known) => known.running && claude::is_spare(&known.command),
        Err(error) if gone(&error) => false,
        Err(error) => return Err(error.into()),
    };
    if !waiting {
        return Ok(());
    }
    match client.signal_process(sandbox, &process, KILL).await {
        Err(error) if !gone(&error) => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transcripts_are_brought_back() {
        let mut files: Vec<_> =
            (0..2000).map(|number| format!("/s/projects/p/c/subagents/{number}.jsonl")).collect();
        files.insert(0, "/home/agent/.profile".to_owned());
        files.push("/s/projects/p/not-c.jsonl".to_owned());
        files.push("/s/projects/p/c.jsonl".to_owned());
        let wanted = wanted(&files, "c");
        assert_eq!((wanted.len(), wanted[0]), (MAX_TRANSCRIPTS, "/s/projects/p/c.jsonl"));
        assert!(wanted.iter().all(|path| path.starts_with("/s/projects/")));
    }
}
