//! Templates as operators declare them and people build them, with real jails, the real claude CLI and real Docker.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Outcome, TestDaemon, eventually, executable, leftovers, package, root, skip};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::Duration;

/// A daemon that was started with these declarations.
fn declared(files: &[(&str, &str)]) -> TestDaemon {
    let mut daemon = TestDaemon::start();
    assert!(daemon.stop().success());
    for (name, text) in files {
        let path = daemon.templates().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    daemon.restart();
    daemon
}

fn error(stderr: &str) -> Value {
    let last = stderr.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(last).unwrap_or_else(|_| panic!("no JSON: {stderr}"))["error"].clone()
}

fn skipped(what: &str, why: &str) {
    skip(&format!("{what}: {why}"));
}

fn is_there(daemon: &TestDaemon, template: &str) -> bool {
    daemon.hostel(&["template", "list", "-q"]).success().lines().any(|name| name == template)
}

/// Whether a failure only says that this host cannot snapshot.
fn cannot_snapshot(stderr: &str) -> bool {
    stderr.contains("CAPABILITY_MISSING") || stderr.contains("this needs snapshot")
}

#[test]
fn a_declared_template_prepares_its_sandboxes_before_they_are_ready() {
    let daemon = declared(&[(
        "web.toml",
        r#"
base = "host"
[env]
WHO = "declared"
[resources]
pids = 77
[labels]
kind = "web"
[[start]]
command = "echo first > /workspace/log"
[[start]]
command = "echo $WHO >> /workspace/log; (sleep 0.3; echo up > /workspace/up; exec sleep 1000) > /dev/null 2>&1 &"
[probe]
command = ["grep", "-q", "up", "/workspace/up"]
interval = "20ms"
timeout = "20s"
"#,
    )]);
    let output = daemon.hostel(&["run", "--template", "web", "--", "cat", "log", "up"]);
    assert_eq!(output.success(), "first\ndeclared\nup");
    let shown: Value =
        serde_json::from_str(daemon.hostel(&["--json", "template", "get", "web"]).success()).unwrap();
    assert_eq!(shown["origin"], "declared");
    assert_eq!((&shown["limits"]["pids"], &shown["labels"]["kind"]), (&77.into(), &"web".into()));
    assert!(shown["declared_in"].as_str().unwrap().ends_with("web.toml"));
    let refused = daemon.hostel(&["--json", "template", "rm", "web"]);
    assert_eq!(error(&refused.stderr)["reason"], "TEMPLATE_DECLARED");

    // Processes are not copied, so a fork has them started again.
    let id = daemon.hostel(&["sandbox", "create", "-q", "--template", "web"]).success().to_owned();
    let fork = daemon.hostel(&["sandbox", "fork", "-q", &id]);
    if fork.code == Some(0) {
        let ps = daemon.hostel(&["exec", fork.success(), "--", "sh", "-c", "cat /proc/[0-9]*/cmdline"]);
        assert!(ps.success().contains("sleep"), "{ps:?}");
    } else {
        skipped("forks of declared templates", &fork.stderr);
    }
}

#[test]
fn a_sandbox_whose_start_fails_is_not_there() {
    let mut daemon = declared(&[
        (
            "failing.toml",
            "base = \"host\"\n[[start]]\ncommand = \"true\"\n[[start]]\ncommand = \"echo no luck >&2; exit 7\"",
        ),
        ("missing.toml", "base = \"host\"\n[[start]]\ncommand = [\"no-such-program\"]"),
        ("slow.toml", "base = \"host\"\n[[start]]\ncommand = [\"sleep\", \"1000\"]\ntimeout = \"100ms\""),
        (
            "never.toml",
            "base = \"failing\"\n[[start]]\ncommand = \"true\"\n[probe]\ncommand = \"echo not yet; exit 3\"\ntimeout = \"300ms\"",
        ),
    ]);
    for (template, reason, text, code) in [
        ("failing", "START_COMMAND_FAILED", "no luck", Some("7")),
        ("missing", "START_COMMAND_FAILED", "no-such-program", None),
        ("slow", "START_COMMAND_FAILED", "did not end in time", Some("124")),
        ("never", "PROBE_FAILED", "not yet", Some("3")),
    ] {
        let refused = daemon.hostel(&["--json", "sandbox", "create", "--template", template]);
        assert_eq!(refused.code, Some(125), "{refused:?}");
        let error = error(&refused.stderr);
        assert_eq!(error["reason"], reason, "{refused:?}");
        assert!(error["message"].as_str().unwrap().contains(text), "{refused:?}");
        assert_eq!(error["metadata"]["exit_code"].as_str(), code, "{refused:?}");
    }
    assert_eq!(daemon.hostel(&["sandbox", "list", "--all", "-q"]).stdout, "");
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}

#[test]
fn a_bad_file_is_told_and_keeps_nobody_from_working() {
    let daemon = declared(&[
        ("good.toml", "base = \"host\""),
        ("typo.toml", "base = \"host\"\n\n[resources]\nmemroy = \"1G\""),
        ("lost.toml", "base = \"nothing-of-that-name\""),
    ]);
    assert_eq!(daemon.hostel(&["run", "--template", "good", "--", "echo", "fine"]).success(), "fine");
    let doctor = daemon.hostel(&["doctor"]);
    let told = "typo.toml:4: resources.memroy: there is no such key; did you mean \"memory\"?";
    assert!(doctor.stdout.contains(told) && doctor.stdout.contains("nothing-of-that-name"), "{doctor:?}");
    assert!(daemon.log().contains("typo.toml:4"), "{}", daemon.log());
    let check = Command::new(executable("hosteld"))
        .arg("--check")
        .env("HOSTEL_TEMPLATES_DIR", daemon.templates())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&check.stderr).contains(told), "{check:?}");
}

