//! The drivers against recorded output of the real CLI (`NAME.jsonl`; `old-…` is of version 2.1.197, the rest of
//! 2.1.329; ids and paths are replaced, long texts cut), and against output that nobody should write.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod chunks;
mod hostile;
mod lines;
mod meaning;
mod options;
mod outline;
mod requests;

use hostel_agent::{AgentDriver, AgentKind, LaunchOptions};
use std::path::PathBuf;

/// A driver that was just launched.
fn claude() -> Box<dyn AgentDriver> {
    let options = LaunchOptions { workspace: "/workspace".to_owned(), ..LaunchOptions::default() };
    AgentKind::Claude.launch(&options).expect("options").1
}

/// The same of a spare.
fn claimed() -> Box<dyn AgentDriver> {
    let options =
        LaunchOptions { workspace: "/workspace".to_owned(), claimed_spare: true, ..LaunchOptions::default() };
    AgentKind::Claude.launch(&options).expect("options").1
}

/// All recordings: name and bytes.
fn recordings() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            found.push((name, std::fs::read(&path).expect("a file")));
        }
    }
    found.sort();
    assert!(found.len() > 10);
    found
}

/// A driver for a recording.
fn driver_for(name: &str) -> Box<dyn AgentDriver> {
    if name == "spare" { claimed() } else { claude() }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}
