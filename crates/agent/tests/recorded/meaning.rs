//! What recordings mean.

use super::outline::outline;
use super::{directory, driver_for, recordings};
use hostel_agent::{AgentEvent, Meaning, Stream};
use std::collections::HashSet;

/// Each has its meaning beside it, as `NAME.events`. With `UPDATE_RECORDED` set these are written anew.
#[test]
fn recordings_mean_what_they_did() {
    let mut wrong = Vec::new();
    for (name, bytes) in recordings() {
        let mut driver = driver_for(&name);
        driver.take_input();
        let mut events = driver.output(Stream::Stdout, &bytes);
        check(&name, &events);
        events.extend(driver.exited(Some(0)));
        let file = directory().join(format!("{name}.events"));
        let told = outline(&events);
        if std::env::var_os("UPDATE_RECORDED").is_some() {
            std::fs::write(&file, &told).expect("a file");
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        if told != wanted {
            let line = told.lines().zip(wanted.lines()).find(|(is, wanted)| is != wanted);
            wrong.push(format!("{name}: {line:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What holds for all output of a CLI that is not broken.
fn check(name: &str, events: &[AgentEvent]) {
    let mut busy = false;
    let mut open = HashSet::new();
    let mut complete = HashSet::new();
    for event in events {
        match &event.meaning {
            Meaning::Running => assert!(!std::mem::replace(&mut busy, true), "{name}: busy twice"),
            Meaning::Idle => assert!(std::mem::replace(&mut busy, false), "{name}: idle twice"),
            Meaning::Result(_) => assert!(busy, "{name}: a result while idle"),
            Meaning::BlockStart(block) => assert!(open.insert(block.id.clone()), "{name}: {block:?}"),
            Meaning::BlockDelta { block, .. } => assert!(open.contains(block), "{name}: {block}"),
            Meaning::BlockAbandoned { block } => assert!(open.remove(block), "{name}: {block}"),
            Meaning::BlockComplete(block) => {
                open.remove(&block.id);
                assert!(complete.insert(block.id.clone()), "{name}: {block:?}");
            }
            Meaning::BlockUpdate(block) => assert!(complete.contains(&block.id), "{name}: {block:?}"),
            Meaning::Malformed { problem } => panic!("{name}: {problem}"),
            _ => {}
        }
    }
    assert!(!busy && open.is_empty(), "{name}: {open:?}");
}
