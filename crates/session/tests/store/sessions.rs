//! Records of sessions.

use crate::place::Place;
use crate::records::{agent, at, commit, event, events, id, message, outcome, question, seen, session};
use hostel_session::agent::{PermissionMode, SettingSource};
use hostel_session::{
    ActiveTurn, EndReason, Environment, EnvironmentStatus, Error, EventKind, Limits, ListSessions,
    MessageState, NewSession, OnLimit, Pattern, QuestionState, Session, SessionConfig, SessionStatus, Start,
    Store, TranscriptPiece, TurnPhase, Usd, Verdict,
};
use serde_json::json;

/// A session with something in every field.
fn full(name: &str) -> Session {
    Session {
        session_id: "conversation".to_owned(),
        pattern: Pattern::Hybrid,
        status: SessionStatus::Active,
        reason: Some(EndReason::BudgetExceeded),
        reason_message: Some("all spent".to_owned()),
        environment: Environment {
            status: EnvironmentStatus::Ready,
            message: Some("warm".to_owned()),
            sandbox_id: Some("box-1".to_owned()),
            start: Some("warm".to_owned()),
            restarts: 2,
        },
        active_turn: Some(ActiveTurn {
            message_id: "m1".to_owned(),
            started_at: at(3),
            phase: TurnPhase::Running,
            begun: true,
            answered: true,
            end: Some("stopped".to_owned()),
            current_tool: Some("Bash".to_owned()),
        }),
        conversation_id: Some(-42),
        config: SessionConfig {
            model: Some("claude".to_owned()),
            permission_mode: Some(PermissionMode::AcceptEdits),
            setting_sources: Some(vec![SettingSource::Project]),
            max_budget_usd: Some(Usd::from_micros(1)),
            hooks: Some(json!({"b": 1, "a": [null, 1.5e300, "\u{0}"]})),
            ..SessionConfig::default()
        },
        started_at: Some(at(1)),
        last_activity_at: Some("2026-01-02T03:04:05.678901Z".parse().unwrap()),
        completed_at: Some(at(5)),
        terminated_at: Some(at(6)),
        total_cost: Usd::from_micros(123_456_789_012),
        agent_cost: Usd::from_micros(1),
        total_tokens: 10_000_000_000,
        input_tokens: 7,
        output_tokens: 8,
        cached_tokens: 9,
        num_turns: 10,
        tools_used: vec!["Bash".to_owned(), "a \"b\", {c}".to_owned()],
        limits: Limits {
            max_idle_time_ms: Some(1),
            max_lifetime_ms: Some(86_400_000),
            max_budget_usd: Some(Usd::from_micros(500_001)),
            max_turns: Some(50),
            on_limit: OnLimit::Pause,
        },
        tags: vec!["bug-fix".to_owned(), "ünïcode '; --".to_owned()],
        description: Some("Fix it".to_owned()),
        user_id: Some("user_123".to_owned()),
        ..session(name)
    }
}

pub(crate) async fn created_once(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.name().len(), 32);
    assert_eq!(place.open().await.name(), store.name(), "it is the same store");
    let first = Session { last_event: 1, ..full("one") };
    let created = [event(1, EventKind::SessionCreated, &json!({}))];
    let conversation = TranscriptPiece { path: "/home/a.jsonl".to_owned(), lines: "{}\n".to_owned() };
    let new = NewSession {
        events: created.to_vec(),
        transcript: vec![conversation],
        ..NewSession::of(first.clone()).keyed("key", [1; 32])
    };
    assert_eq!(store.create(new).await.unwrap(), None);
    assert_eq!(store.transcripts(&id("one")).await.unwrap()[0].content, "{}\n");
    // The same again makes nothing, whatever id was thought of this time.
    let again = store.create(NewSession::of(session("other")).keyed("key", [1; 32])).await.unwrap();
    assert_eq!(again, Some(first.clone()));
    assert!(matches!(store.get(&id("other")).await, Err(Error::NotFound { .. })));
    let reused = store.create(NewSession::of(session("other")).keyed("key", [2; 32])).await;
    assert!(matches!(reused, Err(Error::KeyReused { key }) if key == "key"));
    // A refused session does not take its key with it.
    let exists = store.create(NewSession::of(session("one")).keyed("free", [3; 32])).await;
    assert!(matches!(exists, Err(Error::Exists { id }) if id.as_str() == "one"));
    assert_eq!(store.create(NewSession::of(session("two")).keyed("free", [4; 32])).await.unwrap(), None);
    // Several at a time make one.
    let new: Vec<_> = (0..8).map(|index| session(&format!("new{index}"))).collect();
    let racing = new.iter().map(|new| store.create(NewSession::of(new.clone()).keyed("race", [5; 32])));
    let made = futures::future::join_all(racing).await;
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(None))).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(Some(_)))).count(), 7, "{made:?}");
    store.close().await;
}

