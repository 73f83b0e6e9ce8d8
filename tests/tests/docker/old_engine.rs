//! Engines that answer otherwise than one would wish: with what is too old, or through what stands before them.

use crate::engine_away::{is_back, is_told};
use crate::setup::{container, daemon_on, get, health, refusal};
use hostel_tests::{shared_engine, skip};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers anything with this.
fn answer(stream: &UnixStream, status: &str, body: &str) {
    let mut lines = BufReader::new(stream).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.24\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = stream;
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// Answers everything as Docker 1.12 would tell its version.
fn answer_as_old(stream: UnixStream) {
    let body =
        r#"{"Version":"1.12.6","ApiVersion":"1.24","MinAPIVersion":"1.12","Os":"linux","Arch":"amd64"}"#;
    answer(&stream, "200 OK", body);
}

/// Passes everything on to the socket of an engine and back.
fn pass_on(near: UnixStream, engine: &str) -> std::io::Result<()> {
    let far = UnixStream::connect(engine)?;
    let (mut near_too, mut far_too) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut near_too, &mut far_too);
        let _ = far_too.shutdown(Shutdown::Write);
    });
    let (mut near, mut far) = (near, far);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut far, &mut near);
        let _ = near.shutdown(Shutdown::Both);
    });
    Ok(())
}

#[test]
fn an_engine_that_is_too_old_is_told_and_does_no_harm() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer_as_old));
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

#[test]
fn sandboxes_outlive_what_answers_in_the_engine_s_place() {
    let Some((host, image)) = shared_engine() else { return };
    let Some(engine) = host.strip_prefix("unix://").map(str::to_owned) else {
        return skip("the engine is not reached by a socket, so nothing can be put before it");
    };
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let is_refusing = Arc::new(AtomicBool::new(false));
    let refusing = Arc::clone(&is_refusing);
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if refusing.load(Ordering::Acquire) {
                answer(&stream, "503 Service Unavailable", r#"{"message":"no engine behind this proxy"}"#);
            } else {
                let _ = pass_on(stream, &engine);
            }
        }
    });
    let mut daemon = daemon_on(&format!("unix://{}", socket.display()), &image);
    let (id, paused) = (container(&daemon), container(&daemon));
    let _ = daemon.hostel(&["sandbox", "pause", &paused]).success();
    daemon.kill();
    is_refusing.store(true, Ordering::Release);
    daemon.restart();
    is_told(&daemon);
    assert!(refusal(&daemon, &[])["message"].to_string().contains("no engine behind this proxy"));
    assert_eq!(
        (&get(&daemon, &id)["state"], &get(&daemon, &paused)["state"]),
        (&"ready".into(), &"paused".into())
    );
    assert_eq!(daemon.shell(&id, "echo through the guest"), "through the guest");
    is_refusing.store(false, Ordering::Release);
    is_back(&daemon);
    let _ = daemon.hostel(&["sandbox", "resume", &paused]).success();
    for id in [&id, &paused] {
        assert_eq!(daemon.shell(id, "echo still here"), "still here");
    }
    daemon.finish();
}
