//! A worker without its task: what it makes of what an agent says, with an agent that does as it is told.

mod deaths;
mod limits;

use super::*;
use crate::blob::{BlobLocation, BlobStore};
use crate::host::{SendMessage, SessionHost as _};
use crate::local::{HostConfig, LocalSessionHost};
use crate::machine::Agent;
use crate::status::{EndReason, SessionStatus};
use crate::store::{StoreUrl, open};
use hostel_agent::{
    AgentEvent, Answer, Block, BlockKind, Content, Decision, Meaning, MessageState, Request, Stream,
    TurnResult,
};
use serde_json::{Value, json};
use std::sync::Mutex;

/// What a driver was asked for.
type Asked = Arc<Mutex<Vec<Request>>>;

/// A driver that only notes what it is asked for.
#[derive(Debug, Default)]
struct Puppet {
    asked: Asked,
    has_tasks: bool,
    works: bool,
}

impl AgentDriver for Puppet {
    fn output(&mut self, _: Stream, _: &[u8]) -> Vec<AgentEvent> {
        Vec::new()
    }

    fn skipped(&mut self, _: Stream, _: std::ops::Range<u64>) -> Vec<AgentEvent> {
        Vec::new()
    }

    fn consumed(&self, _: Stream) -> u64 {
        0
    }

    fn request(&mut self, request: Request) -> hostel_agent::Result<()> {
        self.asked.lock().unwrap().push(request);
        Ok(())
    }

    fn take_input(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn wants_end_of_input(&self) -> bool {
        false
    }

    fn exited(&mut self, _: Option<i32>) -> Vec<AgentEvent> {
        Vec::new()
    }

    fn is_idle(&self) -> bool {
        !self.works
    }

    fn has_tasks(&self) -> bool {
        self.has_tasks
    }

    fn save(&self) -> Value {
        Value::Null
    }
}

/// A session that nothing looks after but its test.
struct Scene {
    worker: Worker,
    asked: Asked,
    _place: tempfile::TempDir,
}

impl Scene {
    async fn of(create: Value, config: HostConfig) -> Self {
        let place = tempfile::tempdir().unwrap();
        let url = StoreUrl::sqlite(place.path().join("sessions.db"));
        let nowhere = format!("unix://{}", place.path().join("none.sock").display());
        let config = HostConfig { daemon: nowhere.parse().unwrap(), ..config };
        let blobs = BlobStore::open(&BlobLocation::Directory(place.path().join("blobs"))).unwrap();
        let store = open(&url).await.unwrap();
        let host = LocalSessionHost::open(store, blobs.clone(), config.clone()).await.unwrap();
        let id = host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
        host.shutdown().await;
        let store = open(&url).await.unwrap();
        let stored = store.take(&id).await.unwrap();
        let view = watch::Sender::new(Arc::new(stored.session.clone()));
        let bus = EventBus::new(stored.session.last_event);
        let (_, mailbox) = mpsc::channel(1);
        let shared = Shared::new(store, blobs, config);
        let worker = Worker::new(shared, bus, view, mailbox, CancellationToken::new(), stored);
        Self { worker, asked: Asked::default(), _place: place }
    }

    /// One that costs as its agent says.
    async fn plain(create: Value) -> Self {
        Self::of(create, HostConfig { gateway: false, ..HostConfig::default() }).await
    }

    /// Sends a message that the agent begins with; its id.
    fn begin(&mut self) -> String {
        let puppet = self.puppet(false);
        let id = self.send(Box::new(puppet));
        self.hear([Meaning::Running, Meaning::Prompt { uuid: id.clone(), state: MessageState::Started }]);
        id
    }

