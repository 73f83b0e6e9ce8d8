//! The audit log is a chain, and what cannot be recorded does not happen.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_egress::audit::{AuditLog, AuditSettings, Flush, OnFailure, verify};
use hostel_egress::{Decision, Error, Kind, Protocol, Recorder};
use hostel_sandbox::SandboxId;
use std::path::Path;
use std::time::Duration;

fn decision(host: &str) -> Decision {
    Decision {
        time: jiff::Timestamp::now(),
        sandbox: SandboxId::generate(),
        kind: Kind::Connect,
        allowed: true,
        host: Some(host.to_owned()),
        address: None,
        port: Some(443),
        protocol: Protocol::Tls,
        method: None,
        path: None,
        secret: None,
        rule: Some("allow *.example.com \"quoted\"\n".to_owned()),
        reason: "rule".to_owned(),
        count: None,
    }
}

async fn write(path: &Path, count: usize) {
    let log = AuditLog::open(AuditSettings::new(path)).unwrap();
    for n in 0..count {
        log.record(&decision(&format!("{n}.example.com"))).await.unwrap();
    }
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    write(&path, 3).await;
    write(&path, 2).await;
    // A line that was being written when the power went away.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"sequence\":6,\"prev");
    std::fs::write(&path, bytes).unwrap();
    // Or that is being written: nobody has been told of it, and nothing is broken.
    assert_eq!(verify(&path).unwrap().records, 5);
    write(&path, 1).await;
    let verified = verify(&path).unwrap();
    assert_eq!((verified.records, verified.first, verified.last), (6, 1, 6));
    assert!(
        std::fs::read_to_string(&path).unwrap().contains(&format!("\"hash\":\"{}\"", verified.last_hash))
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_was_changed_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    write(&path, 6).await;
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let broken = |lines: &[&str]| {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        verify(&path).unwrap_err().to_string()
    };
    let changed = lines[2].replace("2.example.com", "evil.example.net");
    assert!(broken(&[lines[0], lines[1], &changed, lines[3]]).contains("line 3: its hash"));
    assert!(broken(&[lines[0], lines[2], lines[3]]).contains("line 2: it does not follow"));
    assert!(broken(&[lines[0], lines[2], lines[1]]).contains("line 2: it does not follow"));
    assert!(broken(&[lines[0], lines[1], lines[1]]).contains("line 3: it does not follow"));
    let spaced = lines[1].replace("\"sequence\":2", "\"sequence\":02");
    assert!(broken(&[lines[0], &spaced]).contains("line 2: not a line"));
    // A daemon does not go on after a last line that was changed.
    broken(&[lines[0], &changed]);
    assert!(AuditLog::open(AuditSettings::new(&path)).is_err());
}

#[tokio::test]
async fn files_turn_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let settings = AuditSettings { rotate_bytes: 4096, ..AuditSettings::new(&path) };
    for _ in 0..2 {
        let log = AuditLog::open(settings.clone()).unwrap();
        for n in 0..40 {
            log.record(&decision(&format!("{n}.example.com"))).await.unwrap();
        }
    }
    let verified = verify(&path).unwrap();
    assert_eq!((verified.records, verified.last), (80, 80));
    assert!(verified.files > 3);
    // Without its oldest files a log is still whole; without one between it is not.
    let mut full: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    full.retain(|file| *file != path);
    full.sort();
    std::fs::remove_file(&full[0]).unwrap();
    assert!(verify(&path).unwrap().first > 1);
    // Nor without its first lines: where a file begins, its name says.
    let whole = std::fs::read_to_string(&full[1]).unwrap();
    std::fs::write(&full[1], whole.split_once('\n').unwrap().1).unwrap();
    assert!(verify(&path).unwrap_err().to_string().contains("line 1: the file is named after another"));
    std::fs::write(&full[1], whole).unwrap();
    let before = std::fs::read_to_string(&full[1]).unwrap().lines().count() as u64;
    std::fs::remove_file(&full[2]).unwrap();
    let broken = verify(&path).unwrap_err();
    assert!(broken.to_string().contains("line 1: it does not follow"));
    assert!(matches!(broken, Error::AuditBroken { before: whole, .. } if whole == before), "{broken}");
}

#[tokio::test]
async fn a_log_is_whole_while_it_is_written_and_turned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let settings = AuditSettings { rotate_bytes: 4096, keep: 3, ..AuditSettings::new(&path) };
    let log = AuditLog::open(settings).unwrap();
    log.record(&decision("first.example.com")).await.unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let verifying = scope.spawn(|| {
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let verified = verify(&path).unwrap();
                // All that was listed may be gone before it is read, so fast are these files turned.
                assert!(verified.records == 0 || verified.last >= last, "{verified:?}");
                last = last.max(verified.last);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let writing = scope.spawn(move || {
            runtime.block_on(async {
                for n in 0..2000 {
                    log.record(&decision(&format!("{n}.example.com"))).await.unwrap();
                }
            });
        });
        let written = writing.join();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        written.unwrap();
        verifying.join().unwrap();
    });
}

#[tokio::test]
async fn an_unwritable_log_refuses_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let (inner, away) = (directory.path().join("log"), directory.path().join("away"));
    for (on_failure, goes_on) in [(OnFailure::Refuse, false), (OnFailure::Continue, true)] {
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("audit.jsonl");
        let log = AuditLog::open(AuditSettings { on_failure, ..AuditSettings::new(&path) }).unwrap();
        log.record(&decision("a.example.com")).await.unwrap();
        std::fs::rename(&inner, &away).unwrap();
        assert_eq!(log.record(&decision("b.example.com")).await.is_ok(), goes_on);
        // When it can be written again, the chain is whole.
        std::fs::rename(&away, &inner).unwrap();
        log.record(&decision("c.example.com")).await.unwrap();
        assert_eq!(verify(&path).unwrap().records, 2);
        std::fs::remove_dir_all(&inner).unwrap();
    }
    std::fs::create_dir(&inner).unwrap();
    let path = inner.join("audit.jsonl");
    std::fs::write(&path, "").unwrap();
    let error = AuditLog::open(AuditSettings::new(&path)).unwrap_err().to_string();
    assert!(error.contains("mode"), "{error}");
}

#[tokio::test]
async fn many_at_once_are_all_recorded() {
    for flush in [Flush::Each, Flush::Within(Duration::from_millis(1))] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let settings = AuditSettings { flush, ..AuditSettings::new(&path) };
        let log = std::sync::Arc::new(AuditLog::open(settings).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..500 {
            let log = std::sync::Arc::clone(&log);
            tasks.spawn(async move { log.record(&decision(&format!("{n}.example.com"))).await.unwrap() });
        }
        tasks.join_all().await;
        drop(log);
        assert_eq!(verify(&path).unwrap().records, 500, "{flush:?}");
    }
}

#[tokio::test]
async fn what_was_recorded_is_in_the_file_however_late_it_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let flush = Flush::Within(Duration::from_secs(3600));
    let log = AuditLog::open(AuditSettings { flush, ..AuditSettings::new(&path) }).unwrap();
    for n in 1..=3 {
        log.record(&decision("a.example.com")).await.unwrap();
        // What a reader finds now is what a daemon that is killed now leaves.
        assert_eq!(verify(&path).unwrap().records, n);
    }
    // The end waits for the disk, and not for an hour.
    drop(log);
}
