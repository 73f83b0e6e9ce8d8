//! The journal, and what is committed with it.

use crate::place::Place;
use crate::records::{
    agent, commit, event, events, id, message, numbers, question, raw_event, seen, session,
};
use hostel_session::{
    Compaction, Error, Event, EventKind, MessageState, NewEvent, NewSession, QuestionState, Session,
    TranscriptFile, TranscriptPiece,
};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn numbers_follow_each_other(place: &Place) {
    let store = place.open().await;
    let mut one = session("one");
    let gap = store.create(NewSession { events: events(2..=2), ..NewSession::of(one.clone()) }).await;
    assert!(matches!(gap, Err(Error::Store { .. })), "{gap:?}");
    let untold = store.create(NewSession { events: events(1..=2), ..NewSession::of(one.clone()) }).await;
    assert!(matches!(untold, Err(Error::Store { .. })), "{untold:?}");
    one.last_event = 2;
    store.create(NewSession { events: events(1..=2), ..NewSession::of(one.clone()) }).await.unwrap();
    let taken = store.take(&one.id).await.unwrap();
    // An event is the same before and after it was kept, also by the clock.
    let new = NewEvent { kind: EventKind::Log, message_id: None, data: events(1..=1)[0].data.clone() };
    let now = Arc::new(Event::new(3, jiff::Timestamp::now(), new));
    let mut holed = events(3..=5);
    holed.remove(1);
    let twice = vec![events(3..=3)[0].clone(), events(3..=3)[0].clone()];
    for wrong in [events(4..=4), events(2..=3), events(0..=0), events(1..=2), holed, twice] {
        let mut wrong = commit(&taken, wrong);
        wrong.messages = vec![message("m", MessageState::Queued, 3)];
        let told = store.commit(wrong).await;
        assert!(matches!(&told, Err(Error::Store { .. })), "{told:?}");
    }
    let mut record_behind = commit(&taken, events(3..=3));
    record_behind.session = Some(Session { last_event: 2, ..one.clone() });
    assert!(matches!(store.commit(record_behind).await, Err(Error::Store { .. })));
    let mut record_ahead = commit(&taken, Vec::new());
    record_ahead.session = Some(Session { last_event: 3, ..one.clone() });
    assert!(matches!(store.commit(record_ahead).await, Err(Error::Store { .. })));
    assert_eq!(store.get(&one.id).await.unwrap(), one);
    assert!(store.message(&one.id, "m").await.is_err());
    store.commit(commit(&taken, vec![now.clone()])).await.unwrap();
    assert_eq!(seen(&store.events(&one.id, 2, 1).await.unwrap()), seen(&[now]));
    // The sizes of statements are of no importance.
    let mut last = 3;
    for size in [1, 7, 8, 9, 63, 64, 65, 200] {
        store.commit(commit(&taken, events(last + 1..=last + size))).await.unwrap();
        last += size;
    }
    assert_eq!(store.get(&one.id).await.unwrap().last_event, last);
    assert_eq!(seen(&store.events(&one.id, 3, 10_000).await.unwrap()), seen(&events(4..=last)));
    assert_eq!(numbers(&store.events(&one.id, 100, 3).await.unwrap()), [101, 102, 103]);
    assert!(store.events(&one.id, last, 3).await.unwrap().is_empty());
    assert!(store.events(&one.id, u64::MAX, 3).await.unwrap().is_empty());
    store.close().await;
}

pub(crate) async fn new_owner_fences_old(place: &Place) {
    let store = place.open().await;
    let other = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    let old = store.take(&id("one")).await.unwrap();
    store.commit(commit(&old, events(1..=1))).await.unwrap();
    let new = other.take(&id("one")).await.unwrap();
    assert!(new.generation > old.generation);
    assert_eq!(new.session.last_event, 1);
    for events in [events(2..=2), Vec::new()] {
        let mut fenced = commit(&old, events);
        fenced.agents = vec![agent("main", 9)];
        assert!(matches!(store.commit(fenced).await, Err(Error::Fenced)));
    }
    other.commit(commit(&new, events(2..=2))).await.unwrap();
    let last = store.take(&id("one")).await.unwrap();
    assert_eq!((last.session.last_event, last.agents.len()), (2, 0));
    assert!(matches!(store.take(&id("two")).await, Err(Error::NotFound { .. })));
    store.close().await;
    other.close().await;
}

