//! An ordinary user's daemon: the same, weaker, and saying so.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Setup, TestDaemon, skip};
use serde_json::Value;
use std::process::Command;

/// A user that no account has.
const USER: u32 = 61_234;

/// The daemon of an ordinary user: another one's where we are root. `None` where this host gives them no namespaces.
fn start() -> Option<TestDaemon> {
    let root = rustix::process::geteuid().is_root();
    let mut unshare = if root { Command::new("setpriv") } else { Command::new("unshare") };
    if root {
        unshare.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "unshare"]);
    }
    let allowed = unshare.args(["--user", "--map-root-user", "--mount", "true"]).current_dir("/").status();
    if !allowed.is_ok_and(|status| status.success()) {
        skip("this host forbids user namespaces to ordinary users");
        return None;
    }
    let mut daemon = TestDaemon::prepare(Setup { user: root.then_some(USER), ..Setup::default() });
    daemon.restart();
    Some(daemon)
}

#[test]
fn commands_and_files_work_and_what_is_weaker_is_said() {
    let Some(mut daemon) = start() else { return };
    let outcome =
        daemon.hostel(&["run", "-e", "A=b", "--", "sh", "-c", "echo $A $(id -u) $$; echo no >&2; exit 9"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(9), "b 0 2\n"), "{outcome:?}");
    assert_eq!(daemon.hostel(&["run", "--timeout", "300ms", "--", "sleep", "60"]).code, Some(124));

    let id = daemon.sandbox(&[]);
    let source = daemon.home().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), vec![9; 300_000]).unwrap();
    std::os::unix::fs::chown(&source, Some(USER), Some(USER)).unwrap_or_default();
    let _ = daemon.hostel(&["cp", source.to_str().unwrap(), &format!("{id}:/workspace/tree")]).success();
    assert_eq!(daemon.shell(&id, "wc -c < /workspace/tree/file"), "300000");
    let back = daemon.home().join("back");
    let _ = daemon.hostel(&["cp", &format!("{id}:/workspace/tree/file"), back.to_str().unwrap()]).success();
    assert_eq!(std::fs::read(back).unwrap(), vec![9; 300_000]);
    // The tree of devices is everybody's, and root inside has its owner's id.
    let wrote = "touch /dev/note; ln -s /nowhere /dev/link; mv /dev/ptmx /dev/other; ls /dev";
    let seen = daemon.shell(&id, &format!("({wrote}) 2>/dev/null"));
    assert!(seen.lines().any(|name| name == "ptmx"), "{seen}");
    assert!(!seen.lines().any(|name| ["note", "link", "other"].contains(&name)), "{seen}");
    // No host files, no host processes, no network.
    let looked =
        "cat /etc/shadow /root/.profile 2>/dev/null; ls /proc | grep -c '^[0-9]'; cat /proc/net/dev | wc -l";
    let seen = daemon.shell(&id, looked);
    assert!(seen.ends_with("\n3"), "{seen}");
    assert!(seen.lines().next().unwrap().parse::<u32>().unwrap() < 8, "{seen}");

    let node: Value = serde_json::from_str(daemon.hostel(&["--json", "node", "info"]).success()).unwrap();
    let jail = &node["backends"][0];
    let missing: Vec<&str> =
        jail["missing"].as_array().unwrap().iter().map(|weak| weak["capability"].as_str().unwrap()).collect();
    for weaker in ["private_user_ids", "snapshot", "fork", "template_import"] {
        assert!(missing.contains(&weaker), "{weaker} is not said to be missing: {missing:?}");
    }
    assert!(
        jail["missing"].as_array().unwrap().iter().all(|weak| weak["detail"].as_str().unwrap().len() > 10)
    );
    let sandbox: Value =
        serde_json::from_str(daemon.hostel(&["--json", "sandbox", "get", &id]).success()).unwrap();
    let told = sandbox["weaknesses"].as_array().unwrap();
    assert!(told.iter().any(|weak| weak["capability"] == "private_user_ids"), "{told:?}");
    daemon.finish();
}

#[test]
fn what_is_required_and_missing_refuses() {
    let Some(mut daemon) = start() else { return };
    let refused = daemon.hostel(&["--json", "sandbox", "create", "--require", "private_user_ids"]);
    let error: Value = serde_json::from_str(refused.failure(125)).unwrap();
    assert_eq!(error["error"]["reason"], "CAPABILITY_MISSING");
    assert_eq!(error["error"]["metadata"]["capability"], "private_user_ids", "{error}");
    let id = daemon.sandbox(&["--require", "pty,network_none"]);
    for command in [vec!["sandbox", "snapshot", &id, "t"], vec!["sandbox", "fork", &id]] {
        let refused = daemon.hostel(&command);
        assert!(refused.failure(125).contains("ordinary user"), "{refused:?}");
    }
    let _ = daemon.hostel(&["exec", "-d", &id, "--", "sleep", "1000"]).success();
    daemon.kill();
    daemon.restart();
    assert!(daemon.hostel(&["ps", &id]).success().contains("running"));
    daemon.finish();
}
