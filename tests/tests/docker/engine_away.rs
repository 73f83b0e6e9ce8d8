//! Engines that stop, die and come back.

use crate::setup::{container, get, health, instance, own_engine, refusal};
use hostel_tests::{TestDaemon, TestEngine, eventually, signal};
use rustix::process::Signal;
use std::process::Child;

/// Prints numbered lines until a file is there.
const COUNT: &str = "i=0; while [ ! -e /tmp/enough ]; do echo line $i; i=$((i+1)); sleep 0.001; done";

pub(crate) fn count(daemon: &TestDaemon, id: &str) -> Child {
    daemon.command(&["exec", id, "--", "sh", "-c", COUNT]).spawn().unwrap()
}

/// Ends the counting; every line must have come, in order.
pub(crate) fn check_count(daemon: &TestDaemon, id: &str, counting: Child) {
    let _ = daemon.shell(id, "touch /tmp/enough");
    let counted = counting.wait_with_output().unwrap();
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    let text = String::from_utf8(counted.stdout).unwrap();
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
    assert!(text.lines().count() > 10);
}

/// Whether the engine is said to be away. Of a far one there is always something to say.
fn is_away(daemon: &TestDaemon) -> bool {
    let health = health(daemon);
    let detail = health["detail"].as_str().unwrap();
    detail.contains("engine") && !detail.contains("does not share this host's files")
}

/// What must be so while the engine is away.
pub(crate) fn is_told(daemon: &TestDaemon) {
    eventually("it is told", || is_away(daemon));
    // It is expected back, whether this daemon has seen it or has only taken its sandboxes over.
    assert_eq!(health(daemon)["health"], "degraded", "{}", health(daemon));
    let refused = refusal(daemon, &[]);
    assert_eq!(refused["reason"], "UNAVAILABLE", "{refused}");
    // Jails need no engine.
    assert_eq!(daemon.hostel(&["run", "--", "echo", "jail"]).success(), "jail");
}

pub(crate) fn is_back(daemon: &TestDaemon) {
    eventually("it is back", || !is_away(daemon));
    assert_eq!(daemon.hostel(&["run", "--backend", "docker", "--", "echo", "new"]).success(), "new");
}

pub(crate) fn containers(engine: &TestEngine) -> usize {
    engine.docker(&["ps", "--all", "--quiet"]).success().lines().count()
}

/// The guest of a container.
pub(crate) fn first_process(engine: &TestEngine, daemon: &TestDaemon, id: &str) -> u32 {
    let name = format!("hostel-{}-{id}", instance(daemon));
    engine.docker(&["inspect", "--format", "{{.State.Pid}}", &name]).success().parse().unwrap()
}

#[test]
fn containers_that_outlive_their_engine_are_not_lost() {
    let Some((mut engine, mut daemon)) = own_engine(&["--live-restore"]) else { return };
    let (id, removed, dying) = (container(&daemon), container(&daemon), container(&daemon));
    let paused = container(&daemon);
    let _ = daemon.hostel(&["sandbox", "pause", &paused]).success();
    let counting = count(&daemon, &id);
    let mut doomed = Some(daemon.command(&["exec", &dying, "--", "sleep", "1000"]).spawn().unwrap());
    let first_process = first_process(&engine, &daemon, &dying);
    for violent in [false, true] {
        if violent {
            engine.kill()
        } else {
            engine.stop()
        }
        is_told(&daemon);
        assert_eq!(daemon.shell(&id, "echo through the guest"), "through the guest");
        assert_eq!(get(&daemon, &id)["state"], "ready");
        if !violent {
            // A daemon that starts meanwhile takes it back through its guest.
            daemon.kill();
            daemon.restart();
            is_told(&daemon);
            assert_eq!(daemon.shell(&id, "echo taken back"), "taken back");
            assert_eq!(get(&daemon, &removed)["state"], "ready");
            // One that is frozen cannot say that it is there.
            assert_eq!(get(&daemon, &paused)["state"], "paused");
        } else {
            // Nobody tells of this death; it is seen when the engine is back.
            signal(first_process, Signal::KILL);
            let ended = doomed.take().unwrap().wait().unwrap();
            assert_ne!(ended.code(), Some(0));
            let refused = daemon.hostel(&["--json", "sandbox", "rm", &removed]);
            assert!(refused.code == Some(0) || refused.stderr.contains("UNAVAILABLE"), "{refused:?}");
        }
        engine.restart();
        is_back(&daemon);
        assert_eq!(daemon.shell(&id, "echo still here"), "still here");
        if !violent {
            let _ = daemon.hostel(&["sandbox", "resume", &paused]).success();
        }
        assert_eq!(daemon.shell(&paused, "echo still here"), "still here");
    }
    eventually("the death is told", || get(&daemon, &dying)["state"] == "failed");
    // What was asked for while the engine was away is done by itself.
    eventually("it is removed", || daemon.hostel(&["sandbox", "get", &removed]).code != Some(0));
    check_count(&daemon, &id, counting);
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}

