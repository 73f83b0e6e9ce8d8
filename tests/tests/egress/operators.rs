//! What operators type: values of secrets, budgets, usage, presets.

use super::setup::{Web, daemon, fetch, usable};
use hostel_tests::{Outcome, Setup, TestDaemon};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.success()).unwrap()
}

fn error(refused: &Outcome) -> Value {
    let last = refused.stderr.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(last).unwrap_or_else(|_| panic!("no JSON: {refused:?}"))["error"].clone()
}

/// `hostel secret put`, with the value on stdin.
fn put(daemon: &TestDaemon, name: &str, value: &str) -> Outcome {
    let mut command = daemon.command(&["secret", "put", name]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn values_of_secrets_go_in_and_never_come_out() {
    if !usable("values of secrets") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let secrets = place.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("from-file"), "value-of-the-file").unwrap();
    fs::set_permissions(secrets.join("from-file"), fs::Permissions::from_mode(0o600)).unwrap();
    let environment = vec![("HOSTEL_SECRETS_DIR", secrets.into())];
    let (mut daemon, _names) = daemon(Setup { environment, ..Setup::default() });

    assert_eq!(put(&daemon, "github", "value-that-was-put\n").success(), "github");
    let told = daemon.hostel(&["--json", "secret", "list"]);
    let listed = json(&told);
    let sources: Vec<_> = listed["secrets"].as_array().unwrap().iter().map(|one| &one["source"]).collect();
    assert_eq!(sources, ["file", "vault"], "{listed}");
    assert!(!told.stdout.contains("value-"), "{told:?}");
    assert_eq!(put(&daemon, "bad name", "some-value-here").code, Some(125));

    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.hostel(&["secret", "rm", "github"]).success(), "github");
    let again = daemon.hostel(&["--json", "secret", "rm", "github"]);
    assert_eq!(error(&again)["reason"], "NOT_FOUND", "{again:?}");
    let unknown =
        ["--json", "sandbox", "create", "--network", "open", "--secret", "name=github,host=example.com"];
    let refused = daemon.hostel(&unknown);
    assert!(error(&refused)["message"].as_str().unwrap().contains("github"), "{refused:?}");
    assert_eq!(
        daemon.hostel(&["sandbox", "list", "-q"]).success(),
        "",
        "what cannot be connected is not there"
    );
    let sealed = fs::read_dir(daemon.state().join("egress/vault")).unwrap().count();
    assert_eq!(sealed, 0, "what was removed is not kept");
}

#[test]
fn budgets_are_kept_and_told() {
    if !usable("budgets") {
        return;
    }
    let (without, _names) = daemon(Setup::default());
    let refused = without.hostel(&["--json", "sandbox", "create", "--model"]);
    assert_eq!(error(&refused)["reason"], "NO_MODEL_UPSTREAM", "{refused:?}");
    drop(without);

    let environment = vec![("ANTHROPIC_API_KEY", "a-key-of-the-node".into())];
    let (mut daemon, _names) = daemon(Setup { environment, ..Setup::default() });
    let create = ["budget", "create", "team", "--label", "team=a", "--usd", "2.50", "--period", "day"];
    assert_eq!(daemon.hostel(&create).success(), "team");
    let twice = daemon.hostel(&["--json", "budget", "create", "team", "--usd", "1"]);
    assert_eq!(error(&twice)["reason"], "ALREADY_EXISTS", "{twice:?}");
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.hostel(&["budget", "set", "team", "--usd", "5", "--tokens", "1000"]).success(), "team");
    let listed = json(&daemon.hostel(&["--json", "budget", "list"]));
    let team = &listed["budgets"][0];
    assert_eq!((&team["label_selector"], &team["period"]), (&"team=a".into(), &"day".into()), "{listed}");
    assert_eq!(
        (&team["bounds"]["cost_micros"], &team["bounds"]["tokens"]),
        (&5_000_000.into(), &1000.into())
    );
    assert!(daemon.hostel(&["budget", "list"]).success().contains("$0.00/$5.00"));
    assert!(daemon.hostel(&["usage", "--by", "model"]).success().contains("total"));
    assert_eq!(daemon.hostel(&["budget", "rm", "team"]).success(), "team");
    let gone = daemon.hostel(&["--json", "budget", "set", "team", "--usd", "1"]);
    assert_eq!(error(&gone)["reason"], "NOT_FOUND", "{gone:?}");
}

#[test]
fn presets_are_lists_that_the_operator_keeps() {
    if !usable("presets") {
        return;
    }
    let (place, web) = (tempfile::tempdir().unwrap(), Web::start());
    let list = format!("[[rule]]\nhost = \"web.example.com\"\nports = [{}]\n", web.port());
    fs::write(place.path().join("ours.toml"), list).unwrap();
    let environment = vec![("HOSTEL_NETWORK_DIR", place.path().as_os_str().to_owned())];
    let (daemon, _names) = daemon(Setup { environment, ..Setup::default() });
    let ask = fetch("web.example.com", web.port(), "/");
    let answer = daemon.hostel(&["run", "--preset", "ours", "--", "bash", "-c", &ask]);
    assert!(answer.success().ends_with("hello"), "{answer:?}");
    let denied = ["run", "--preset", "ours", "--deny", "web.example.com", "--", "bash", "-c", &ask];
    assert_ne!(daemon.hostel(&denied).code, Some(0), "what is denied is, whatever allows it");
    let unknown = daemon.hostel(&["--json", "sandbox", "create", "--preset", "theirs"]);
    assert_eq!(error(&unknown)["reason"], "NOT_FOUND", "{unknown:?}");
    let shipped = daemon.hostel(&["sandbox", "create", "-q", "--preset", "model-api"]);
    assert!(shipped.success().starts_with("sb-"), "{shipped:?}");
}
