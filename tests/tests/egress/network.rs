//! The network by policy.

use super::setup::{Web, daemon, fetch, usable};
use hostel_tests::{Outcome, Setup, TestDaemon, eventually, shared_engine, skip};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

/// Lets a sandbox reach these names of ours.
fn allowing(web: &Web, names: &[&str]) -> Vec<String> {
    let port = web.port();
    let names = names.iter().flat_map(|name| ["--allow".to_owned(), format!("{name}:{port}")]);
    names.collect()
}

fn run(daemon: &TestDaemon, options: &[String], script: &str) -> Outcome {
    let mut arguments: Vec<&str> = vec!["run"];
    arguments.extend(options.iter().map(String::as_str));
    arguments.extend(["--", "bash", "-c", script]);
    daemon.hostel(&arguments)
}

fn decisions(daemon: &TestDaemon, id: &str) -> Vec<Value> {
    let told = daemon.hostel(&["--json", "sandbox", "network", id]);
    let told: Value = serde_json::from_str(told.success()).unwrap();
    told["decisions"].as_array().unwrap().clone()
}

/// What holds of jails and of containers alike.
fn reaches_what_its_policy_says(daemon: &TestDaemon, backend: &[&str]) {
    let web = Web::start();
    let backend: Vec<String> = backend.iter().map(|&option| option.to_owned()).collect();
    let options = [backend.clone(), allowing(&web, &["web.example.com", "*.api.example.com"])].concat();
    for name in ["web.example.com", "WEB.example.com.", "deep.api.example.com"] {
        let answer = run(daemon, &options, &fetch(name, web.port(), "/"));
        assert!(answer.success().ends_with("hello"), "{name}: {answer:?}");
    }
    let before = web.seen().len();
    for name in
        ["other.example.com", "api.example.com", "nowhere.example.com", "192.0.2.1", "169.254.169.254"]
    {
        let answer = run(daemon, &options, &fetch(name, web.port(), "/"));
        assert!(!answer.stdout.contains("hello"), "{name}: {answer:?}");
    }
    let none = run(daemon, &backend, &fetch("web.example.com", web.port(), "/"));
    assert_ne!(none.code, Some(0), "without a policy nothing is reached: {none:?}");
    assert_eq!(web.seen().len(), before, "what was denied was never sent");
}

#[test]
fn a_jail_reaches_what_its_policy_says() {
    if usable("jails with a network") {
        let (daemon, _names) = daemon(Setup::default());
        reaches_what_its_policy_says(&daemon, &[]);
        assert!(daemon.hostel(&["audit", "verify"]).success().contains("whole"));
    }
}

#[test]
fn a_container_reaches_what_its_policy_says() {
    if !usable("containers with a network") {
        return;
    }
    let Some((host, image)) = shared_engine() else { return };
    let environment = vec![("DOCKER_HOST", host.into()), ("HOSTEL_DOCKER_IMAGE", image.into())];
    let (daemon, _names) = daemon(Setup { environment, ..Setup::default() });
    reaches_what_its_policy_says(&daemon, &["--backend", "docker"]);
}

#[test]
fn a_new_policy_cuts_what_it_does_not_allow_and_is_told() {
    if !usable("a policy that changes") {
        return;
    }
    let (daemon, _names) = daemon(Setup::default());
    let web = Web::start();
    let options = allowing(&web, &["web.example.com"]);
    let mut create = vec!["sandbox", "create", "-q"];
    create.extend(options.iter().map(String::as_str));
    let id = daemon.hostel(&create).success().to_owned();

    let mut watch = daemon.command(&["--json", "sandbox", "network", &id, "--watch"]);
    let mut watching = watch.stdout(Stdio::piped()).spawn().unwrap();
    let waiting = fetch("web.example.com", web.port(), "/wait");
    let caller = daemon.caller();
    let (sandbox, script) = (id.clone(), format!("{waiting}; echo cut"));
    let reader = std::thread::spawn(move || caller.hostel(&["exec", &sandbox, "--", "bash", "-c", &script]));
    eventually("the request arrives", || !web.seen().is_empty());
    assert_eq!(daemon.hostel(&["sandbox", "update", &id, "--network", "none"]).success(), id);
    let cut = reader.join().unwrap();
    assert!(cut.success().ends_with("cut"), "{cut:?}");

    let again = daemon.hostel(&["exec", &id, "--", "bash", "-c", &fetch("web.example.com", web.port(), "/")]);
    assert_ne!(again.code, Some(0), "{again:?}");
    // The watch tells the same as it happens: what was allowed, and then what was not.
    let told = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.into_iter().any(|line| line.contains("\"allowed\":false")));
    watching.kill().unwrap();
    watching.wait().unwrap();
    let decisions = decisions(&daemon, &id);
    let allowed =
        decisions.iter().find(|decision| decision["allowed"] == true && decision["action"] == "connect");
    assert!(allowed.unwrap()["rule"].as_str().unwrap().contains("web.example.com"), "{decisions:?}");
    assert!(decisions.iter().any(|decision| decision["allowed"] == false), "{decisions:?}");

    let mut back = vec!["sandbox", "update", &id];
    back.extend(options.iter().map(String::as_str));
    assert_eq!(daemon.hostel(&back).success(), id);
    let again = daemon.hostel(&["exec", &id, "--", "bash", "-c", &fetch("web.example.com", web.port(), "/")]);
    assert!(again.success().ends_with("hello"), "{again:?}");
}

