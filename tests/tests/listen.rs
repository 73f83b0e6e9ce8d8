//! Where a daemon listens, who may come in, and how it comes and goes.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Outcome, Setup, TestDaemon, eventually, signal};
use rustix::process::Signal;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

fn listening(address: &str) -> Setup {
    Setup { arguments: vec!["--listen".into(), address.into()], ..Setup::default() }
}

/// What a daemon says that refuses to start.
fn refused(daemon: &TestDaemon) -> Outcome {
    daemon.hosteld().stderr(Stdio::piped()).output().unwrap().into()
}

#[test]
fn tcp_is_open_to_loopback_only() {
    for address in ["tcp://0.0.0.0:0", "tcp://192.0.2.1:7070", "tcp://[::]:7070"] {
        let outcome = refused(&TestDaemon::prepare(listening(address)));
        assert!(outcome.code == Some(2) || outcome.code == Some(78), "{outcome:?}");
        assert!(outcome.stderr.contains("loopback") && outcome.stderr.contains("127.0.0.1"), "{outcome:?}");
    }

    let mut daemon = TestDaemon::prepare(listening("tcp://127.0.0.1:0"));
    daemon.launch();
    let mut address = None;
    eventually("it says where it listens", || {
        let log = daemon.log();
        let found = log.split("address=tcp://").nth(1).and_then(|rest| rest.split_whitespace().next());
        address = found.map(|found| format!("http://{found}"));
        address.is_some()
    });
    daemon.reach_at(address.unwrap());
    eventually("it answers", || daemon.hostel(&["node", "info"]).code == Some(0));
    let outcome = daemon.hostel(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(3), "out\n", "err\n"));
    let id = daemon.sandbox(&[]);
    let from = daemon.home().join("from");
    std::fs::write(&from, vec![5; 1 << 20]).unwrap();
    let _ = daemon.hostel(&["cp", from.to_str().unwrap(), &format!("{id}:/workspace/to")]).success();
    assert_eq!(daemon.shell(&id, "wc -c < /workspace/to"), "1048576");
    assert!(!daemon.socket().exists());
    daemon.finish();
}

#[test]
fn the_socket_is_for_its_user_and_group() {
    let mut daemon = TestDaemon::start();
    let metadata = std::fs::symlink_metadata(daemon.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o7777, 0o660);
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let hostel =
        groups.lines().find_map(|line| line.strip_prefix("hostel:x:")?.split(':').next()?.parse().ok());
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(metadata.gid(), hostel.unwrap_or(rustix::process::getegid().as_raw()));
    if rustix::process::geteuid().is_root() {
        // The mode keeps strangers out; what they are told is no riddle.
        let socket = format!("unix://{}", daemon.socket().display());
        let stranger = TestDaemon::prepare(Setup { user: Some(61_234), ..Setup::default() });
        let mut command = stranger.command(&["node", "info"]);
        let outcome: Outcome = command.env("HOSTEL_ADDR", socket).output().unwrap().into();
        assert!(outcome.failure(125).contains("ermission denied"), "{outcome:?}");
    }
    daemon.finish();
}

#[test]
fn there_is_one_daemon_to_a_state_directory_and_to_a_socket() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    let second = refused(&daemon);
    assert!(second.failure(1).contains("another daemon uses this state directory"), "{second:?}");
    let elsewhere = TestDaemon::prepare(listening(&format!("unix://{}", daemon.socket().display())));
    let third = refused(&elsewhere);
    assert!(third.failure(1).contains("another daemon listens there"), "{third:?}");
    assert_eq!(daemon.shell(&id, "echo undisturbed"), "undisturbed");

    // kill -9 leaves the socket's file; the next daemon replaces it, but nothing that is no socket.
    daemon.kill();
    assert!(daemon.socket().exists());
    assert!(daemon.hostel(&["node", "info"]).failure(125).contains("hostel up"));
    daemon.restart();
    assert_eq!(daemon.shell(&id, "echo undisturbed"), "undisturbed");
    daemon.kill();
    std::fs::remove_file(daemon.socket()).unwrap();
    std::fs::write(daemon.socket(), "precious").unwrap();
    assert!(refused(&daemon).failure(1).contains("not a socket"));
    assert_eq!(std::fs::read_to_string(daemon.socket()).unwrap(), "precious");
    std::fs::remove_file(daemon.socket()).unwrap();
    daemon.restart();
    daemon.finish();
    assert!(!daemon.socket().exists());
}

/// The next message to systemd.
fn notice(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a message to systemd");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn fake_systemd(home: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(home.join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let place = tempfile::tempdir().unwrap();
    let systemd = fake_systemd(place.path());
    let environment = vec![("NOTIFY_SOCKET", place.path().join("notify").into_os_string())];
    let mut daemon = TestDaemon::prepare(Setup { environment, ..Setup::default() });
    daemon.launch();
    assert!(notice(&systemd).contains("READY=1"));
    // Ready means ready: no second try.
    assert_eq!(daemon.hostel(&["node", "info"]).code, Some(0));
    signal(daemon.pid(), Signal::TERM);
    assert!(notice(&systemd).contains("STOPPING=1"));
    assert!(daemon.ended().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    // A deletion that waits for a process that does not want to end, which a first signal waits for in turn.
    let stubborn = "trap '' TERM; touch /workspace/ready; while :; do sleep 0.1; done";
    let _ = daemon.hostel(&["exec", "-d", &id, "--", "sh", "-c", stubborn]).success();
    eventually("it is stubborn", || daemon.shell(&id, "ls /workspace") == "ready");
    let mut deletion = daemon.command(&["sandbox", "rm", "--grace", "60s", &id]).spawn().unwrap();
    eventually("it is being deleted", || daemon.hostel(&["sandbox", "get", &id]).stdout.contains("stopping"));
    signal(daemon.pid(), Signal::TERM);
    eventually("the first signal is heard", || daemon.log().contains("a second signal exits at once"));
    signal(daemon.pid(), Signal::TERM);
    // Had it waited, it would have ended well.
    assert_eq!(daemon.ended().code(), Some(130));
    let _ = deletion.kill();
    let _ = deletion.wait();
    daemon.restart();
    eventually("the next daemon finishes the deletion", || {
        daemon.hostel(&["sandbox", "get", &id]).code == Some(125)
    });
    daemon.finish();
}

#[test]
fn a_socket_that_somebody_left_is_replaced() {
    let mut daemon = TestDaemon::prepare(Setup::default());
    std::fs::create_dir_all(daemon.runtime()).unwrap();
    drop(UnixListener::bind(daemon.socket()).unwrap());
    daemon.restart();
    let _ = daemon.hostel(&["run", "--", "true"]).success();
    daemon.finish();
}