    /// Sends a message; the agent is that one where it is to be started. Its id.
    fn send(&mut self, driver: Box<dyn AgentDriver>) -> String {
        let (reply, _) = tokio::sync::oneshot::channel();
        let content = vec![Content::Text { text: "do it".to_owned() }];
        let before = self.worker.messages.len();
        self.worker.command(Command::Send(SendMessage { content, idempotency_key: None }, reply));
        let id = self.worker.messages[before].id.clone();
        if self.worker.machine.agent() == Agent::Starting {
            self.worker.driver = Some(driver);
            self.worker.happened(Input::Ready);
        }
        id
    }

    fn puppet(&self, has_tasks: bool) -> Puppet {
        Puppet { asked: Arc::clone(&self.asked), has_tasks, works: false }
    }

    /// All of it is committed, and another begins the turn's memory anew.
    async fn take_up(&mut self) {
        let worker = &mut self.worker;
        let commit = Commit {
            session: Some(worker.session.clone()),
            events: worker.draft.events.clone(),
            messages: worker.messages.clone(),
            ..Commit::new(worker.id.clone(), worker.generation)
        };
        worker.shared.store.commit(commit).await.unwrap();
        (worker.draft, worker.deltas, worker.model_calls) = Default::default();
        worker.recall_turn().await;
    }

    /// The agent says that.
    fn hear(&mut self, meanings: impl IntoIterator<Item = Meaning>) {
        self.worker.understand(meanings.into_iter().map(AgentEvent::new).collect());
    }

    /// The last of what is drafted of a kind.
    fn told(&self, kind: EventKind) -> Option<Value> {
        let last = self.worker.draft.events.iter().rfind(|event| event.kind == kind)?;
        Some(serde_json::from_str(last.data.get()).unwrap())
    }

