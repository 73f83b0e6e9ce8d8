//! The real agent CLI with no network but the model gateway, against the scripted endpoint.

use super::setup::{daemon, usable};
use hostel_testkit::{ModelOptions, ModelServer, Script};
use hostel_tests::{NameServer, Outcome, Setup, TestDaemon, gateway, package, root, shared_engine, skip};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Runtime;

/// The key that only the daemon has.
const KEY: &str = "sk-real-key-of-the-node";

/// The scripted endpoint, and a daemon whose gateway forwards to it.
pub(crate) struct Stage {
    runtime: Runtime,
    model: Option<ModelServer>,
    pub(crate) daemon: TestDaemon,
    _names: NameServer,
    _place: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new(mut setup: Setup) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = ModelOptions { key: Some(KEY.to_owned().into()), ..ModelOptions::default() };
        let model = runtime.block_on(ModelServer::start(options)).unwrap();
        let place = tempfile::tempdir().unwrap();
        setup.environment.push(gateway(place.path(), &model.url(), KEY));
        let (daemon, names) = daemon(setup);
        Self { runtime, model: Some(model), daemon, _names: names, _place: place }
    }

    /// How many times the model was asked.
    pub(crate) fn asked(&self) -> usize {
        let requests = self.model.as_ref().unwrap().requests();
        requests.iter().filter(|request| request.path == "/v1/messages").count()
    }

    /// One prompt to the CLI in a new sandbox; what it answered, its exit code, and what the prompt left.
    fn prompt(&self, options: &[&str], script: Script) -> (Value, Outcome) {
        let ask = "claude -p \"$PROMPT\" --output-format json --dangerously-skip-permissions; \
                   code=$?; cat /workspace/made 2>/dev/null >&2; env >&2; exit $code";
        let prompt = format!("PROMPT={}", script.prompt("Do it."));
        let mut arguments = vec!["run"];
        arguments.extend_from_slice(options);
        arguments.extend(["--env", &prompt, "--env", "IS_SANDBOX=1", "--env", "HOME=/tmp"]);
        arguments.extend(["--workdir", "/workspace", "--", "sh", "-c", ask]);
        let outcome = Outcome::within(Duration::from_secs(120), self.daemon.command(&arguments));
        let last = outcome.stdout.lines().last().unwrap_or_default().to_owned();
        (
            serde_json::from_str(&last)
                .unwrap_or_else(|_| panic!("no JSON: {outcome:?}\n{}", self.daemon.log())),
            outcome,
        )
    }

    /// `hostel usage`, grouped.
    pub(crate) fn usage(&self, by: &str) -> Value {
        let told = self.daemon.hostel(&["--json", "usage", "--by", by]);
        serde_json::from_str(told.success()).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(model) = self.model.take() {
            self.runtime.block_on(model.stop());
        }
    }
}

/// A turn with a tool: two requests.
fn work() -> Script {
    Script::new()
        .tool("Bash", json!({ "command": "echo by-the-agent > /workspace/made", "description": "write" }))
        .text("all done")
}

/// What holds of jails and of containers alike.
fn works_and_is_stopped(stage: &Stage, options: &[&str]) {
    let (result, outcome) = stage.prompt(&[options, &["--model", "--label", "who=a"]].concat(), work());
    assert_eq!((&result["result"], &result["is_error"]), (&"all done".into(), &false.into()), "{outcome:?}");
    assert!(outcome.stderr.contains("by-the-agent"), "the tool ran: {outcome:?}");
    assert!(!outcome.stderr.contains(KEY), "the key stays outside: {outcome:?}");
    assert_eq!(stage.asked(), 2);
    let usage = stage.usage("label:who");
    assert_eq!(
        (&usage["rows"][0]["group"], &usage["rows"][0]["requests"]),
        (&"a".into(), &2.into()),
        "{usage}"
    );
    assert!(usage["total"]["cost_micros"].as_u64().unwrap() > 0, "{usage}");

    // A millionth of a dollar is spent by the first request, so that the second is not sent.
    let (result, outcome) = stage.prompt(&[options, &["--budget", "0.000001"]].concat(), work());
    assert_eq!(result["is_error"], true, "{outcome:?}");
    assert!(result["result"].as_str().unwrap().contains("budget"), "{result}");
    assert_eq!(stage.asked(), 3, "stopped in the middle of the turn, and not tried again");
}

#[test]
fn the_agent_works_in_a_jail_and_is_stopped_by_its_budget() {
    if !usable("the agent in a jail") {
        return;
    }
    let package = match package() {
        Ok(package) => package,
        Err(why) => return skip(&format!("the agent in a jail: {why}")),
    };
    let stage = Stage::new(Setup::default());
    let install = ["template", "install-cli", "--archive", package.to_str().unwrap()];
    let installed = Outcome::within(Duration::from_secs(120), stage.daemon.command(&install));
    assert_eq!(installed.success(), "claude");
    works_and_is_stopped(&stage, &["--template", "claude"]);
}

#[test]
fn the_agent_works_in_a_container_and_is_stopped_by_its_budget() {
    if !usable("the agent in a container") {
        return;
    }
    let Some((host, image)) = shared_engine() else { return };
    let environment = vec![("DOCKER_HOST", host.into()), ("HOSTEL_DOCKER_IMAGE", image.into())];
    let stage = Stage::new(Setup { environment, ..Setup::default() });
    let recipes = root().join("images");
    let build =
        ["template", "build", "agent-min", "--recipes", recipes.to_str().unwrap(), "--backend", "docker"];
    let built = Outcome::within(Duration::from_secs(300), stage.daemon.command(&build));
    assert_eq!(built.success(), "agent-min");
    works_and_is_stopped(&stage, &["--backend", "docker", "--template", "agent-min"]);
}