#[test]
fn a_declared_root_file_system_is_imported_once_and_again_when_it_changes() {
    let mut daemon = declared(&[("files.toml", "rootfs = \"files\"\nbase = \"host\"")]);
    // A directory that was not there at the first start.
    assert!(daemon.hostel(&["doctor"]).stdout.contains("files.toml: rootfs"));
    assert!(daemon.stop().success());
    let file = daemon.templates().join("files/opt/thing");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "one").unwrap();
    let cat = ["run", "--template", "files", "--", "cat", "/opt/thing"];
    let holders = ["template", "list", "-q", "-l", "hostel.files-of=files"];
    daemon.restart();
    eventually("the files are imported", || daemon.hostel(&cat).stdout == "one");
    let first = daemon.hostel(&holders).success().to_owned();
    assert!(daemon.stop().success());
    daemon.restart();
    assert_eq!(daemon.hostel(&cat).success(), "one", "it is there at once");
    assert!(daemon.stop().success());
    fs::write(&file, "two").unwrap();
    fs::write(daemon.templates().join("files/touched"), "").unwrap();
    daemon.restart();
    eventually("the files are imported again", || daemon.hostel(&cat).stdout == "two");
    eventually("the old ones are gone", || {
        let now = daemon.hostel(&holders).stdout;
        now.lines().count() == 1 && now.trim() != first
    });
}

#[test]
fn a_build_tells_how_it_goes_and_keeps_nothing_when_it_fails() {
    let daemon = TestDaemon::start();
    let steps = ["--run", "mkdir /workspace/made; echo one", "--run", "echo two >&2"];
    let build = [["template", "build", "tool", "--label", "a=b"].as_slice(), &steps].concat();
    let built = daemon.hostel(&build);
    if cannot_snapshot(&built.stderr) {
        return skipped("builds", &built.stderr);
    }
    assert_eq!(built.success(), "tool");
    for told in ["[1/2]", "one\n", "[2/2]", "two\n"] {
        assert!(built.stderr.contains(told), "{built:?}");
    }
    assert_eq!(daemon.hostel(&["run", "--template", "tool", "--", "ls", "/workspace"]).success(), "made");
    let shown: Value =
        serde_json::from_str(daemon.hostel(&["--json", "template", "get", "tool"]).success()).unwrap();
    assert_eq!((&shown["origin"], &shown["base_template"]), (&"build".into(), &"host".into()));
    let again = daemon.hostel(&[&["--json"], build.as_slice()].concat());
    assert_eq!(error(&again.stderr)["reason"], "ALREADY_EXISTS");

    let fails = [
        "--json",
        "template",
        "build",
        "bad",
        "--base",
        "tool",
        "--run",
        "true",
        "--run",
        "echo broke; exit 3",
    ];
    let failed = daemon.hostel(&fails);
    assert_eq!(failed.code, Some(125), "{failed:?}");
    let error = error(&failed.stderr);
    assert_eq!(error["reason"], "BUILD_FAILED");
    assert_eq!((&error["metadata"]["step"], &error["metadata"]["exit_code"]), (&"1".into(), &"3".into()));
    assert!(error["message"].as_str().unwrap().contains("broke"));
    assert!(failed.stdout.contains("\"text\":\"broke\\n\""), "{failed:?}");
    assert!(!is_there(&daemon, "bad"));
    assert_eq!(daemon.hostel(&["template", "rm", "tool"]).success(), "tool");
}

