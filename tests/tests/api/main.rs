//! The API as its enemies use it: whatever they send, they get a clear answer, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fields;
mod files;
mod repeat;
mod wire;

use hostel_proto::v1;
use hostel_tests::{Api, TestDaemon, refusal};
use tonic::{Code, Status};

/// Whatever an id must not be.
fn wrong_ids() -> Vec<String> {
    let mut ids: Vec<String> =
        ["", ".", "..", "../x", "a/b", "/", "a\0b", "a b", "A", "-a", "a-", "ä", "a\u{202e}b"]
            .map(str::to_owned)
            .into();
    ids.push("a".repeat(64));
    ids.push("x".repeat(10_000));
    ids
}

/// Expects INVALID_ARGUMENT that names this field.
#[track_caller]
fn blames<T: std::fmt::Debug>(field: &str, what: &str, answer: Result<T, Status>) {
    let status = match answer {
        Ok(answer) => panic!("{what:.80?} was taken: {answer:?}"),
        Err(status) => status,
    };
    let refused = refusal(&status);
    assert_eq!(
        (refused.code, refused.reason.as_str(), refused.field.as_str()),
        (Code::InvalidArgument, "INVALID_ARGUMENT", field),
        "{what:.80?}: {status:?}"
    );
}

/// A refusal with its code and reason.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let refused = refusal(&answer.unwrap_err());
    (refused.code, refused.reason)
}

/// A daemon, a connection, and two sandboxes: one to attack and one that must not notice.
struct Stage {
    daemon: TestDaemon,
    api: Api,
    victim: String,
    witness: String,
}

impl Stage {
    async fn set() -> Self {
        let daemon = TestDaemon::start();
        let api = Api::connect(&daemon).await;
        let (victim, witness) = (daemon.sandbox(&[]), daemon.sandbox(&[]));
        let _ = daemon.shell(&witness, "echo here > /workspace/file");
        let counting = "while :; do date >> /workspace/dates; sleep 0.01; done";
        let _ = daemon.hostel(&["exec", "-d", &witness, "--", "sh", "-c", counting]).success();
        Self { daemon, api, victim, witness }
    }

    /// Looks that everything is as it was, and ends.
    fn clear(mut self) {
        assert_eq!(self.daemon.shell(&self.witness, "cat /workspace/file"), "here");
        assert_eq!(self.daemon.hostel(&["ps", &self.witness]).success().matches("running").count(), 1);
        let lines = || self.daemon.shell(&self.witness, "wc -l < /workspace/dates").parse::<u64>().unwrap();
        let before = lines();
        hostel_tests::eventually("the witness goes on", || lines() > before);
        let _ = self.daemon.hostel(&["run", "--", "true"]).success();
        let log = self.daemon.log();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        self.daemon.finish();
    }

    fn process(&self, command: &[&str]) -> v1::StartProcessRequest {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        let spec = v1::ProcessSpec { command, ..Default::default() };
        v1::StartProcessRequest { sandbox_id: self.victim.clone(), spec: Some(spec), ..Default::default() }
    }
}
