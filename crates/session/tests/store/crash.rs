//! A writer that is killed: what it was told is kept is there, and nothing of anything else in parts.

use crate::place::{Place, open};
use crate::records::{agent, commit, events, id, message, numbers, session};
use hostel_session::{MessageState, NewSession, TranscriptPiece};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the process that is killed writes.
const URL: &str = "HOSTEL_TEST_STORE";
const SESSIONS: usize = 8;
/// Events of one commit: more than one statement takes.
const EVENTS: u64 = 70;
const KILLS: usize = 6;

/// Commits without end where this process was started to be killed; otherwise nothing.
#[tokio::test(flavor = "multi_thread")]
async fn writes_until_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = open(&url).await;
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..SESSIONS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let name = format!("s{index}");
            let taken = store.take(&id(&name)).await.unwrap();
            let mut last = taken.session.last_event;
            loop {
                let number = last / EVENTS + 1;
                let mut next = commit(&taken, events(last + 1..=last + EVENTS));
                next.agents = vec![agent("main", number)];
                next.messages = vec![message(&format!("m{number}"), MessageState::Done, number)];
                let lines = format!("{number}\n");
                next.transcript = vec![TranscriptPiece { path: "/t".to_owned(), lines }];
                store.commit(next).await.unwrap();
                last += EVENTS;
                println!("kept {index} {last}");
            }
        });
    }
    while writers.join_next().await.is_some() {}
}

pub(crate) async fn nothing_acknowledged_is_lost(place: &Place) {
    let store = place.open().await;
    for index in 0..SESSIONS {
        store.create(NewSession::of(session(&format!("s{index}")))).await.unwrap();
    }
    store.close().await;
    for kill in 0..KILLS {
        let url = place.url.clone();
        let told = tokio::task::spawn_blocking(move || write_and_kill(&url, 5 + kill * 13)).await.unwrap();
        let store = place.open().await;
        for index in 0..SESSIONS {
            let taken = store.take(&id(&format!("s{index}"))).await.unwrap();
            let last = taken.session.last_event;
            assert!(last >= told.get(&index).copied().unwrap_or(0), "session {index}: {last} of {told:?}");
            check(&*store, &taken, last).await;
        }
        store.close().await;
    }
}

/// That all parts of all commits until this event are there, and no part of another.
async fn check(store: &dyn hostel_session::Store, taken: &hostel_session::StoredSession, last: u64) {
    let id = &taken.session.id;
    assert_eq!(last % EVENTS, 0);
    let commits = last / EVENTS;
    let mut after = 0;
    while after < last {
        let read = store.events(id, after, 5000).await.unwrap();
        let expected: Vec<u64> = (after + 1..=after + read.len() as u64).collect();
        assert_eq!(numbers(&read), expected);
        after += read.len() as u64;
    }
    assert!(store.events(id, last, 1).await.unwrap().is_empty());
    if commits > 0 {
        assert_eq!(taken.agents, [agent("main", commits)]);
        let lines: String = (1..=commits).map(|number| format!("{number}\n")).collect();
        assert_eq!(store.transcripts(id).await.unwrap()[0].content, lines);
        store.message(id, &format!("m{commits}")).await.unwrap();
    }
    assert!(store.message(id, &format!("m{}", commits + 1)).await.is_err());
}

/// Runs this test program as a writer, kills it after it was told of so many commits, and gives what it was told.
fn write_and_kill(url: &str, commits: usize) -> BTreeMap<usize, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writes_until_killed", "--nocapture"])
        .env(URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BTreeMap::new();
    let mut count = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, told_of)) = line.split_once("kept ") else { continue };
        let Some((index, last)) = told_of.split_once(' ') else { continue };
        // The last line may be cut.
        if let (Ok(index), Ok(last)) = (index.parse(), last.parse::<u64>())
            && last.is_multiple_of(EVENTS)
        {
            told.insert(index, last);
        }
        count += 1;
        if count == commits {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= commits, "it ended by itself");
    told
}
