//! Limits of sessions, and what time does to them.

use super::stage::{PATIENCE, Stage, open};
use hostel_session::{
    Delivery, EndReason, Event, EventKind, HostConfig, LocalSessionHost, Pattern, SendMessage, Session,
    SessionHost as _, SessionId, SessionStatus, agent::Content,
};
use hostel_testkit::Script;
use hostel_tests::TestDaemon;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Sessions whose agent is a plain command.
struct Plain {
    host: Arc<LocalSessionHost>,
    daemon: TestDaemon,
    _place: tempfile::TempDir,
}

impl Plain {
    async fn start(config: HostConfig) -> Self {
        let (daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
        let config = HostConfig { gateway: false, template: "host".to_owned(), ..config };
        let host = open(&daemon, &place, config).await;
        Self { host, daemon, _place: place }
    }

    /// Begins a session whose agent does that with its message.
    async fn begin(&self, command: &str, mut create: Value) -> SessionId {
        create["config"] = json!({ "agent": "exec", "executable": "sh", "executableArgs": ["-c", command] });
        let id = self.host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
        let content = vec![Content::Text { text: "begin".to_owned() }];
        self.host.send(&id, SendMessage { content, idempotency_key: None }).await.unwrap();
        id
    }

    /// Waits for an event; its data.
    async fn event(&self, id: &SessionId, is: impl Fn(&Event, &Value) -> bool) -> Value {
        let found = async {
            let mut told = self.host.subscribe(id, 0).await.unwrap();
            loop {
                let Delivery::Event(event) = told.next().await.unwrap().expect("more events") else {
                    continue;
                };
                let data: Value = serde_json::from_str(event.data.get()).unwrap();
                if is(&event, &data) {
                    return data;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the event")
    }

    /// Waits for the end of a session; the outcome of its turn, and the record.
    async fn end(&self, id: &SessionId) -> (Value, Session) {
        let turn = self.event(id, |event, _| event.kind == EventKind::TurnCompleted).await;
        self.event(id, |event, _| event.kind == EventKind::SessionEnded).await;
        (turn["outcome"].clone(), self.host.get(id).await.unwrap())
    }

    fn sandboxes(&self) -> String {
        self.daemon.hostel(&["sandbox", "list", "-q"]).stdout
    }
}

const READS: &str = "read -r line; echo heard";

#[tokio::test(flavor = "multi_thread")]
async fn time_ends_a_session_that_rests_and_one_that_goes_on_too_long() {
    let plain =
        Plain::start(HostConfig { stop_grace: Duration::from_millis(100), ..HostConfig::default() }).await;
    let id = plain.begin(READS, json!({ "pattern": "long-running", "maxIdleTimeMs": 1500 })).await;
    let (outcome, session) = plain.end(&id).await;
    assert_eq!(outcome["isError"], false, "its turn had all the time it wanted: {outcome}");
    assert_eq!((session.status, session.reason), (SessionStatus::Terminated, Some(EndReason::IdleTimeout)));
    assert_eq!(plain.sandboxes(), "");

    // It does not end by itself, and not when it is asked to.
    let endless = "trap '' INT; read -r line; while :; do sleep 600; done";
    let id = plain.begin(endless, json!({ "pattern": "long-running", "maxLifetimeMs": 1500 })).await;
    let (outcome, session) = plain.end(&id).await;
    assert_eq!((&outcome["isError"], &outcome["result"]), (&json!(true), &json!("max_lifetime")));
    assert_eq!((session.status, session.reason), (SessionStatus::Terminated, Some(EndReason::MaxLifetime)));
    assert_eq!(plain.sandboxes(), "");
    plain.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_of_a_task_that_is_done_goes_and_its_record_stays() {
    let retention = Duration::from_millis(300);
    let plain = Plain::start(HostConfig { ephemeral_retention: retention, ..HostConfig::default() }).await;
    let id = plain.begin(READS, json!({ "pattern": "ephemeral" })).await;
    plain.event(&id, |event, _| event.kind == EventKind::SessionEnded).await;
    let gone = |event: &Event, data: &Value| {
        event.kind == EventKind::EnvironmentChanged && data["environment"]["status"] == "terminated"
    };
    plain.event(&id, gone).await;
    assert_eq!(plain.sandboxes(), "");
    let session = plain.host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Completed, Some(EndReason::Completed)));
    assert!(session.completed_at.is_some() && session.terminated_at.is_none());
    plain.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_counted_and_a_task_may_use_up_what_it_has() {
    let Some(stage) = Stage::start().await else { return };
    let config = json!({ "permissionMode": "bypassPermissions", "maxTurns": 1 });
    let id = stage.create(Pattern::Ephemeral, config).await.id;
    let message = stage.send(&id, Script::new().text("one call")).await;
    assert_eq!(stage.turn(&id, &message).await.0["result"], "success");
    stage.events_until(&id, 0, |event| event.kind == EventKind::SessionEnded).await;
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Completed, Some(EndReason::Completed)));
    assert!(session.environment.sandbox_id.is_some(), "what it made can still be fetched");

    let create = json!({
        "pattern": "ephemeral", "config": { "permissionMode": "bypassPermissions" }, "maxTurns": 2
    });
    let id = stage.host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
    let call = |name: &str| json!({ "command": format!("touch {name}"), "description": "touch" });
    let script = Script::new()
        .tool("Bash", call("one"))
        .tool("Bash", call("two"))
        .tool("Bash", call("three"))
        .text("done");
    let message = stage.send(&id, script).await;
    assert_eq!(stage.turn(&id, &message).await.0["result"], "max_turns");
    stage.events_until(&id, 0, |event| event.kind == EventKind::SessionEnded).await;
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Terminated, Some(EndReason::MaxTurns)));
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fills_a_sandbox_again_and_again_can_be_stopped() {
    let plain = Plain::start(HostConfig::default()).await;
    let fill = r#"$| = 1; while (1) { my $child = fork();
        if (!defined $child) { print "full ", 6 * 7, "\n" unless $told++; next }
        if (!$child) { setpgrp(0, 0); close(STDOUT); sleep(4711); exit } }"#;
    let fill = format!("read -r line; exec perl -e '{fill}'");
    let id = plain.begin(&fill, json!({ "pattern": "long-running" })).await;
    plain.event(&id, |event, _| event.data.get().contains("full 42")).await;
    // Nothing is left that could fill it again, and no turn goes on.
    let session = plain.host.stop(&id, Duration::from_millis(100)).await.unwrap();
    assert_eq!((session.status, session.active_turn), (SessionStatus::Idle, None));
    let (client, sandbox) = plain.host.environment(&id).await.unwrap();
    assert!(client.list_processes(&sandbox).await.unwrap().iter().all(|process| !process.running));
    plain.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    assert_eq!(plain.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "");
    plain.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_answers_is_denied() {
    let Some(mut stage) = Stage::start().await else { return };
    let question_timeout = Duration::from_millis(500);
    stage.restart_host_with(HostConfig { question_timeout, ..HostConfig::default() }).await;
    let config = json!({ "permissionMode": "default", "askPermissions": true });
    let id = stage.create(Pattern::LongRunning, config).await.id;
    let write = json!({ "file_path": "/workspace/a", "content": "x" });
    let message = stage.send(&id, Script::new().tool("Write", write).text("gave up")).await;
    let (outcome, events) = stage.turn(&id, &message).await;
    assert_eq!((&outcome["result"], &outcome["text"]), (&json!("success"), &json!("gave up")), "{outcome}");
    let resolved = events.iter().find(|event| event.kind == EventKind::PermissionResolved).unwrap();
    let resolved: Value = serde_json::from_str(resolved.data.get()).unwrap();
    assert_eq!((&resolved["verdict"], &resolved["decidedBy"]), (&json!("deny"), &json!("timeout")));
    let (client, sandbox) = stage.host.environment(&id).await.unwrap();
    assert!(client.stat_file(&sandbox, "/workspace/a", true).await.is_err(), "it was not done");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_agent_cannot_be_started_is_no_success() {
    let Some(stage) = Stage::start().await else { return };
    let config = json!({ "executableArgs": ["--no-such-flag"] });
    let id = stage.create(Pattern::Ephemeral, config).await.id;
    let message = stage.send(&id, Script::new().text("never said")).await;
    let (outcome, events) = stage.turn(&id, &message).await;
    assert_eq!(
        (&outcome["isError"], &outcome["result"]),
        (&json!(true), &json!("agent_exited")),
        "{outcome}"
    );
    let after = events.last().unwrap().seq;
    stage.events_until(&id, after, |event| event.kind == EventKind::StatusChanged).await;
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!(
        (session.status, session.reason),
        (SessionStatus::Error, Some(EndReason::Error)),
        "{session:?}"
    );
    assert!(session.reason_message.as_ref().is_some_and(|why| why.contains("no-such-flag")), "{session:?}");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}
