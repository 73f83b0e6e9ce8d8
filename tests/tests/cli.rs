//! `hostel` as people use it, against a real daemon and real jails.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{TestDaemon, eventually, leftovers, signal};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::Stdio;

#[test]
fn run_ends_as_its_command_ends_and_leaves_nothing() {
    let mut daemon = TestDaemon::start();
    let hello = daemon.hostel(&[
        "run",
        "--env",
        "WHO=world",
        "--",
        "sh",
        "-c",
        "echo hello $WHO; echo no >&2; exit 7",
    ]);
    assert_eq!((hello.code, hello.stdout.as_str()), (Some(7), "hello world\n"));
    assert!(hello.stderr.contains("no\n"), "{hello:?}");
    assert_eq!(daemon.hostel(&["run", "--", "true"]).code, Some(0));
    assert_eq!(daemon.hostel(&["run", "--", "there-is-no-such-program"]).code, Some(127));
    assert_eq!(daemon.hostel(&["run", "--timeout", "300ms", "--", "sleep", "60"]).code, Some(124));
    assert_eq!(daemon.hostel(&["run", "--", "sh", "-c", "kill -TERM $$"]).code, Some(143));
    assert_eq!(daemon.hostel(&["run", "--memory", "1", "--", "true"]).code, Some(125));
    assert_eq!(daemon.hostel(&["sandbox", "list", "-q"]).success(), "");
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}

#[test]
fn memory_has_an_end_and_it_is_told() {
    let daemon = TestDaemon::start();
    let outcome = daemon.hostel(&["run", "--memory", "64M", "--", "tail", "/dev/zero"]);
    if outcome.stderr.contains("memory_limit") {
        eprintln!("skipped: {}", outcome.stderr);
        return;
    }
    assert_eq!(outcome.code, Some(137), "{outcome:?}");
    assert!(outcome.stderr.contains("out of memory"), "{outcome:?}");
}

#[test]
fn files_go_in_and_out() {
    let daemon = TestDaemon::start();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("in");
    fs::write(&file, "content\n").unwrap();
    let spec = format!("{}:/workspace/given", file.display());
    assert_eq!(
        daemon.hostel(&["run", "--file", &spec, "--", "cat", "/workspace/given"]).success(),
        "content"
    );

    let id = daemon.hostel(&["sandbox", "create", "-q"]).success().to_owned();
    let tree = place.path().join("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("deep/er/file"), vec![7; 300_000]).unwrap();
    let _ = daemon.hostel(&["cp", tree.to_str().unwrap(), &format!("{id}:/workspace/tree")]).success();
    let size = daemon.hostel(&["exec", &id, "--", "stat", "-c", "%s", "/workspace/tree/deep/er/file"]);
    assert_eq!(size.success(), "300000");
    let back = place.path().join("back");
    let _ = daemon.hostel(&["cp", &format!("{id}:/workspace/tree"), back.to_str().unwrap()]).success();
    assert_eq!(fs::read(back.join("deep/er/file")).unwrap(), vec![7; 300_000]);
}

#[test]
fn the_content_of_a_directory_and_what_a_link_leads_to_come_out_whole() {
    let daemon = TestDaemon::start();
    let place = tempfile::tempdir().unwrap();
    let id = daemon.sandbox(&[]);
    let _ =
        daemon.shell(&id, "mkdir -p /tmp/d/sub; echo 1 > /tmp/d/a; echo 2 > /tmp/d/sub/b; ln -s d /tmp/link");
    for (source, target) in [("/tmp/d/.", "content"), ("/tmp/link", "link"), ("/tmp/d/sub/..", "up")] {
        let target = place.path().join(target);
        let _ = daemon.hostel(&["cp", &format!("{id}:{source}"), target.to_str().unwrap()]).success();
        assert!(target.symlink_metadata().unwrap().is_dir(), "{source}");
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "1\n", "{source}");
        assert_eq!(fs::read_to_string(target.join("sub/b")).unwrap(), "2\n", "{source}");
    }
    let into = place.path().to_str().unwrap();
    let _ = daemon.hostel(&["cp", &format!("{id}:/tmp/d/."), into]).success();
    assert!(place.path().join("sub/b").is_file());
    // The same the other way.
    let content = format!("{}/content/.", place.path().display());
    let _ = daemon.shell(&id, "mkdir /workspace/in");
    let _ = daemon.hostel(&["cp", &content, &format!("{id}:/workspace/in")]).success();
    assert_eq!(daemon.shell(&id, "cat /workspace/in/a /workspace/in/sub/b").trim_end(), "1\n2");
    assert!(!place.path().read_dir().unwrap().any(|entry| is_staging(&entry.unwrap())));
}

fn is_staging(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(".hostel-copy-")
}