pub(crate) async fn everything_comes_back(place: &Place) {
    let store = place.open().await;
    let first = full("one");
    store.create(NewSession::of(first.clone())).await.unwrap();
    assert_eq!(store.get(&id("one")).await.unwrap(), first);
    let bare = session("bare");
    store.create(NewSession::of(bare.clone())).await.unwrap();
    assert_eq!(store.get(&id("bare")).await.unwrap(), bare);

    let taken = store.take(&id("bare")).await.unwrap();
    let mut everything = commit(&taken, events(1..=3));
    let changed = Session { last_event: 3, created_at: bare.created_at, ..full("bare") };
    everything.session = Some(changed.clone());
    everything.agents = vec![agent("main", 1), agent("helper", 2)];
    let mut done = message("done", MessageState::Done, 1);
    (done.started_at, done.ended_at, done.outcome) = (Some(at(2)), Some(at(3)), Some(outcome()));
    let waiting = [message("b", MessageState::Running, 2), message("a", MessageState::Queued, 3)];
    everything.messages = vec![waiting[1].clone(), done.clone(), waiting[0].clone()];
    let mut answered = question("q1", QuestionState::Answered);
    (answered.verdict, answered.decided_by) = (Some(Verdict::AllowForSession), Some("me".to_owned()));
    everything.questions = vec![answered.clone(), question("q2", QuestionState::Pending)];
    store.commit(everything.clone()).await.unwrap();
    store.close().await;

    let store = place.open().await;
    let again = store.take(&id("bare")).await.unwrap();
    assert_eq!(again.session, changed);
    assert_eq!(again.generation, taken.generation + 1);
    assert_eq!(again.agents, [agent("helper", 2), agent("main", 1)]);
    assert_eq!(again.queue, waiting);
    assert_eq!(again.questions, [question("q2", QuestionState::Pending)]);
    assert_eq!(store.queue(&id("bare")).await.unwrap(), waiting);
    assert_eq!(store.pending_questions(&id("bare")).await.unwrap(), again.questions);
    assert_eq!(seen(&store.events(&id("bare"), 0, 10).await.unwrap()), seen(&everything.events));
    assert_eq!(store.message(&id("bare"), "done").await.unwrap(), done);
    assert_eq!(store.message_by_key(&id("bare"), "key of done").await.unwrap(), Some(done));
    assert_eq!(store.message_by_key(&id("one"), "key of done").await.unwrap(), None);
    assert_eq!(store.question(&id("bare"), "q1").await.unwrap(), answered);
    assert!(matches!(store.message(&id("bare"), "x").await, Err(Error::NoSuch { kind: "message", .. })));
    assert!(matches!(store.question(&id("one"), "q1").await, Err(Error::NoSuch { kind: "question", .. })));
    store.close().await;
}

