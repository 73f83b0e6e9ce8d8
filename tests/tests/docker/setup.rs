//! What these tests share.

use hostel_tests::{Setup, TestDaemon, TestEngine};
use serde_json::Value;

/// A daemon that uses an engine.
pub(crate) fn daemon_on(host: &str, image: &str) -> TestDaemon {
    let mut daemon = prepared_on(host, image);
    daemon.restart();
    daemon
}

/// A daemon that will use an engine, not yet started.
pub(crate) fn prepared_on(host: &str, image: &str) -> TestDaemon {
    let environment = vec![("DOCKER_HOST", host.into()), ("HOSTEL_DOCKER_IMAGE", image.into())];
    TestDaemon::prepare(Setup { environment, ..Setup::default() })
}

/// A daemon on an engine of its own.
pub(crate) fn own_engine(arguments: &[&str]) -> Option<(TestEngine, TestDaemon)> {
    let engine = TestEngine::start(arguments)?;
    let daemon = daemon_on(&engine.host(), engine.image());
    Some((engine, daemon))
}

/// Makes a container: its sandbox's id.
pub(crate) fn container(daemon: &TestDaemon) -> String {
    daemon.sandbox(&["--backend", "docker"])
}

/// Names itself to the engine: what a daemon's containers are labelled with.
pub(crate) fn instance(daemon: &TestDaemon) -> String {
    std::fs::read_to_string(daemon.state().join("docker/owner")).unwrap()
}

/// A sandbox as the API tells it.
pub(crate) fn get(daemon: &TestDaemon, id: &str) -> Value {
    serde_json::from_str(daemon.hostel(&["--json", "sandbox", "get", id]).success()).unwrap()
}

/// What the node says about its Docker backend.
pub(crate) fn health(daemon: &TestDaemon) -> Value {
    let info = daemon.hostel(&["--json", "node", "info"]);
    let info: Value = serde_json::from_str(info.success()).unwrap();
    info["backends"].as_array().unwrap().iter().find(|one| one["name"] == "docker").unwrap().clone()
}

/// The error that a command with `--json` ended with.
pub(crate) fn error(stderr: &str) -> Value {
    let last = stderr.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(last).unwrap_or_else(|_| panic!("no JSON: {stderr}"))["error"].clone()
}

/// Why no container can be made now.
pub(crate) fn refusal(daemon: &TestDaemon, options: &[&str]) -> Value {
    let mut arguments = vec!["--json", "sandbox", "create", "--backend", "docker"];
    arguments.extend_from_slice(options);
    let refused = daemon.hostel(&arguments);
    assert_eq!(refused.code, Some(125), "{refused:?}");
    error(&refused.stderr)
}
