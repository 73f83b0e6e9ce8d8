//! `kill -9` of the daemon: nothing is lost, nothing comes twice, nothing stays behind.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{TestDaemon, eventually, leftovers};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

/// Prints numbered lines as fast as the reader takes them.
const COUNT: &str = "i=0; while [ $i -lt 200000 ]; do echo line $i; i=$((i+1)); done";

fn remove_all(daemon: &TestDaemon) {
    let list = daemon.hostel(&["sandbox", "list", "-q"]);
    for id in list.success().split_whitespace() {
        let _ = daemon.hostel(&["sandbox", "rm", id]);
    }
}

#[test]
fn output_goes_on_without_a_byte_lost_or_repeated() {
    let mut daemon = TestDaemon::start();
    let id = daemon.hostel(&["sandbox", "create", "-q"]).success().to_owned();
    let mut command = daemon.command(&["exec", &id, "--", "sh", "-c", COUNT]);
    let mut reader = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    for (number, kill) in [(1_000, true), (60_000, true), (199_999, false)].iter().copied() {
        for line in lines.by_ref() {
            let line = line.unwrap();
            let expected = line.strip_prefix("line ").and_then(|number| number.parse::<u32>().ok());
            assert!(expected.is_some(), "{line:?}");
            if expected == Some(number) {
                break;
            }
        }
        if kill {
            daemon.kill();
            daemon.restart();
        }
    }
    assert!(reader.wait().unwrap().success());
    // What was counted above came in order; the kept output says the same of the whole.
    let processes = daemon.hostel(&["ps", &id]);
    assert!(processes.success().contains("exited 0"), "{processes:?}");
}

#[test]
fn every_line_arrives_once_and_in_order() {
    let mut daemon = TestDaemon::start();
    let id = daemon.hostel(&["sandbox", "create", "-q"]).success().to_owned();
    let mut reader = daemon.command(&["exec", &id, "--", "sh", "-c", COUNT]).spawn().unwrap();
    let mut out = BufReader::new(reader.stdout.take().unwrap());
    let mut start = [0; 4096];
    out.read_exact(&mut start).unwrap();
    daemon.kill();
    daemon.restart();
    let mut text = String::from_utf8(start.to_vec()).unwrap();
    out.read_to_string(&mut text).unwrap();
    assert!(reader.wait().unwrap().success());
    let expected: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
    assert!(text == expected, "{} bytes instead of {}", text.len(), expected.len());
}

#[test]
fn sandboxes_are_adopted_and_what_was_half_made_is_removed() {
    let mut daemon = TestDaemon::start();
    let kept = daemon.hostel(&["sandbox", "create", "-q"]).success().to_owned();
    let paused = daemon.hostel(&["sandbox", "create", "-q"]).success().to_owned();
    let _ = daemon.hostel(&["exec", &kept, "--", "sh", "-c", "echo here > /workspace/file"]).success();
    let _ = daemon.hostel(&["exec", "-d", &kept, "--", "sleep", "1000"]).success();
    let could_pause = daemon.hostel(&["sandbox", "pause", &paused]).code == Some(0);
    for round in 0..6 {
        // Killed while creations are under way, at a different moment each time.
        let mut clients: Vec<Child> =
            (0..8).map(|_| daemon.command(&["run", "--", "true"]).spawn().unwrap()).collect();
        for client in clients.iter_mut().take(round) {
            let _ = client.wait();
        }
        daemon.kill();
        for client in &mut clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        daemon.restart();
        let there = daemon.hostel(&["exec", &kept, "--", "cat", "/workspace/file"]);
        assert_eq!(there.success(), "here");
        assert!(daemon.hostel(&["ps", &kept]).success().contains("running"));
        let state = daemon.hostel(&["sandbox", "get", &paused]);
        assert!(!could_pause || state.success().contains("paused"), "{state:?}");
    }
    remove_all(&daemon);
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
    assert!(fs::read_dir(daemon.state()).is_ok());
}

#[test]
fn jails_that_wait_for_somebody_die_with_the_daemon() {
    let mut daemon = TestDaemon::start();
    assert_eq!(daemon.hostel(&["run", "--", "true"]).code, Some(0));
    let left = |daemon: &TestDaemon, what: &str| {
        leftovers(daemon).into_iter().filter(|line| line.starts_with(what)).count()
    };
    // Without groups nobody can tell whose a process is.
    if left(&daemon, "cgroup:") > 0 {
        eventually("jails wait beside the daemon", || left(&daemon, "process:") > 1);
    }
    daemon.kill();
    eventually("no process is left", || left(&daemon, "process:") == 0);
    daemon.restart();
    assert_eq!(daemon.hostel(&["run", "--", "true"]).code, Some(0));
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}

#[test]
fn deadlines_go_on_while_nobody_is_there() {
    let mut daemon = TestDaemon::start();
    let id = daemon.hostel(&["sandbox", "create", "-q", "--lifetime", "2s"]).success().to_owned();
    daemon.kill();
    daemon.restart();
    eventually("its time is over", || {
        let outcome = daemon.hostel(&["sandbox", "get", &id]);
        outcome.code != Some(0) || outcome.stdout.contains("stopped") || outcome.stdout.contains("failed")
    });
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}