#[test]
fn a_restarted_daemon_goes_on_and_the_audit_log_is_whole() {
    if !usable("a restart with a network") {
        return;
    }
    let (mut daemon, _names) = daemon(Setup::default());
    let web = Web::start();
    let options = allowing(&web, &["web.example.com"]);
    let mut create = vec!["sandbox", "create", "-q"];
    create.extend(options.iter().map(String::as_str));
    let id = daemon.hostel(&create).success().to_owned();
    let ask = |daemon: &TestDaemon| {
        let script = fetch("web.example.com", web.port(), "/");
        daemon.hostel(&["exec", &id, "--", "bash", "-c", &script])
    };
    assert!(ask(&daemon).success().ends_with("hello"));
    daemon.kill();
    daemon.restart();
    assert!(ask(&daemon).success().ends_with("hello"));
    let verified: Value =
        serde_json::from_str(daemon.hostel(&["--json", "audit", "verify"]).success()).unwrap();
    assert!(verified["records"].as_u64().unwrap() >= 4 && verified["broken"].is_null(), "{verified}");
}

#[test]
fn a_sandbox_that_is_paused_while_the_daemon_restarts_reaches_as_before_when_it_goes_on() {
    if !usable("a restart with a paused sandbox") {
        return;
    }
    let (mut daemon, _names) = daemon(Setup::default());
    let web = Web::start();
    let options = allowing(&web, &["web.example.com"]);
    let create = [vec!["sandbox", "create", "-q"], options.iter().map(String::as_str).collect()].concat();
    let id = daemon.hostel(&create).success().to_owned();
    let ask = |daemon: &TestDaemon| {
        let script = fetch("web.example.com", web.port(), "/");
        daemon.hostel(&["exec", &id, "--", "bash", "-c", &script])
    };
    if daemon.hostel(&["sandbox", "pause", &id]).code != Some(0) {
        skip("a restart with a paused sandbox: it cannot be paused here");
        return;
    }
    daemon.kill();
    daemon.restart();
    // While it is paused nothing can be laid, and nothing is in the way of other changes.
    assert_eq!(daemon.hostel(&["sandbox", "update", &id, "--label", "a=b"]).success(), id);
    assert_eq!(daemon.hostel(&["sandbox", "resume", &id]).code, Some(0));
    let answer = ask(&daemon);
    assert!(answer.success().ends_with("hello"), "{answer:?}");
}

