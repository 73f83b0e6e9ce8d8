//! Engines that are reached by TCP: what goes through them, and what of it outlives a daemon or an engine.

use crate::engine_away::{check_count, containers, count, first_process, is_back, is_told};
use crate::setup::{container, daemon_on, health};
use hostel_tests::{Setup, TestDaemon, TestEngine, eventually, signal};
use rustix::process::Signal;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

/// An engine of its own that listens on the loopback interface, too, and a daemon that knows that way alone.
fn far_engine() -> Option<(TestEngine, TestDaemon)> {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = format!("tcp://{free}");
    // Without TLS, which is nobody's business for the time of a test on this host.
    let engine = TestEngine::start(&["--live-restore", "--host", &host, "--tls=false"])?;
    // An image that has something where sandboxes can write.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("agent")).unwrap();
    std::fs::write(home.path().join("agent/hello"), "from the image").unwrap();
    let _ = engine.docker(&["create", "--name", "seeded", engine.image(), "true"]).success();
    let agent = home.path().join("agent").display().to_string();
    let _ = engine.docker(&["cp", &agent, "seeded:/home/agent"]).success();
    let _ = engine.docker(&["commit", "seeded", "hostel-test-seeded"]).success();
    let _ = engine.docker(&["rm", "seeded"]).success();
    let daemon = daemon_on(&host, "hostel-test-seeded");
    Some((engine, daemon))
}

#[test]
fn sandboxes_of_a_far_engine_are_used_like_others() {
    let Some((engine, mut daemon)) = far_engine() else { return };
    let remark = "does not share this host's files";
    assert!(health(&daemon)["detail"].as_str().unwrap().contains(remark), "{}", health(&daemon));
    assert!(daemon.hostel(&["doctor"]).stdout.contains(remark));
    assert_eq!(daemon.hostel(&["run", "--backend", "docker", "--", "echo", "hi"]).success(), "hi");

    let id = container(&daemon);
    let seeded = "cat /home/agent/hello && echo mine >/home/agent/hello";
    assert_eq!(daemon.shell(&id, seeded), "from the image");

    let mut cat = daemon.command(&["exec", "-i", &id, "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).spawn().unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let (mut input, to_send) = (cat.stdin.take().unwrap(), sent.clone());
    let sending = std::thread::spawn(move || input.write_all(&to_send).unwrap());
    let output = cat.wait_with_output().unwrap();
    sending.join().unwrap();
    assert!(output.status.success() && output.stdout == sent, "{} bytes came", output.stdout.len());

    let tree = daemon.home().join("tree");
    std::fs::create_dir_all(tree.join("below")).unwrap();
    std::fs::write(tree.join("below/file"), &sent).unwrap();
    let inside = format!("{id}:/workspace/tree");
    let _ = daemon.hostel(&["cp", tree.to_str().unwrap(), &inside]).success();
    let back = daemon.home().join("back");
    let _ = daemon.hostel(&["cp", &inside, back.to_str().unwrap()]).success();
    assert!(std::fs::read(back.join("below/file")).unwrap() == sent);

    // What is ours inside is closed to root there, and so is its user to everybody.
    let spoil = "cat /.hostel/run/* >&2 || ls /.hostel/run || rm -rf /.hostel/guest || mv /.hostel/run /.hostel/x || \
                 echo '' > /.hostel/guest";
    let spoilt = daemon.hostel(&["exec", "--user", "0", &id, "--", "sh", "-c", spoil]);
    assert!(spoilt.code.is_some_and(|code| code != 0), "{spoilt:?}");
    let own = daemon.hostel(&["exec", "--user", "65533", &id, "--", "true"]);
    assert_ne!(own.code, Some(0), "{own:?}");
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
    assert_eq!(engine.docker(&["volume", "ls", "--quiet"]).success(), "", "volumes are left");
}

#[test]
fn what_runs_on_a_far_engine_outlives_daemon_and_engine() {
    let Some((mut engine, mut daemon)) = far_engine() else { return };
    let id = container(&daemon);
    let counting = count(&daemon, &id);
    eventually("it counts", || daemon.hostel(&["ps", &id]).stdout.contains("running"));
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.shell(&id, "echo taken back"), "taken back");
    for violent in [false, true] {
        if violent {
            engine.kill();
            is_told(&daemon);
            // A daemon that starts meanwhile cannot reach it, and does not give it up.
            daemon.kill();
            daemon.restart();
        } else {
            engine.stop();
        }
        is_told(&daemon);
        let away = daemon.hostel(&["--json", "sandbox", "get", &id]);
        assert!(away.success().contains("ready"), "{away:?}");
        engine.restart();
        is_back(&daemon);
        assert_eq!(daemon.shell(&id, "echo still here"), "still here");
    }
    check_count(&daemon, &id, counting);
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}

#[test]
fn a_far_guest_that_does_not_answer_a_new_daemon_keeps_its_sandbox() {
    let Some((engine, mut daemon)) = far_engine() else { return };
    let id = container(&daemon);
    let _ = daemon.shell(&id, "echo kept >/tmp/file");
    let guest = first_process(&engine, &daemon, &id);
    signal(guest, Signal::STOP);
    daemon.kill();
    daemon.restart();
    signal(guest, Signal::CONT);
    eventually("it is reached again", || {
        daemon.hostel(&["exec", &id, "--", "cat", "/tmp/file"]).stdout.trim() == "kept"
    });
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}

#[test]
fn an_ordinary_user_s_daemon_shows_sandboxes_nothing_of_its_own() {
    let Some(engine) = TestEngine::start(&[]) else { return };
    engine.open_to_all();
    let environment =
        vec![("DOCKER_HOST", engine.host().into()), ("HOSTEL_DOCKER_IMAGE", engine.image().into())];
    // The id that sandboxes' processes have unless told otherwise.
    let mut daemon = TestDaemon::prepare(Setup { environment, user: Some(1000), ..Setup::default() });
    daemon.restart();
    let told = "the daemon runs as an ordinary user";
    assert!(health(&daemon)["detail"].as_str().unwrap().contains(told), "{}", health(&daemon));
    assert!(daemon.hostel(&["doctor"]).stdout.contains(told));
    let id = container(&daemon);
    assert_eq!(daemon.shell(&id, "id -u"), "1000");
    let spoil = "cat /.hostel/run/* >&2 || ls /.hostel/run || rm -rf /.hostel/guest || mv /.hostel/run /.hostel/x || \
                 touch /.hostel/run/x";
    let spoilt = daemon.hostel(&["exec", &id, "--", "sh", "-c", spoil]);
    assert!(spoilt.code.is_some_and(|code| code != 0), "{spoilt:?}");
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.shell(&id, "echo taken back"), "taken back");
    daemon.finish();
    eventually("no container is left", || containers(&engine) == 0);
}