/// Somebody who does not know whether a commit was kept tries it again.
pub(crate) async fn numbered_commits_are_kept_once(place: &Place) {
    let store = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    let lines = |number: u64| {
        let mut next = commit(&taken, Vec::new());
        next.number = Some(number);
        next.transcript = vec![TranscriptPiece { path: "/t".to_owned(), lines: format!("{number}\n") }];
        next
    };
    for number in [1, 1, 2, 2, 2] {
        store.commit(lines(number)).await.unwrap();
    }
    let mut with_all = lines(3);
    with_all.events = events(1..=2);
    with_all.session = Some(Session { last_event: 2, num_turns: 1, ..taken.session.clone() });
    // Also both at a time.
    let (first, second) = tokio::join!(store.commit(with_all.clone()), store.commit(with_all.clone()));
    first.unwrap();
    second.unwrap();
    for unknown in [2, 5] {
        assert!(matches!(store.commit(lines(unknown)).await, Err(Error::Store { .. })));
    }
    let mut gap = lines(4);
    gap.events = events(4..=4);
    assert!(matches!(store.commit(gap).await, Err(Error::Store { .. })));
    assert_eq!(store.transcripts(&id("one")).await.unwrap()[0].content, "1\n2\n3\n");
    let again = store.take(&id("one")).await.unwrap();
    assert_eq!((again.session.last_event, again.session.num_turns), (2, 1));
    assert!(matches!(store.commit(with_all).await, Err(Error::Fenced)));
    // Another owner counts for itself. What an agent says word by word comes without the record.
    let delta = |seq| event(seq, EventKind::BlockDelta, &json!({"delta": "x"}));
    let mut first = commit(&again, vec![delta(3), delta(4), delta(5)]);
    first.number = Some(1);
    store.commit(first.clone()).await.unwrap();
    store.commit(first).await.unwrap();
    assert_eq!(store.get(&id("one")).await.unwrap(), Session { last_event: 5, ..again.session });
    assert_eq!(numbers(&store.events(&id("one"), 2, 100).await.unwrap()), [3, 4, 5]);
    store.close().await;
}

pub(crate) async fn all_of_a_commit_or_nothing(place: &Place) {
    let store = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    let mut good = commit(&taken, events(1..=1));
    good.messages = vec![message("m1", MessageState::Queued, 1)];
    store.commit(good).await.unwrap();
    // The last part is refused: its idempotency key is another's.
    let mut bad = commit(&taken, events(2..=80));
    bad.session = Some(Session { last_event: 80, num_turns: 5, ..taken.session.clone() });
    bad.agents = vec![agent("main", 1)];
    let mut thief = message("m2", MessageState::Queued, 2);
    thief.idempotency_key = Some("key of m1".to_owned());
    bad.messages = vec![message("m1", MessageState::Cancelled, 1), thief];
    bad.questions = vec![question("q", QuestionState::Pending)];
    // Others that are written at the same time are not touched by that.
    store.create(NewSession::of(session("two"))).await.unwrap();
    let two = store.take(&id("two")).await.unwrap();
    let fine = commit(&two, events(1..=3));
    let (bad, fine) = tokio::join!(store.commit(bad), store.commit(fine));
    assert!(matches!(bad, Err(Error::Store { .. })), "{bad:?}");
    fine.unwrap();
    let after = store.take(&id("one")).await.unwrap();
    assert_eq!(after.session, Session { last_event: 1, ..taken.session });
    assert_eq!(after.queue, [message("m1", MessageState::Queued, 1)]);
    assert!(after.agents.is_empty() && after.questions.is_empty());
    assert_eq!(numbers(&store.events(&id("one"), 0, 100).await.unwrap()), [1]);
    assert_eq!(numbers(&store.events(&id("two"), 0, 100).await.unwrap()), [1, 2, 3]);
    store.close().await;
}

