//! Agents that die.

use super::*;
use crate::question::{QuestionAnswer, Verdict};
use hostel_agent::{AgentKind, LaunchOptions};
use hostel_client::domain::process::{ExitReason, OutputStream};
use hostel_client::model::ExitStatus;

impl Scene {
    /// Sends a message that an agent of the real kind begins with, by what it writes.
    fn begin_for_real(&mut self) {
        let options = LaunchOptions { workspace: "/workspace".to_owned(), ..LaunchOptions::default() };
        let (_, driver) = AgentKind::Claude.launch(&options).unwrap();
        self.send(driver);
        self.hear_line(&json!({ "type": "system", "subtype": "init", "session_id": "c" }));
    }

    fn hear_line(&mut self, line: &Value) {
        let data = format!("{line}\n").into();
        self.hear_from(hostel_client::Event::Output { stream: OutputStream::Stdout, offset: 0, data });
    }

    /// That comes from the agent's process.
    fn hear_from(&mut self, event: hostel_client::Event) {
        self.worker.output(Some(Ok(event)));
    }
}

/// The end of a process: with a code, or by SIGKILL.
fn exited(exit_code: Option<i32>) -> hostel_client::Event {
    hostel_client::Event::Exited(ExitStatus {
        reason: if exit_code.is_some() { ExitReason::Exited } else { ExitReason::Signaled },
        exit_code,
        signal: exit_code.is_none().then_some(9),
        oom_kills: 0,
        cpu_seconds: 0.0,
        max_rss_bytes: 0,
        exit_time: None,
    })
}

#[tokio::test]
async fn an_agent_that_dies_in_the_middle_of_a_turn_gives_no_answer() {
    for code in [None, Some(0), Some(1)] {
        let mut scene = Scene::plain(json!({ "pattern": "ephemeral" })).await;
        scene.begin_for_real();
        scene.hear_from(exited(code));
        assert_eq!(scene.stands().0, SessionStatus::Active, "what it started may be left");
        scene.worker.happened(Input::Swept);
        let outcome = &scene.told(EventKind::TurnCompleted).unwrap()["outcome"];
        assert_eq!((&outcome["isError"], &outcome["result"]), (&json!(true), &json!("agent_exited")));
        assert_eq!(scene.stands(), (SessionStatus::Error, Some(EndReason::Error)), "{code:?}");
        assert!(scene.told(EventKind::SessionEnded).is_none());
    }
}

#[tokio::test]
async fn processes_that_cannot_be_killed_are_told_once_until_they_are() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    scene.begin_for_real();
    scene.hear_from(exited(None));
    let swept = |result| Job::Swept(scene.worker.epoch, result);
    let refused = || Error::Busy { what: "it is full".to_owned(), retry_after_seconds: 1 };
    let jobs = [swept(Err(refused())), swept(Err(refused())), swept(Ok(()))];
    let told = |scene: &Scene| {
        let told = scene.worker.draft.events.iter().filter(|event| event.kind == EventKind::Log);
        told.filter(|event| event.data.get().contains("it is full")).count()
    };
    for job in jobs {
        assert_eq!(scene.stands().0, SessionStatus::Active);
        scene.worker.job_done(job);
        assert_eq!(told(&scene), 1);
    }
    assert_eq!(scene.stands().0, SessionStatus::Idle);
}

#[tokio::test]
async fn agents_that_die_in_turns_are_counted() {
    let restarts = (3, Duration::from_secs(3600));
    let config = HostConfig { gateway: false, restarts, ..HostConfig::default() };
    let mut scene = Scene::of(json!({ "pattern": "long-running" }), config).await;
    for death in 1..=4 {
        scene.begin_for_real();
        scene.hear_from(exited(None));
        scene.worker.happened(Input::Swept);
        let end = scene.told(EventKind::TurnCompleted).unwrap();
        assert_eq!(end["outcome"]["result"], "agent_exited");
        let expected = if death < 4 { SessionStatus::Idle } else { SessionStatus::Error };
        assert_eq!(scene.stands().0, expected, "after {death}");
    }
    assert!(scene.worker.session.reason_message.as_ref().unwrap().contains("4 times within"));
}

#[tokio::test]
async fn a_task_whose_agent_died_with_it_before_anybody_knew_is_not_done() {
    let mut scene = Scene::plain(json!({ "pattern": "ephemeral" })).await;
    let id = scene.begin();
    let repeated = TurnResult {
        subtype: "success".to_owned(),
        terminal_reason: Some("repeated".to_owned()),
        prompts: vec![id],
        ..TurnResult::default()
    };
    scene.hear([Meaning::Result(repeated)]);
    let outcome = &scene.told(EventKind::TurnCompleted).unwrap()["outcome"];
    assert_eq!((&outcome["isError"], &outcome["result"]), (&json!(true), &json!("agent_exited")));
    assert_eq!(scene.stands(), (SessionStatus::Error, Some(EndReason::Error)));
}

#[tokio::test]
async fn what_was_allowed_just_before_an_agent_died_is_known_to_the_next() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running" })).await;
    scene.begin_for_real();
    let request = json!({ "subtype": "can_use_tool", "tool_name": "Bash", "input": { "command": "true" } });
    scene.hear_line(&json!({ "type": "control_request", "request_id": "q", "request": request }));
    let id = scene.worker.questions[0].id.clone();
    let verdict = Verdict::AllowForSession;
    let answer = QuestionAnswer { verdict, message: None, input: None, interrupt: false, decided_by: None };
    scene.worker.decide(&id, answer).unwrap();
    scene.hear_from(exited(None));
    assert_eq!(hostel_agent::claude::granted(&scene.worker.agent.driver).len(), 1);
}
