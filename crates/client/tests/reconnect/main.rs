//! A session against a daemon that keeps dying: nothing may be lost and nothing may come twice.
#![expect(clippy::unwrap_used, reason = "tests")]

mod away;
mod fake;
mod session;

use fake::{Behaviour, FakeDaemon, pattern};
use hostel_client::domain::process::ProcessSpec;
use hostel_client::domain::{ProcessId, SandboxId};
use hostel_client::{Attach, Client, Error, Event, Exec, ReconnectPolicy, Stdin};
use session::{collect, write_all};
use std::time::Duration;

fn sandbox() -> SandboxId {
    SandboxId::parse("sb-test").unwrap()
}

fn exec() -> Exec {
    let spec = ProcessSpec { argv: vec!["talk".to_owned()], stdin: true, ..Default::default() };
    Exec::new(sandbox(), spec)
}

#[tokio::test]
async fn a_daemon_that_keeps_dying_loses_and_repeats_nothing() {
    dying(false).await;
}

#[tokio::test]
async fn a_daemon_that_forgets_how_far_stdin_was_accepted_repeats_nothing_either() {
    dying(true).await;
}

async fn dying(forgets_stdin: bool) {
    let daemon = FakeDaemon::start(Behaviour {
        stdout: 3 << 20,
        stderr: 200_000,
        dies_after: Some(200_000),
        dies_before_opening: true,
        forgets_stdin,
        ..Default::default()
    });
    let client = Client::connect(daemon.address()).await.unwrap();
    let session = client.exec(exec()).await.unwrap();
    let stdin = pattern(3, 0, 2 << 20);
    let (result, written) = tokio::join!(collect(session.output), write_all(session.input, &stdin));
    written.unwrap();
    let (stdout, stderr, code) = result.unwrap();
    assert!(
        stdout == pattern(1, 0, 3 << 20) && stderr == pattern(2, 0, 200_000),
        "other output than was written"
    );
    assert_eq!(code, 7);
    let seen = daemon.seen();
    assert!(seen.stdin == stdin, "stdin arrived otherwise than it was written");
    assert_eq!(seen.processes, 1, "a repeated exec must not start a second process");
    assert!(seen.lives >= 10, "only {} deaths", seen.lives);
    assert!(seen.acknowledged > 2 << 20, "{} bytes acknowledged", seen.acknowledged);
}

#[tokio::test]
async fn a_slow_reader_holds_the_process_back_and_still_gets_everything() {
    let daemon = FakeDaemon::start(Behaviour { stdout: 64 << 20, closes_stdin: true, ..Default::default() });
    let client = Client::connect(daemon.address()).await.unwrap();
    let session = client.exec(exec()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = daemon.seen().sent;
    assert!(sent < 20 << 20, "{sent} bytes sent to somebody who reads nothing");
    assert_eq!(collect(session.output).await.unwrap().0.len(), 64 << 20);
}

#[tokio::test]
async fn a_daemon_that_stays_away_is_given_up_on_in_time() {
    let daemon = FakeDaemon::start(Behaviour { stdout: 1000, ..Default::default() });
    let client = Client::connect(daemon.address()).await.unwrap();
    let mut exec = exec();
    exec.reconnect = ReconnectPolicy { total: Duration::from_millis(300), ..Default::default() };
    let mut session = client.exec(exec).await.unwrap();
    assert!(matches!(session.output.next().await, Some(Ok(Event::Output { .. }))));
    daemon.stop();
    let error = tokio::time::timeout(Duration::from_secs(5), session.output.next()).await.unwrap();
    assert!(matches!(error, Some(Err(Error::GaveUp { .. }))), "{error:?}");
    assert!(matches!(session.input.write("late").await, Err(Error::SessionClosed)));
}

#[tokio::test]
async fn an_attachment_reads_from_where_it_was_asked_to() {
    let daemon = FakeDaemon::start(Behaviour { stdout: 100_000, closes_stdin: true, ..Default::default() });
    let client = Client::connect(daemon.address()).await.unwrap();
    let first = client.exec(exec()).await.unwrap();
    let process = first.process.id.clone();
    collect(first.output).await.unwrap();
    let attach = Attach { from: Some((99_000, 0)), ..Attach::new(sandbox(), process) };
    let mut output = client.attach(attach).await.unwrap().output;
    let Some(Ok(Event::Output { offset, data, .. })) = output.next().await else { panic!("no output") };
    assert!(offset == 99_000 && data == pattern(1, 99_000, 1000));
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let daemon = FakeDaemon::start(Behaviour::default());
    let client = Client::connect(daemon.address()).await.unwrap();
    let mut attach = Attach::new(sandbox(), ProcessId::parse("p-none").unwrap());
    attach.stdin = Stdin::Write;
    let error = client.attach(attach).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!((error.reason(), error.metadata().unwrap()["kind"].as_str()), ("NOT_FOUND", "process"));
}