pub(crate) async fn deltas_are_compacted(place: &Place) {
    let store = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    store.create(NewSession::of(session("two"))).await.unwrap();
    let delta = |seq| event(seq, EventKind::BlockDelta, &json!({"delta": "x"}));
    let taken = store.take(&id("one")).await.unwrap();
    let other = store.take(&id("two")).await.unwrap();
    store.commit(commit(&other, vec![delta(1), delta(2)])).await.unwrap();
    let log = |seq| events(seq..=seq)[0].clone();
    store.commit(commit(&taken, vec![log(1), delta(2), log(3), delta(4)])).await.unwrap();
    // Also those that come with it; what is no delta stays, whatever the range says.
    let mut compacting = commit(&taken, vec![delta(5), delta(6), log(7), delta(8)]);
    compacting.compact = vec![Compaction { from: 1, to: 3 }, Compaction { from: 4, to: 6 }];
    store.commit(compacting).await.unwrap();
    assert_eq!(numbers(&store.events(&id("one"), 0, 100).await.unwrap()), [1, 3, 7, 8]);
    assert_eq!(numbers(&store.events(&id("two"), 0, 100).await.unwrap()), [1, 2]);
    let mut rest = commit(&taken, Vec::new());
    rest.compact = vec![Compaction { from: 8, to: 8 }];
    store.commit(rest).await.unwrap();
    assert_eq!(store.get(&id("one")).await.unwrap().last_event, 8);
    // Numbers go on where they were.
    store.commit(commit(&taken, vec![log(9)])).await.unwrap();
    assert_eq!(numbers(&store.events(&id("one"), 3, 100).await.unwrap()), [7, 9]);
    store.close().await;
}

