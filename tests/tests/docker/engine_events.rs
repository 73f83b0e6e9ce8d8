//! What others do to our containers through the engine is seen and told.

use crate::setup::{container, daemon_on, get, instance};
use hostel_tests::{docker, eventually, shared_engine};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};

#[test]
fn a_container_killed_or_removed_by_others_is_a_failed_sandbox_and_an_event() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let undisturbed = container(&daemon);
    for how in [&["kill"][..], &["rm", "--force"], &["stop", "--time", "0"]] {
        let id = container(&daemon);
        let name = format!("hostel-{}-{id}", instance(&daemon));
        let list: Value =
            serde_json::from_str(daemon.hostel(&["--json", "sandbox", "list"]).success()).unwrap();
        // From what was seen, so that nothing is missed while the watch starts.
        let cursor = list["cursor"].as_str().unwrap();
        let watch = ["--json", "sandbox", "watch", "--from", cursor, &id];
        let mut watch = daemon.command(&watch).spawn().unwrap();
        let mut events = BufReader::new(watch.stdout.take().unwrap()).lines();
        let running = daemon.command(&["exec", &id, "--", "sleep", "1000"]).spawn().unwrap();
        eventually("it runs", || daemon.hostel(&["ps", &id]).stdout.contains("running"));
        let mut arguments = how.to_vec();
        arguments.push(&name);
        let _ = docker(&host, &arguments).success();
        let told: Value = serde_json::from_str(&events.next().unwrap().unwrap()).unwrap();
        assert_eq!((&told["old_state"], &told["new_state"]), (&"ready".into(), &"failed".into()), "{told}");
        assert_eq!(told["reason"], "guest_died", "{told}");
        let _ = watch.kill();
        let _ = watch.wait();
        assert_eq!(get(&daemon, &id)["state"], "failed");
        let ended = running.wait_with_output().unwrap();
        // A guest that is asked to stop ends its processes in good order.
        let codes = if how[0] == "stop" { [137, 143] } else { [137, 137] };
        let code = ended.status.code().unwrap();
        assert!(codes.contains(&code), "{code}: {}", String::from_utf8_lossy(&ended.stderr));
        let refused = daemon.hostel(&["--json", "exec", &id, "--", "true"]);
        assert!(refused.failure(125).contains("SANDBOX_STATE"), "{refused:?}");
        assert_eq!(daemon.shell(&undisturbed, "echo undisturbed"), "undisturbed");
        let _ = daemon.hostel(&["sandbox", "rm", &id]).success();
        assert_ne!(docker(&host, &["inspect", &name]).code, Some(0));
    }
    daemon.finish();
}