#[test]
fn a_build_goes_on_without_its_caller_and_is_followed_again() {
    let mut daemon = TestDaemon::start();
    let wait = "echo waiting; echo x >> /workspace/runs; sleep 2; echo done";
    let build = ["--json", "template", "build", "long", "--request-id", "job-1", "--run", wait];
    let mut child = daemon.command(&build).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let waiting = lines.any(|line| line.unwrap().contains("waiting"));
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    if cannot_snapshot(&String::from_utf8_lossy(&output.stderr)) {
        return skipped("following builds", "this host cannot snapshot");
    }
    assert!(waiting, "{output:?}");
    let followed = daemon.hostel(&build);
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(followed.stdout.contains("waiting") && followed.stdout.contains("done"), "{followed:?}");
    let runs = daemon.hostel(&["run", "--template", "long", "--", "cat", "/workspace/runs"]);
    assert_eq!(runs.success(), "x", "it ran once");
    assert!(daemon.stop().success());
    daemon.restart();
    let after = daemon.hostel(&build);
    assert_eq!(after.code, Some(0), "the same request after a restart: {after:?}");
    let other = ["--json", "template", "build", "long", "--request-id", "job-1", "--run", "true"];
    assert_eq!(error(&daemon.hostel(&other).stderr)["reason"], "request_id_reused");
}

#[test]
fn a_build_that_the_daemon_dies_over_leaves_nothing() {
    let mut daemon = TestDaemon::start();
    let build =
        ["--json", "template", "build", "dying", "--request-id", "job-2", "--run", "echo begun; sleep 1000"];
    let mut child = daemon.command(&build).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines.any(|line| line.unwrap().contains("begun"));
    daemon.kill();
    let output = child.wait_with_output().unwrap();
    daemon.restart();
    if cannot_snapshot(&String::from_utf8_lossy(&output.stderr)) {
        return skipped("dying over builds", "this host cannot snapshot");
    }
    assert!(begun, "{output:?}");
    assert!(!is_there(&daemon, "dying"));
    assert_eq!(daemon.hostel(&["sandbox", "list", "-q"]).success(), "");
    let quick = ["template", "build", "dying", "--run", "true"];
    assert_eq!(daemon.hostel(&quick).success(), "dying");
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}

#[test]
fn the_real_claude_runs_in_a_jail_without_docker() {
    let package = match package() {
        Ok(package) => package,
        Err(why) => return skipped("the real claude in a jail", &why),
    };
    let daemon = TestDaemon::start();
    let wrong = tempfile::NamedTempFile::new().unwrap();
    fs::write(wrong.path(), "something else").unwrap();
    let refused =
        daemon.hostel(&["--json", "template", "install-cli", "--archive", wrong.path().to_str().unwrap()]);
    assert_eq!(error(&refused.stderr)["reason"], "CHECKSUM", "{refused:?}");
    assert!(!is_there(&daemon, "claude"));

    let install = ["template", "install-cli", "--archive", package.to_str().unwrap()];
    assert_eq!(daemon.hostel(&install).success(), "claude");
    let version = daemon.hostel(&["run", "--template", "claude", "--", "claude", "--version"]);
    assert!(version.success().contains("(Claude Code)"), "{version:?}");
    let again = daemon.hostel(&install);
    assert!(again.success() == "claude" && again.stderr.contains("already"), "{again:?}");
    assert_eq!(daemon.hostel(&["template", "rm", "claude"]).success(), "claude");
}

#[test]
fn one_recipe_serves_containers_and_jails() {
    let docker = |arguments: &[&str]| Command::new("docker").args(arguments).output();
    let engine = docker(&["version", "--format", "{{.Server.Version}}"]);
    if !engine.is_ok_and(|output| output.status.success()) {
        return skipped("images", "no Docker engine answers; scripts/with-docker.sh starts one");
    }
    let daemon = TestDaemon::start();
    let recipes = root().join("images");
    let build = |backend| {
        let recipes = ["--recipes", recipes.to_str().unwrap(), "--backend", backend];
        // It fetches packages the first time.
        let command = daemon.command(&[["template", "build", "agent-min"].as_slice(), &recipes].concat());
        Outcome::within(Duration::from_secs(300), command)
    };
    assert_eq!(build("docker").success(), "agent-min");
    let script = "claude --version; id -un; pwd";
    let run = ["run", "--rm", "--network", "none", "hostel-agent-min", "sh", "-c", script];
    let output = docker(&run).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("(Claude Code)") && text.ends_with("agent\n/workspace\n"), "{output:?}");

    let backends = daemon.hostel(&["--json", "node", "info"]);
    if backends.stdout.contains("\"docker\"") {
        let run = ["run", "--backend", "docker", "--template", "agent-min", "--", "sh", "-c", script];
        let container = daemon.hostel(&run);
        assert!(container.success().contains("(Claude Code)\nagent\n/workspace"), "{container:?}");
        assert_eq!(daemon.hostel(&["template", "rm", "agent-min"]).success(), "agent-min");
    } else {
        skipped("a sandbox of the image", "this daemon has no backend docker");
    }

    assert_eq!(build("jail").success(), "agent-min");
    let inside = ["sh", "-c", "claude --version; id -un; pwd; rg --version | head -1"];
    let jail = daemon.hostel(&[["run", "--template", "agent-min", "--"].as_slice(), &inside].concat());
    let text = jail.success();
    assert!(text.contains("(Claude Code)\nagent\n/workspace\nripgrep"), "{jail:?}");
    let again = build("jail");
    assert!(again.success() == "agent-min" && again.stderr.contains("already"), "{again:?}");
}