    fn stands(&self) -> (SessionStatus, Option<EndReason>) {
        (self.worker.session.status, self.worker.session.reason)
    }
}

/// The result of a turn in which the model was asked once.
fn result(is_error: bool) -> Meaning {
    let subtype = if is_error { "error_during_execution" } else { "success" }.to_owned();
    Meaning::Result(TurnResult { subtype, is_error, num_turns: 1, cost_usd: 0.5, ..TurnResult::default() })
}

#[tokio::test]
async fn a_task_that_is_done_with_its_last_turn_or_dollar_is_completed() {
    for bound in [json!({ "maxTurns": 1 }), json!({ "maxBudgetUsd": 0.5 })] {
        let mut create = json!({ "pattern": "ephemeral" });
        create.as_object_mut().unwrap().extend(bound.as_object().unwrap().clone());
        let mut scene = Scene::plain(create.clone()).await;
        scene.begin();
        scene.hear([result(false), Meaning::Idle]);
        assert_eq!(scene.stands(), (SessionStatus::Completed, Some(EndReason::Completed)), "{bound}");
        assert!(scene.worker.machine.has_sandbox(), "it stays for the retention");

        let reason =
            if bound.get("maxTurns").is_some() { EndReason::MaxTurns } else { EndReason::BudgetExceeded };
        // One that failed on it did not do its task …
        let mut scene = Scene::plain(create.clone()).await;
        scene.begin();
        scene.hear([result(true), Meaning::Idle]);
        assert_eq!(scene.stands(), (SessionStatus::Stopping, Some(reason)));
        // … and can still do it where that is wanted.
        create["onLimit"] = json!("pause");
        let mut scene = Scene::plain(create).await;
        scene.begin();
        scene.hear([result(true), Meaning::Idle]);
        assert_eq!(scene.stands(), (SessionStatus::Idle, Some(reason)));
    }
}

#[tokio::test]
async fn a_stop_ends_what_was_left_in_the_background_also_when_the_turn_is_over() {
    for has_tasks in [false, true] {
        let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
        scene.begin();
        scene.hear([result(false), Meaning::Idle]);
        assert_eq!(scene.stands().0, SessionStatus::Idle);
        scene.worker.driver = Some(Box::new(scene.puppet(has_tasks)));
        let (reply, _answer) = tokio::sync::oneshot::channel();
        scene.worker.command(Command::Halt(command::Halt::Stop(Duration::ZERO), reply));
        let swept = scene.worker.machine.agent() == Agent::Sweeping;
        assert_eq!(swept, has_tasks, "an agent with nothing to do stays");
    }
}

fn question(id: &str) -> Meaning {
    Meaning::Question(hostel_agent::Question {
        id: id.to_owned(),
        tool: "Bash".to_owned(),
        input: json!({ "command": "true" }),
        description: None,
        tool_use_id: None,
        suggestions: Vec::new(),
    })
}

#[tokio::test]
async fn no_agent_waits_for_an_answer_that_nobody_may_give() {
    // What a turn cost is asked of a daemon, which takes a moment.
    let mut scene = Scene::of(json!({ "pattern": "long-running" }), HostConfig::default()).await;
    let id = scene.begin();
    scene.hear([question("of the turn"), result(false), Meaning::Idle]);
    assert_eq!(scene.told(EventKind::PermissionResolved).unwrap()["decidedBy"], "turn_ended");
    let denied = |request: &Request| matches!(request, Request::Answer(Answer { question, decision: Decision::Deny { .. } }) if question == "of the turn");
    assert!(scene.asked.lock().unwrap().iter().any(denied), "the agent hears of it");
    // Something in the background is done, the agent goes on by itself and asks: that turn has not ended.
    scene.hear([Meaning::Running, question("of what follows")]);
    scene.worker.job_done(jobs::Job::Settled("another".to_owned(), Some(1)));
    assert!(scene.told(EventKind::TurnCompleted).is_none(), "that was counted for another turn");
    scene.worker.job_done(jobs::Job::Settled(id, None));
    assert!(scene.told(EventKind::TurnCompleted).is_some());
    let open: Vec<_> = scene.worker.questions.iter().map(|question| question.id.as_str()).collect();
    assert_eq!(open, ["of what follows"]);
}

#[tokio::test]
async fn an_agent_that_ends_again_and_again_is_given_up_however_slowly_it_does() {
    let restarts = (3, Duration::ZERO);
    let config = HostConfig { gateway: false, restarts, ..HostConfig::default() };
    let mut scene = Scene::of(json!({ "pattern": "long-running" }), config).await;
    scene.begin();
    scene.hear([result(false), Meaning::Idle]);
    let (mut times, mut pauses) = (0, Vec::new());
    while scene.stands().0 == SessionStatus::Idle {
        scene.worker.driver = None;
        scene.worker.happened(Input::Exited { expected: false });
        scene.worker.happened(Input::Swept);
        let pause = scene.worker.start_at.map(|(at, _)| at.duration_since(Instant::now()));
        pauses.extend(pause.map(|pause| pause.as_secs_f32().round()));
        scene.worker.start_now();
        scene.worker.happened(Input::Ready);
        times += 1;
        assert!(times < 100, "it goes on for ever");
    }
    assert_eq!(scene.stands(), (SessionStatus::Error, Some(EndReason::Error)));
    assert!(scene.worker.session.reason_message.as_ref().unwrap().contains("11 times"));
    assert!(pauses.len() == 9 && pauses.is_sorted() && pauses[8] > 20.0, "{pauses:?}");
}

#[tokio::test]
async fn a_prompt_that_a_turn_of_its_own_took_in_is_answered_by_it() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    let id = scene.begin();
    let unasked = |prompts| {
        let text = Some("both done".to_owned());
        let subtype = "success".to_owned();
        Meaning::Result(TurnResult { unasked: true, subtype, text, prompts, ..TurnResult::default() })
    };
    scene.hear([unasked(Vec::new()), Meaning::Idle]);
    assert_eq!(scene.stands().0, SessionStatus::Active, "that was something else");
    scene.hear([Meaning::Running, unasked(vec![id]), Meaning::Idle]);
    assert_eq!(scene.stands().0, SessionStatus::Idle);
    assert_eq!(scene.told(EventKind::TurnCompleted).unwrap()["outcome"]["text"], "both done");
}