#[test]
fn containers_that_die_with_their_engine_are_told_and_new_ones_can_be_made() {
    let Some((mut engine, mut daemon)) = own_engine(&[]) else { return };
    for violent in [false, true] {
        let id = container(&daemon);
        let running = daemon.command(&["exec", &id, "--", "sleep", "1000"]).spawn().unwrap();
        eventually("it runs", || daemon.hostel(&["ps", &id]).stdout.contains("running"));
        if violent {
            engine.kill()
        } else {
            engine.stop()
        }
        is_told(&daemon);
        if violent {
            // The engine had no time to end what it started; the next one does.
            assert_eq!(daemon.shell(&id, "echo through the guest"), "through the guest");
        }
        engine.restart();
        eventually("its end is told", || get(&daemon, &id)["state"] == "failed");
        assert_eq!(get(&daemon, &id)["last_transition"]["reason"], "guest_died");
        let ended = running.wait_with_output().unwrap();
        // An engine that stops asks its containers to stop first, and so does one that finds an earlier one's.
        let code = ended.status.code().unwrap();
        assert!([137, 143].contains(&code), "{code}: {}", String::from_utf8_lossy(&ended.stderr));
        // Nothing of the dead one waits for the next start of the daemon.
        eventually("what it left is removed", || containers(&engine) == 0);
        is_back(&daemon);
        let _ = daemon.hostel(&["sandbox", "rm", &id]).success();
    }
    daemon.finish();
    assert_eq!(containers(&engine), 0);
}

#[test]
fn an_engine_that_falls_silent_is_told_and_what_happened_meanwhile_is_seen() {
    let Some((engine, mut daemon)) = own_engine(&[]) else { return };
    let (id, dying) = (container(&daemon), container(&daemon));
    let first_process = first_process(&engine, &daemon, &dying);
    // Its connections stay open: nothing tells but its silence.
    let frozen = engine.freeze();
    signal(first_process, Signal::KILL);
    is_told(&daemon);
    assert_eq!(daemon.shell(&id, "echo through the guest"), "through the guest");
    drop(frozen);
    eventually("the death is told", || get(&daemon, &dying)["state"] == "failed");
    is_back(&daemon);
    assert_eq!(daemon.shell(&id, "echo still here"), "still here");
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}

#[test]
fn a_guest_that_is_silent_while_the_daemon_starts_keeps_its_container() {
    let Some((engine, mut daemon)) = own_engine(&[]) else { return };
    let id = container(&daemon);
    let _ = daemon.shell(&id, "echo kept >/tmp/file");
    let guest = first_process(&engine, &daemon, &id);
    daemon.kill();
    // As on a host that is so busy that it gets no turn.
    signal(guest, Signal::STOP);
    daemon.restart();
    assert_eq!(get(&daemon, &id)["state"], "ready");
    signal(guest, Signal::CONT);
    assert_eq!(daemon.shell(&id, "cat /tmp/file"), "kept");
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}

#[test]
fn a_sandbox_whose_engine_died_while_it_was_copied_goes_on() {
    let Some((mut engine, mut daemon)) = own_engine(&["--live-restore"]) else { return };
    let (id, stopped) = (container(&daemon), container(&daemon));
    let name = |id: &str| format!("hostel-{}-{id}", instance(&daemon));
    let is_frozen = |engine: &TestEngine, id: &str| {
        engine.docker(&["inspect", "--format", "{{.State.Paused}}", &name(id)]).success() == "true"
    };
    // So much that the copy takes a while.
    let _ = daemon.shell(&id, "head -c 400000000 /dev/urandom >/tmp/much; sync");
    // What others freeze is theirs.
    let _ = engine.docker(&["pause", &name(&stopped)]).success();
    let copying = daemon.command(&["--json", "sandbox", "snapshot", &id, "half"]).spawn().unwrap();
    eventually("it is frozen for the copy", || is_frozen(&engine, &id));
    engine.kill();
    let failed = copying.wait_with_output().unwrap();
    assert!(!failed.status.success(), "it was copied before its engine died");
    engine.restart();
    assert_eq!(get(&daemon, &id)["state"], "ready");
    eventually("it goes on", || !is_frozen(&engine, &id));
    assert_eq!(daemon.shell(&id, "echo still here"), "still here");
    assert!(is_frozen(&engine, &stopped), "what others froze goes on");
    let _ = engine.docker(&["unpause", &name(&stopped)]).success();
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}
