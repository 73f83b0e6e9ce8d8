//! An engine that speaks only what is too old.

use crate::setup::{daemon_on, health, refusal};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

/// Answers everything as Docker 1.12 would tell its version.
fn answer(stream: UnixStream) {
    let mut lines = BufReader::new(&stream).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let body =
        r#"{"Version":"1.12.6","ApiVersion":"1.24","MinAPIVersion":"1.12","Os":"linux","Arch":"amd64"}"#;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nApi-Version: 1.24\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
}

#[test]
fn an_engine_that_is_too_old_is_told_and_does_no_harm() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    let mut daemon = daemon_on(&format!("unix://{}", socket.display()), "any");
    assert_eq!(health(&daemon)["health"], "unavailable");
    for told in [health(&daemon)["detail"].to_string(), refusal(&daemon, &[])["message"].to_string()] {
        assert!(told.contains("1.24") && told.contains("1.41"), "{told}");
    }
    assert_eq!(refusal(&daemon, &[])["reason"], "UNAVAILABLE");
    let doctor = daemon.hostel(&["doctor"]);
    assert!(doctor.stdout.contains("1.24"), "{doctor:?}");
    assert_eq!(daemon.hostel(&["run", "--", "echo", "jail"]).success(), "jail");
    daemon.finish();
}