pub(crate) async fn transcripts_in_order(place: &Place) {
    let store = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    let piece = |path: &str, lines: &str| TranscriptPiece { path: path.to_owned(), lines: lines.to_owned() };
    for pieces in [
        vec![piece("/b", "{\"n\":1}\n"), piece("/a", "{}\n{}\n")],
        vec![],
        vec![piece("/b", "{\"n\":2}\n"), piece("/b", "{\"n\":3}\n")],
    ] {
        let mut transcript = commit(&taken, Vec::new());
        transcript.transcript = pieces;
        store.commit(transcript).await.unwrap();
    }
    let file =
        |path: &str, content: &str| TranscriptFile { path: path.to_owned(), content: content.to_owned() };
    let all = [file("/a", "{}\n{}\n"), file("/b", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n")];
    assert_eq!(store.transcripts(&id("one")).await.unwrap(), all);
    assert_eq!(store.transcript_paths(&id("one")).await.unwrap(), ["/a", "/b"]);
    for one in all {
        assert_eq!(store.transcript(&id("one"), &one.path).await.unwrap(), one.content);
    }
    assert_eq!(store.transcript(&id("one"), "/c").await.unwrap(), "");
    assert!(store.transcript_paths(&id("two")).await.unwrap().is_empty());
    store.close().await;
}

/// What agents write must not be able to stop a session.
pub(crate) async fn hostile_text(place: &Place) {
    let store = place.open().await;
    let nasty = "\0 \u{FFFF} '\"; DROP TABLE session_events; --\r\n $1 ?1 \u{1F980}";
    let mut one = session("one");
    one.description = Some(nasty.to_owned());
    one.tags = vec![nasty.to_owned()];
    one.tools_used = vec![nasty.to_owned()];
    one.config.system_prompt = Some(nasty.to_owned());
    store.create(NewSession::of(one.clone()).keyed(nasty, [1; 32])).await.unwrap();
    let taken = store.take(&one.id).await.unwrap();
    let written = r#"{ "z":1, "a":"\u0000\ud800", "a": 1e999, "n": 12345678901234567890 }"#;
    let text = raw_event(1, EventKind::AgentMessage, Some(nasty), written);
    let mut nasty_commit = commit(&taken, vec![text]);
    let mut asked = question(nasty, QuestionState::Pending);
    asked.input = json!({ "command": nasty });
    nasty_commit.questions = vec![asked];
    let mut driver = agent(nasty, 1);
    driver.driver = json!({ nasty: [nasty] });
    nasty_commit.agents = vec![driver.clone()];
    let path = nasty.to_owned();
    nasty_commit.transcript = vec![TranscriptPiece { path: path.clone(), lines: path }];
    store.commit(nasty_commit).await.unwrap();
    // JSON comes back as it was written, to the byte; in other text U+0000 is replaced.
    let kept = store.events(&one.id, 0, 1).await.unwrap();
    assert_eq!(kept[0].data.get(), written);
    let replaced = nasty.replace('\0', "\u{FFFD}");
    let again = store.take(&one.id).await.unwrap();
    assert_eq!(again.session.description.as_deref(), Some(replaced.as_str()));
    assert_eq!(again.session.tags, [replaced.as_str()]);
    assert_eq!(again.session.tools_used, [replaced.as_str()]);
    assert_eq!(again.session.config.system_prompt.as_deref(), Some(nasty));
    assert_eq!((&again.agents[0].name, &again.agents[0].driver), (&replaced, &driver.driver));
    assert_eq!(store.question(&one.id, nasty).await.unwrap().input, json!({ "command": nasty }));
    assert_eq!(store.find(nasty).await.unwrap(), None);
    let list = hostel_session::ListSessions { tags: vec![nasty.to_owned()], ..Default::default() };
    assert_eq!(store.list(&list).await.unwrap().total, 1);
    store.close().await;
}

pub(crate) async fn large_events_end_an_answer(place: &Place) {
    let store = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    let large = json!({ "message": "x".repeat(7 << 20) });
    for seq in 1..=5 {
        store.commit(commit(&taken, vec![event(seq, EventKind::AgentMessage, &large)])).await.unwrap();
    }
    assert_eq!(numbers(&store.events(&id("one"), 0, 100).await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(&store.events(&id("one"), 3, 100).await.unwrap()), [4, 5]);
    assert_eq!(numbers(&store.events(&id("one"), 0, 2).await.unwrap()), [1, 2]);
    store.close().await;
}

pub(crate) async fn many_sessions_at_once(place: &Place) {
    const SESSIONS: usize = 50;
    const COMMITS: u64 = 10;
    let store = place.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..SESSIONS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let one = session(&format!("s{index}"));
            store.create(NewSession::of(one.clone())).await.unwrap();
            let taken = store.take(&one.id).await.unwrap();
            for number in 0..COMMITS {
                let mut next = commit(&taken, events(number * 3 + 1..=number * 3 + 3));
                next.agents = vec![agent("main", number)];
                store.commit(next).await.unwrap();
                // What is committed is seen at once, by whatever connection.
                let read = store.events(&one.id, number * 3, 10).await.unwrap();
                assert_eq!(numbers(&read), [number * 3 + 1, number * 3 + 2, number * 3 + 3]);
            }
        });
    }
    while let Some(joined) = writers.join_next().await {
        joined.unwrap();
    }
    for index in 0..SESSIONS {
        let taken = store.take(&id(&format!("s{index}"))).await.unwrap();
        assert_eq!(taken.session.last_event, COMMITS * 3);
        assert_eq!(taken.agents, [agent("main", COMMITS - 1)]);
    }
    store.close().await;
}

pub(crate) async fn usable_and_closed(place: &Place) {
    let store = place.open().await;
    store.check().await.unwrap();
    store.create(NewSession::of(session("one"))).await.unwrap();
    store.close().await;
    assert!(matches!(store.check().await, Err(Error::Store { .. })));
    assert!(matches!(store.get(&id("one")).await, Err(Error::Store { .. })));
    assert!(matches!(store.take(&id("one")).await, Err(Error::Store { .. })));
    store.close().await;
    let again = place.open().await;
    assert_eq!(again.get(&id("one")).await.unwrap(), session("one"));
    again.close().await;
}