#[test]
fn a_recipe_built_again_makes_the_same_image() {
    let docker = |arguments: &[&str]| Command::new("docker").args(arguments).output();
    if !docker(&["version"]).is_ok_and(|output| output.status.success()) {
        return skipped("images", "no Docker engine answers; scripts/with-docker.sh starts one");
    }
    let build = || {
        let mut command = Command::new(root().join("images/build.sh"));
        command.arg("agent-min").env("NO_CACHE", "1");
        let _ = Outcome::within(Duration::from_secs(600), command).success();
        let format = ["image", "inspect", "--format", "{{.Id}}", "hostel-agent-min"];
        String::from_utf8(docker(&format).unwrap().stdout).unwrap()
    };
    let first = build();
    assert!(first.starts_with("sha256:"), "{first}");
    assert_eq!(build(), first, "the id of an image");
}

/// A recipe of one file from a package, and programs that stand for docker and npm. `tar` fails in the midst where
/// `SPOIL` is set.
const STAND_INS: &str = r#"
set -e
mkdir -p package images/r bin
head -c 100000 /dev/urandom >package/claude
/bin/tar -czf package.tgz package
sum=$(sha512sum <package.tgz | cut -c1-128)
echo "claude 1.0 linux-x64 some/package sha512-$(printf "$(sed 's/../\\x&/g' <<<"$sum")" | base64 -w0)" >images/pins
printf 'FROM scratch\nCOPY claude /claude\n' >images/r/Dockerfile
printf '#!/bin/sh\ncase "$*" in *Arch*) echo amd64 ;; build*) exit 9 ;; info*) date ;; esac\n' >bin/docker
printf '#!/bin/sh\ncp "%s/package.tgz" . && echo package.tgz\n' "$PWD" >bin/npm
printf '#!/bin/sh\n/bin/tar "$@" && [ -z "$SPOIL" ] || { truncate -s 5 "$4/package/claude"; exit 2; }\n' >bin/tar
chmod +x bin/*
"#;

#[test]
fn what_was_not_unpacked_wholly_is_in_no_image() {
    let place = tempfile::tempdir().unwrap();
    let mut shell = Command::new("bash");
    assert!(shell.args(["-c", STAND_INS]).current_dir(place.path()).status().unwrap().success());
    fs::copy(root().join("images/build.sh"), place.path().join("images/build.sh")).unwrap();
    let cache = place.path().join("cache");
    let path = format!("{}/bin:{}", place.path().display(), std::env::var("PATH").unwrap());
    let build = |spoil: &str| {
        let mut command = Command::new(place.path().join("images/build.sh"));
        command.arg("r").env("PATH", &path).env("HOSTEL_CACHE", &cache).env("SPOIL", spoil);
        command.env("BASE", "some-base");
        Outcome::of(command)
    };
    let spoilt = build("yes");
    assert!(spoilt.failure(1).contains("cannot unpack some/package@1.0"), "{spoilt:?}");
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "something is kept");
    let whole = build("");
    assert!(whole.failure(1).contains("building hostel-r:latest failed"), "{whole:?}");
    let kept: Vec<_> = fs::read_dir(&cache).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        fs::read(kept[0].join("claude")).unwrap(),
        fs::read(place.path().join("package/claude")).unwrap()
    );
}

#[test]
fn without_docker_a_recipe_says_what_to_do() {
    let daemon = TestDaemon::start();
    let recipes = root().join("images");
    let mut command = daemon.command(&["--json", "template", "build", "agent-min", "--recipes"]);
    let output = command.arg(recipes).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").output().unwrap();
    let error = error(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(error["reason"], "DOCKER_UNUSABLE");
    assert!(error["message"].as_str().unwrap().contains("install-cli"));
}
