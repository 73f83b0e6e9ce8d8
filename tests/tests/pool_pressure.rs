//! Memory that runs short takes what waits, and leaves what is used. How short is too short is configuration, so that
//! a daemon can be told that this host's memory is.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{TestDaemon, eventually};
use serde_json::Value;

/// Prints numbered lines until a file is there.
const COUNT: &str =
    "touch /tmp/begun; i=0; while [ ! -e /tmp/enough ]; do echo line $i; i=$((i+1)); sleep 0.01; done";

fn json(daemon: &TestDaemon, arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    serde_json::from_str(daemon.hostel(&arguments).success()).unwrap()
}

/// Waits until the pool holds that many, and removes no more.
fn holds(daemon: &TestDaemon, ready: u64) {
    eventually(&format!("the pool holds {ready}"), || {
        let status = json(daemon, &["pool", "get", "web"])["status"].clone();
        status["ready"] == ready && status["creating"] == 0 && status["removing"] == 0
    });
}

#[test]
fn short_memory_takes_warm_sandboxes_and_leaves_those_in_use() {
    let mut daemon = TestDaemon::start();
    let _ = daemon.hostel(&["pool", "create", "web", "--min", "1", "--pin", "4", "--wait"]).success();
    let used: Vec<String> = (0..2).map(|_| daemon.sandbox(&["--pool", "web"])).collect();
    let counting = daemon.command(&["exec", &used[0], "--", "sh", "-c", COUNT]).spawn().unwrap();
    holds(&daemon, 4);
    // Who has not begun cannot go on after a restart.
    let _ = daemon.shell(&used[0], "until [ -e /tmp/begun ]; do sleep 0.01; done");

    for (bounds, ready) in
        [("high=100,critical=0", 1), ("high=100,critical=100", 0), ("high=0,critical=0", 4)]
    {
        daemon.stop();
        daemon.set("HOSTEL_MEMORY_PRESSURE", bounds);
        daemon.restart();
        holds(&daemon, ready);
        for id in &used {
            assert_eq!(daemon.shell(id, "echo mine"), "mine", "{bounds}");
        }
        // Whoever asks gets one, warm or cold.
        let id = daemon.sandbox(&["--pool", "web"]);
        let start = json(&daemon, &["sandbox", "get", &id])["start_kind"].clone();
        assert_eq!(start, if ready == 0 { "cold" } else { "warm" }, "{bounds}");
        let _ = daemon.hostel(&["sandbox", "rm", &id]).success();
        holds(&daemon, ready);
    }
    let given_back = json(&daemon, &["pool", "get", "web"])["counters"]["surplus"].clone();
    assert!(given_back.as_u64() >= Some(4), "{given_back}");

    let _ = daemon.shell(&used[0], "touch /tmp/enough");
    let counted = counting.wait_with_output().unwrap();
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    for (number, line) in String::from_utf8(counted.stdout).unwrap().lines().enumerate() {
        assert_eq!(line, format!("line {number}"), "nothing was lost or repeated");
    }
    daemon.finish();
}

#[test]
fn bounds_that_make_no_sense_are_refused() {
    let daemon = TestDaemon::prepare(hostel_tests::Setup::default());
    let told = daemon.hosteld().args(["--check", "--memory-pressure", "high=3,critical=20"]).output();
    let told = told.unwrap();
    assert!(!told.status.success());
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(text.contains("critical is more than high"), "{text}");
}