#[test]
fn a_copy_that_is_told_to_end_leaves_nothing_half() {
    let daemon = TestDaemon::start();
    let place = tempfile::tempdir().unwrap();
    let id = daemon.sandbox(&[]);
    let _ = daemon.shell(&id, "mkdir /tmp/d; truncate -s 4G /tmp/d/big");
    let target = place.path().join("copy");
    let child = daemon.command(&["cp", &format!("{id}:/tmp/d"), target.to_str().unwrap()]).spawn().unwrap();
    eventually("it copies", || place.path().read_dir().unwrap().any(|entry| is_staging(&entry.unwrap())));
    signal(child.id(), Signal::TERM);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143));
    assert_eq!(place.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_sandbox_is_kept_where_somebody_is_told_of_it() {
    let daemon = TestDaemon::start();
    let failed = daemon.hostel(&["run", "--keep", "--", "there-is-no-such-program"]);
    let note = failed.failure(127).lines().find_map(|line| line.strip_prefix("hostel: kept sandbox "));
    let id = note.unwrap_or_else(|| panic!("{failed:?}"));
    let refused = daemon.hostel(&["run", "--keep", "--memory", "1", "--", "true"]);
    assert!(!refused.failure(125).contains("kept"), "{refused:?}");
    assert_eq!(daemon.hostel(&["sandbox", "list", "-q"]).success(), id);

    let other = daemon.sandbox(&[]);
    let removed = daemon.hostel(&["sandbox", "rm", id, "sb-nobody", &other]);
    assert_eq!((removed.code, removed.stdout), (Some(125), format!("{id}\n{other}\n")));
}

#[test]
fn what_is_wrong_is_said_however_long_its_name_and_whoever_reads_it() {
    let daemon = TestDaemon::start();
    assert_eq!(daemon.hostel(&["run", "--", &"x".repeat(50_000)]).code, Some(127));
    let wrong = daemon.hostel(&["--json", "run", "--memory", "lots", "--", "true"]);
    let error: Value = serde_json::from_str(wrong.failure(2)).unwrap();
    assert_eq!(error["error"]["reason"], "USAGE");
    assert!(
        daemon.hostel(&["run", "--memory", "lots", "--", "ls", "--json"]).failure(2).starts_with("error:")
    );
    let late = daemon.hostel(&["--json", "sandbox", "create", "--wait", "1ms", "--template", "host"]);
    if late.code != Some(0) {
        let error: Value = serde_json::from_str(late.failure(125)).unwrap();
        assert_eq!(error["error"]["reason"], "DEADLINE_EXCEEDED");
    }
}

#[test]
fn programs_read_json() {
    let daemon = TestDaemon::start();
    let json =
        |arguments: &[&str]| -> Value { serde_json::from_str(daemon.hostel(arguments).success()).unwrap() };
    let made = json(&["--json", "sandbox", "create", "--label", "job=7"]);
    let id = made["id"].as_str().unwrap();
    let _ = daemon.hostel(&["exec", "-d", id, "--", "sleep", "1000"]).success();
    let processes = json(&["--json", "ps", id]);
    let process = &processes["processes"][0];
    assert_eq!(process["command"], serde_json::json!(["sleep", "1000"]));
    assert!(process["id"].is_string());
    assert_eq!(json(&["--json", "sandbox", "list", "--label", "job=7"])["sandboxes"][0]["id"], id);
    let refused = daemon.hostel(&["--json", "sandbox", "get", "sb-nobody"]);
    assert_eq!(refused.code, Some(125));
    let error: Value = serde_json::from_str(refused.stderr.trim()).unwrap();
    assert_eq!(error["error"]["reason"], "NOT_FOUND");
}

#[test]
fn a_detached_process_is_attached_to_from_its_first_byte() {
    let daemon = TestDaemon::start();
    let id = daemon.hostel(&["sandbox", "create", "-q"]).success().to_owned();
    let process = daemon.hostel(&["exec", "-d", &id, "--", "sh", "-c", "echo first; cat; echo last"]);
    let process = process.success().to_owned();
    assert_eq!(daemon.hostel(&["attach", &id, &process]).success(), "first\nlast");
}

#[test]
fn standard_input_has_an_end() {
    let daemon = TestDaemon::start();
    let mut command = daemon.command(&["run", "-i", "--", "sh", "-c", "wc -c; echo done"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        input.write_all(&chunk).unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\ndone\n", 8 << 20));
}

#[test]
fn standard_input_that_cannot_be_read_has_no_end() {
    let daemon = TestDaemon::start();
    let mut command = daemon.command(&["run", "-i", "--", "sh", "-c", "cat; echo complete"]);
    let output = command.stdin(fs::File::open("/").unwrap()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(125), Vec::new()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read stdin"));

    // Whoever shares a descriptor with us may have made it not wait.
    let (input, feed) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    let child = daemon.command(&["run", "-i", "--", "cat"]).stdin(input).spawn().unwrap();
    eventually("it runs", || daemon.hostel(&["sandbox", "list", "-q"]).success() != "");
    fs::File::from(feed).write_all(b"late").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"late");
}

#[test]
fn without_a_daemon_it_says_what_to_do() {
    let mut daemon = TestDaemon::start();
    daemon.stop();
    let outcome = daemon.hostel(&["run", "--", "true"]);
    assert_eq!(outcome.code, Some(125));
    assert!(outcome.stderr.contains("hostel up"), "{outcome:?}");
}