pub(crate) async fn listed_and_paged(place: &Place) {
    let store = place.open().await;
    for index in 0..7_i64 {
        let mut one = session(&format!("s{index}"));
        one.created_at = at(index / 2);
        one.tags = vec![format!("t{index}"), "even".to_owned()];
        one.tags.truncate(if index % 2 == 0 { 2 } else { 1 });
        one.user_id = (index < 3).then(|| "user'1".to_owned());
        one.pattern = if index == 6 { Pattern::Ephemeral } else { Pattern::Hybrid };
        one.status = if index == 0 { SessionStatus::Completed } else { SessionStatus::Idle };
        store.create(NewSession::of(one.clone())).await.unwrap();
    }
    let all = ListSessions::default();
    assert_eq!(listed(&*store, &all).await, ("s6 s5 s4 s3 s2 s1 s0".to_owned(), 7));
    let page =
        |page, page_size| ListSessions { start: Start::Page(page), page_size, ..ListSessions::default() };
    assert_eq!(listed(&*store, &page(2, 3)).await, ("s3 s2 s1".to_owned(), 7));
    assert_eq!(listed(&*store, &page(4, 3)).await, (String::new(), 7));
    assert_eq!(listed(&*store, &page(u64::MAX, u64::MAX)).await, (String::new(), 7));
    let pattern = ListSessions { pattern: Some(Pattern::Ephemeral), ..all.clone() };
    assert_eq!(listed(&*store, &pattern).await, ("s6".to_owned(), 1));
    let user = ListSessions { user_id: Some("user'1".to_owned()), ..all.clone() };
    assert_eq!(listed(&*store, &user).await, ("s2 s1 s0".to_owned(), 3));
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    let any = ListSessions { tags: tags(&["t3", "t4", "nobody's"]), ..all.clone() };
    assert_eq!(listed(&*store, &any).await, ("s4 s3".to_owned(), 2));
    let both = ListSessions {
        tags: tags(&["even"]),
        status: Some(SessionStatus::Idle),
        pattern: Some(Pattern::Hybrid),
        user_id: Some("user'1".to_owned()),
        ..all.clone()
    };
    assert_eq!(listed(&*store, &both).await, ("s2".to_owned(), 1));
    // A tag is a whole word, and nothing of a language.
    let none = ListSessions { tags: tags(&["eve", "%", "[\"even\"]"]), ..all };
    assert_eq!(listed(&*store, &none).await, (String::new(), 0));
    walked(&*store).await;
    store.close().await;
}

/// Pages that go on behind the last session that was seen show each that stays once, whatever comes and goes meanwhile.
async fn walked(store: &dyn Store) {
    let mut list = ListSessions { page_size: 2, ..ListSessions::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.list(&list).await.unwrap();
        seen.extend(page.sessions.iter().map(|session| session.id.to_string()));
        let Some(next) = page.next else { break };
        // What was the end of the page goes, and a newer one comes.
        store.delete(&next.id).await.unwrap();
        let mut newer = session(&format!("after-{}", next.id));
        newer.created_at = at(1000);
        store.create(NewSession::of(newer)).await.unwrap();
        list.start = Start::After(next);
    }
    assert_eq!(seen.join(" "), "s6 s5 s4 s3 s2 s1 s0");
}

async fn listed(store: &dyn Store, list: &ListSessions) -> (String, u64) {
    let page = store.list(list).await.unwrap();
    let ids: Vec<_> = page.sessions.iter().map(|session| session.id.as_str()).collect();
    (ids.join(" "), page.total)
}

pub(crate) async fn found_by_either_name(place: &Place) {
    let store = place.open().await;
    let talk = |name: &str, conversation: &str, seconds| Session {
        session_id: conversation.to_owned(),
        created_at: at(seconds),
        ..session(name)
    };
    for one in [talk("a", "talk", 1), talk("b", "talk", 2), talk("c", "", 3), talk("d", "a", 4)] {
        store.create(NewSession::of(one.clone())).await.unwrap();
    }
    for (name, expected) in [("c", Some("c")), ("talk", Some("b")), ("a", Some("a")), ("nobody", None)] {
        assert_eq!(store.find(name).await.unwrap(), expected.map(id), "{name}");
    }
    store.close().await;
}

pub(crate) async fn unfinished(place: &Place) {
    let store = place.open().await;
    let end = |name: &str, sandbox: Option<&str>, environment: EnvironmentStatus| {
        let mut one = session(name);
        one.status = SessionStatus::Terminated;
        one.environment.sandbox_id = sandbox.map(str::to_owned);
        one.environment.status = environment;
        one
    };
    let sessions = [
        session("new"),
        Session { status: SessionStatus::Error, ..session("error") },
        end("ended", None, EnvironmentStatus::Terminated),
        end("left", Some("box"), EnvironmentStatus::Ready),
        end("named", Some("box"), EnvironmentStatus::Terminated),
        end("agent", None, EnvironmentStatus::Terminated),
        end("asked", None, EnvironmentStatus::Starting),
    ];
    for session in &sessions {
        store.create(NewSession::of(session.clone())).await.unwrap();
    }
    let taken = store.take(&id("agent")).await.unwrap();
    let mut with_agent = commit(&taken, Vec::new());
    with_agent.agents = vec![agent("main", 1)];
    store.commit(with_agent.clone()).await.unwrap();
    let mut ids: Vec<String> = store.unfinished().await.unwrap().into_iter().map(Into::into).collect();
    ids.sort();
    assert_eq!(ids, ["agent", "asked", "error", "left", "new"]);
    with_agent.agents[0].sandbox_id = None;
    store.commit(with_agent).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap().len(), 4);
    store.close().await;
}