#[tokio::test]
async fn a_change_that_the_agent_refuses_is_told() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    scene.begin();
    let (reply, _answer) = tokio::sync::oneshot::channel();
    let update = serde_json::from_value(json!({ "model": "unheard-of" })).unwrap();
    scene.worker.command(Command::Update(update, reply));
    let asked = scene.asked.lock().unwrap().last().cloned();
    let Some(Request::SetModel { id, model }) = asked else { panic!("{asked:?}") };
    assert_eq!(model.as_deref(), Some("unheard-of"));
    scene.hear([Meaning::Answered { id, result: Err("there is no such model".to_owned()) }]);
    let told = scene.told(EventKind::Log).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(told.contains("did not change the model") && told.contains("there is no such model"), "{told}");
}

#[tokio::test]
async fn the_end_is_told_after_the_status_that_it_left() {
    let mut scene = Scene::plain(json!({ "pattern": "ephemeral" })).await;
    scene.begin();
    scene.hear([result(false), Meaning::Idle]);
    let kinds: Vec<_> = scene.worker.draft.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], [EventKind::StatusChanged, EventKind::SessionEnded]);
    assert_eq!(scene.told(EventKind::StatusChanged).unwrap()["status"], "completed");
    assert_eq!(scene.told(EventKind::SessionEnded).unwrap()["reason"], "completed");
}

#[tokio::test]
async fn deltas_of_before_a_restart_are_compacted_too() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    scene.begin();
    let delta = |block: &str| Meaning::BlockDelta {
        block: block.to_owned(),
        index: 0,
        kind: hostel_agent::DeltaKind::Text,
        delta: "x".to_owned(),
    };
    let complete = |block: &str| {
        let kind = BlockKind::AssistantText { text: "xx".to_owned() };
        Meaning::BlockComplete(Block { id: block.to_owned(), kind })
    };
    scene.hear([delta("done"), complete("done"), delta("open"), delta("open")]);
    let last = scene.worker.session.last_event;
    scene.take_up().await;
    scene.hear([complete("done"), complete("open")]);
    let compacted: Vec<_> = scene.worker.draft.compact.iter().map(|run| (run.from, run.to)).collect();
    assert_eq!(compacted, [(last - 1, last)]);
}

#[tokio::test]
async fn what_a_start_told_comes_before_how_it_ended() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    let (reply, _answer) = tokio::sync::oneshot::channel();
    let content = vec![Content::Text { text: "do it".to_owned() }];
    scene.worker.command(Command::Send(SendMessage { content, idempotency_key: None }, reply));
    let epoch = scene.worker.epoch;
    assert!(scene.worker.reports.try_send((epoch, Progress::Doing("Starting the agent"))).is_ok());
    let error = Error::NoEnvironment { message: "there is no room".to_owned() };
    scene.worker.job_done(Job::Started(epoch, Err(error)));
    let message = scene.worker.session.environment.message.clone().unwrap();
    assert!(message.contains("there is no room"), "{message}");
    assert!(scene.worker.progress.try_recv().is_err(), "nothing comes after it");
}

fn transcript() -> Meaning {
    Meaning::Transcript { path: "/s/projects/p/c.jsonl".to_owned(), entries: vec![json!({})] }
}

#[tokio::test]
async fn an_agent_that_writes_on_and_on_is_looked_at_twice_after_a_turn() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    scene.begin();
    scene.worker.agent.sandbox_id = Some("sandbox".to_owned());
    scene.worker.session.session_id = "c".to_owned();
    scene.hear([transcript(), result(false), Meaning::Idle]);
    scene.worker.mirror();
    let mut passes = 0;
    while scene.worker.jobs.len() > passes {
        passes = scene.worker.jobs.len();
        assert!(passes < 10, "it goes on for ever");
        scene.hear([transcript()]);
        let done = tool_results::Mirrored { known: None, grown: 0, problem: None, again: false };
        scene.worker.mirrored(scene.worker.epoch, done);
    }
    assert_eq!(passes, 2);
}