#[test]
fn a_network_that_was_taken_away_is_refused_also_after_a_restart() {
    if !usable("a restart without a network") {
        return;
    }
    let (mut daemon, _names) = daemon(Setup::default());
    let create = ["sandbox", "create", "-q", "--network", "open"];
    let id = daemon.hostel(&create).success().to_owned();
    assert_eq!(daemon.hostel(&["sandbox", "update", &id, "--network", "none"]).success(), id);
    daemon.kill();
    daemon.restart();
    // 124 is what timeout says of a connection that nobody answers.
    let ask = "timeout 20 bash -c 'exec 3<>/dev/tcp/192.0.2.1/443 && cat <&3'; test $? != 124";
    let answer = daemon.hostel(&["exec", &id, "--", "bash", "-c", ask]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
}

#[test]
fn what_was_removed_since_keeps_no_sandbox_from_being_updated() {
    if !usable("a restart without a preset") {
        return;
    }
    let (place, web) = (tempfile::tempdir().unwrap(), Web::start());
    let (lists, secrets) = (place.path().join("lists"), place.path().join("secrets"));
    for directory in [&lists, &secrets] {
        fs::create_dir(directory).unwrap();
    }
    let list = format!("[[rule]]\nhost = \"web.example.com\"\nports = [{}]\n", web.port());
    fs::write(lists.join("ours.toml"), list).unwrap();
    fs::write(secrets.join("token"), "the-value-of-the-token").unwrap();
    fs::set_permissions(secrets.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let environment =
        vec![("HOSTEL_NETWORK_DIR", lists.clone().into()), ("HOSTEL_SECRETS_DIR", secrets.clone().into())];
    let (mut daemon, _names) = daemon(Setup { environment, ..Setup::default() });
    let secret = "name=token,host=api.example.com";
    let create = |more: &[&str]| {
        let all = [&["sandbox", "create", "-q", "--secret", secret][..], more].concat();
        daemon.hostel(&all).success().to_owned()
    };
    let port = format!("web.example.com:{}", web.port());
    let (listed, named) = (create(&["--preset", "ours"]), create(&["--allow", &port]));
    daemon.kill();
    fs::remove_file(lists.join("ours.toml")).unwrap();
    fs::remove_file(secrets.join("token")).unwrap();
    daemon.restart();
    let ask = fetch("web.example.com", web.port(), "/");
    for id in [&listed, &named] {
        assert_eq!(daemon.hostel(&["sandbox", "update", id, "--label", "a=b"]).success(), id);
    }
    // A secret that is gone is in the way of nothing else; a list that is gone allows nothing.
    let answer = daemon.hostel(&["exec", &named, "--", "bash", "-c", &ask]);
    assert!(answer.success().ends_with("hello"), "{answer:?}");
    assert_ne!(daemon.hostel(&["exec", &listed, "--", "bash", "-c", &ask]).code, Some(0));
    assert_eq!(daemon.hostel(&["sandbox", "update", &listed, "--allow", &port]).success(), listed);
    let answer = daemon.hostel(&["exec", &listed, "--", "bash", "-c", &ask]);
    assert!(answer.success().ends_with("hello"), "{answer:?}");
}

#[test]
fn a_claim_that_comes_too_late_for_its_name_leaves_the_network_of_the_first() {
    if !usable("claims of one name with a network") {
        return;
    }
    let (daemon, _names) = daemon(Setup::default());
    let web = Web::start();
    let size = ["--min", "4", "--max", "4", "--memory", "64M", "--disk", "64M", "--wait"];
    let create = [&["pool", "create", "warm", "--template", "host"], &size[..]].concat();
    assert_eq!(daemon.hostel(&create).code, Some(0));
    let options = allowing(&web, &["web.example.com"]);
    for round in 0..3 {
        let name = format!("name-{round}");
        let mut create = vec!["sandbox", "create", "-q", "--id", &name];
        create.extend(options.iter().map(String::as_str));
        let mut asked: Vec<_> = (0..4).map(|_| daemon.command(&create).spawn().unwrap()).collect();
        let won = asked.iter_mut().map(|one| one.wait().unwrap()).filter(|status| status.success()).count();
        assert_eq!(won, 1, "one name, one sandbox");
        let script = fetch("web.example.com", web.port(), "/");
        let answer = daemon.hostel(&["exec", &name, "--", "bash", "-c", &script]);
        assert!(answer.success().ends_with("hello"), "{answer:?}");
    }
}

#[test]
fn a_claimed_sandbox_gets_the_network_of_its_claim() {
    if !usable("pools with a network") {
        return;
    }
    let (daemon, _names) = daemon(Setup::default());
    let web = Web::start();
    let create = ["pool", "create", "warm", "--template", "host", "--min", "1", "--max", "1", "--wait"];
    assert_eq!(daemon.hostel(&create).code, Some(0));
    let options = [allowing(&web, &["web.example.com"]), vec!["-v".to_owned()]].concat();
    let answer = run(&daemon, &options, &fetch("web.example.com", web.port(), "/"));
    assert!(answer.success().ends_with("hello") && answer.stderr.contains("warm"), "{answer:?}");
}