pub(crate) async fn figures(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.statistics().await.unwrap(), hostel_session::Statistics::default());
    let one = |name: &str, pattern, status, micros, tokens| Session {
        pattern,
        status,
        total_cost: Usd::from_micros(micros),
        total_tokens: tokens,
        ..session(name)
    };
    let mut done = one("a", Pattern::Ephemeral, SessionStatus::Completed, 250_001, 10);
    (done.started_at, done.completed_at) = (Some(at(0)), Some(at(3)));
    let mut quick = one("b", Pattern::Ephemeral, SessionStatus::Completed, 100_000, 21);
    (quick.started_at, quick.completed_at) = (Some(at(0)), Some(at(1)));
    let mut ended = one("c", Pattern::Ephemeral, SessionStatus::Terminated, 0, 0);
    (ended.started_at, ended.terminated_at) = (Some(at(0)), Some(at(100)));
    let running = one("d", Pattern::Hybrid, SessionStatus::Active, 1_000_000, u64::MAX);
    for session in [&done, &quick, &ended, &running] {
        store.create(NewSession::of(session.clone())).await.unwrap();
    }
    let figures = store.statistics().await.unwrap();
    assert_eq!((figures.total_sessions, figures.active_sessions, figures.idle_sessions), (4, 1, 0));
    assert_eq!((figures.completed_sessions, figures.terminated_sessions, figures.error_sessions), (2, 1, 0));
    assert_eq!(figures.total_cost, Usd::from_micros(1_350_001));
    assert!((figures.avg_session_duration - 2000.0).abs() < 1e-6);
    assert_eq!(figures.by_pattern.keys().collect::<Vec<_>>(), ["ephemeral", "hybrid"]);
    let ephemeral = &figures.by_pattern["ephemeral"];
    assert_eq!(ephemeral.count, 3);
    assert!((ephemeral.avg_cost - 0.350_001 / 3.0).abs() < 1e-9);
    assert!((ephemeral.avg_tokens - 31.0 / 3.0).abs() < 1e-9);
    assert!((ephemeral.avg_duration - 2000.0).abs() < 1e-6);
    assert!(figures.by_pattern["hybrid"].avg_duration.abs() < 1e-9);
    store.close().await;
}

pub(crate) async fn deleted_with_everything(place: &Place) {
    let store = place.open().await;
    let one = session("one");
    store.create(NewSession::of(one.clone()).keyed("key", [1; 32])).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    let mut everything = commit(&taken, events(1..=2));
    everything.agents = vec![agent("main", 1)];
    everything.messages = vec![message("m", MessageState::Queued, 1)];
    everything.questions = vec![question("q", QuestionState::Pending)];
    everything.transcript =
        vec![hostel_session::TranscriptPiece { path: "/a".to_owned(), lines: "{}\n".to_owned() }];
    store.commit(everything).await.unwrap();
    assert!(store.delete(&id("one")).await.unwrap());
    assert!(!store.delete(&id("one")).await.unwrap());
    assert!(store.events(&id("one"), 0, 10).await.unwrap().is_empty());
    assert!(store.transcripts(&id("one")).await.unwrap().is_empty());
    let late = store.commit(commit(&taken, events(3..=3))).await;
    assert!(matches!(late, Err(Error::NotFound { .. })), "{late:?}");
    // Nothing of it comes back with another of the same name, and its key is free.
    assert_eq!(store.create(NewSession::of(one.clone()).keyed("key", [2; 32])).await.unwrap(), None);
    let again = store.take(&id("one")).await.unwrap();
    assert!(again.agents.is_empty() && again.queue.is_empty() && again.questions.is_empty());
    store.close().await;
}
