//! `hostel session`, `hostel chat` and `hostel up` as people use them: the real agent in a jail, a scripted model, a
//! real terminal.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_testkit::{ModelOptions, ModelServer, Script, Step};
use hostel_tests::{Outcome, Setup, Terminal, TestDaemon, eventually, executable, gateway, signal, skip};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;

const INTERRUPT: &str = "\x03";
const END: &str = "\x04";
/// What a turn may take at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session server, killed with its test.
struct Sessiond {
    child: Child,
    address: String,
}

impl Sessiond {
    fn start(daemon: &TestDaemon, listen: &str) -> Self {
        let log =
            daemon.home().join(format!("sessiond-{}.log", fs::read_dir(daemon.home()).unwrap().count()));
        let child = Command::new(executable("hostel-sessiond"))
            .args(["--listen", listen])
            .env("HOSTEL_ADDR", format!("unix://{}", daemon.socket().display()))
            .env("HOSTEL_SESSIOND_STATE_DIR", daemon.home().join("sessions"))
            .env("HOSTEL_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, address: listening(&log) }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Sessiond {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program that logs JSON says that it serves HTTP.
fn listening(log: &PathBuf) -> String {
    let mut address = None;
    eventually("the session server listens", || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let said = lines.filter(|line| line["message"] == "listening");
        let mut addresses = said.filter_map(|line| Some(line["address"].as_str()?.to_owned()));
        address = addresses.rfind(|address| address.starts_with("127."));
        address.is_some()
    });
    address.unwrap()
}

struct Stage {
    runtime: Runtime,
    model: Option<ModelServer>,
    daemon: TestDaemon,
    server: Sessiond,
    _place: tempfile::TempDir,
}

impl Stage {
    /// Nothing where the agent CLI cannot be fetched.
    fn start() -> Option<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let model = runtime.block_on(ModelServer::start(ModelOptions::default())).unwrap();
        let place = tempfile::tempdir().unwrap();
        let environment = vec![gateway(place.path(), &model.url(), "sk-of-the-node")];
        let daemon = match TestDaemon::with_claude(Setup { environment, ..Setup::default() }) {
            Ok(daemon) => daemon,
            Err(why) => {
                skip(&format!("sessions on the command line: {why}"));
                return None;
            }
        };
        let server = Sessiond::start(&daemon, "127.0.0.1:0");
        Some(Self { runtime, model: Some(model), daemon, server, _place: place })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.daemon.command(arguments);
        command.env("HOSTEL_SESSIOND_ADDR", format!("http://{}", self.server.address));
        command.env("XDG_STATE_HOME", self.daemon.home()).env("TERM", "xterm");
        command
    }

    fn hostel(&self, arguments: &[&str]) -> Outcome {
        Outcome::within(PATIENCE, self.command(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = ["--json"].iter().chain(arguments).copied().collect();
        serde_json::from_str(self.hostel(&arguments).success()).unwrap()
    }

    fn finish(mut self) {
        for id in self.hostel(&["session", "list", "-q"]).success().lines() {
            let _ = self.hostel(&["session", "rm", id]).success();
        }
        signal(self.server.child.id(), Signal::TERM);
        assert!(self.server.child.wait().unwrap().success());
        self.daemon.finish();
        self.runtime.block_on(self.model.take().unwrap().stop());
    }
}

#[test]
fn a_session_is_made_spoken_with_looked_into_and_ended() {
    let Some(stage) = Stage::start() else { return };
    let id = stage
        .hostel(&["session", "create", "--pattern", "long-running", "--budget", "2"])
        .success()
        .to_owned();
    let script = Script::new()
        .tool("Bash", json!({ "command": "echo made > /workspace/made", "description": "write" }))
        .tool("Bash", json!({ "command": "echo no such luck >&2; false" }))
        .text("It is done.");
    let turn = stage.hostel(&["session", "send", &id, &script.prompt("Do it.")]);
    // The agent's words are data; what it did and what it cost are for who looks on.
    assert_eq!(turn.success(), "It is done.", "{turn:?}");
    for told in ["✓ Bash echo made", "✗ Bash echo no such luck", "no such luck\n", "tokens in", "$0."] {
        assert!(turn.stderr.contains(told), "{told}: {turn:?}");
    }
    let session = stage.json(&["session", "get", &id]);
    assert_eq!((&session["status"], &session["tools_used"]), (&json!("idle"), &json!(["Bash"])), "{session}");
    assert!(
        session["total_cost_micros"].as_u64().unwrap() > 0
            && session["limits"]["max_budget_micros"] == 2_000_000
    );
    assert!(stage.hostel(&["session", "files", &id]).success().contains("made"));
    let copied = stage.hostel(&["session", "cp", &format!("{id}:/workspace/made"), "-"]);
    assert_eq!(copied.success(), "made");
    // Another daemon, or none, is no place to look for them.
    let elsewhere = stage.hostel(&["--addr", "unix:///nonexistent/hosteld.sock", "session", "files", &id]);
    assert!(
        elsewhere.stderr.contains("--addr") && elsewhere.stderr.contains("session server"),
        "{elsewhere:?}"
    );
    let ends = stage.json(&["session", "events", &id, "--type", "turn:completed"]);
    assert_eq!(ends["data"]["outcome"]["result"], "success", "{ends}");
    let sent =
        stage.json(&["session", "send", "--no-wait", "--request-id", "r1", &id, "@@[{\"text\":\"two\"}]"]);
    assert_eq!((&sent["position"], &sent["replayed"]), (&json!(0), &json!(false)), "{sent}");
    let again =
        stage.json(&["session", "send", "--no-wait", "--request-id", "r1", &id, "@@[{\"text\":\"two\"}]"]);
    assert_eq!((&again["message"]["id"], &again["replayed"]), (&sent["message"]["id"], &json!(true)));
    eventually("the second turn ends", || {
        stage.hostel(&["session", "attach", "--no-follow", &id]).success().ends_with("two")
    });
    assert!(stage.hostel(&["session", "queue", &id]).success().starts_with("ID"));
    let update = ["session", "update", &id, "--description", "for now", "--clear", "budget"];
    assert_eq!(stage.hostel(&update).success(), id);
    let session = stage.json(&["session", "get", &id]);
    assert_eq!(
        (&session["description"], session["limits"]["max_budget_micros"].as_u64()),
        (&json!("for now"), None)
    );
    assert_eq!(stage.json(&["session", "stats"])["by_pattern"]["long-running"]["count"], 1);
    let export = stage.hostel(&["session", "export", &id]);
    let kinds: Vec<_> = export.success().lines().map(|line| line[2..].split('"').next().unwrap()).collect();
    assert_eq!((kinds[0], kinds[1], *kinds.last().unwrap()), ("session", "event", "transcript"));
    assert_eq!(stage.hostel(&["session", "terminate", &id]).success(), id);
    // Nothing more comes, and nobody waits for it.
    assert_eq!(stage.hostel(&["session", "attach", "--new", &id]).success(), "");
    let followed = stage.hostel(&["session", "events", "--follow", &id]);
    assert!(followed.success().contains("session:ended"), "{followed:?}");
    let refused = stage.hostel(&["session", "send", &id, "more"]);
    assert!(refused.failure(125).contains("not active"), "{refused:?}");
    assert_eq!(stage.hostel(&["session", "rm", &id]).success(), id);
    assert!(stage.hostel(&["session", "get", &id]).failure(125).contains("session list"));
    stage.finish();
}

#[test]
fn words_come_once_though_the_server_dies_in_the_middle_of_them() {
    let Some(mut stage) = Stage::start() else { return };
    let id = stage.hostel(&["session", "create", "--pattern", "long-running"]).success().to_owned();
    let words: Vec<_> = (0..40).map(|number| format!("word-{number}")).collect();
    let text = words.join(" ");
    let slow = format!("Speak. @@[{{\"text\":\"{text}\",\"chunks\":40,\"delay_ms\":150}}]");
    let sending = stage.command(&["-v", "session", "send", &id, &slow]).spawn().unwrap();
    eventually("it speaks", || {
        let deltas = stage.hostel(&["session", "events", &id, "--type", "block:delta"]);
        deltas.success().lines().count() > 5
    });
    // Files do not come under its hands.
    let home = stage.daemon.home().display().to_string();
    let refused = stage.hostel(&["chat", "--workspace", &home, &id]);
    assert!(refused.failure(125).contains("a turn runs"), "{refused:?}");
    stage.server.kill();
    let address = stage.server.address.clone();
    stage.server = Sessiond::start(&stage.daemon, &address);
    let output = sending.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), text);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("connected to the session server again").count(), 1, "{errors}");
    stage.finish();
}

#[test]
fn a_conversation_on_a_terminal_asks_is_interrupted_and_is_come_back_to() {
    let Some(stage) = Stage::start() else { return };
    let chat = stage.command(&["chat", "--ask", "--permission-mode", "default", "--budget", "1"]);
    let mut terminal = Terminal::start(&chat, 40, 120);
    terminal.expect("/help");
    terminal.expect("› ");
    let write = |path: &str| json!({ "file_path": path, "content": "one\ntwo\n" });
    let script = Script::new()
        .tool("Write", write("/workspace/a"))
        .tool("Write", write("/workspace/b"))
        .text("Asked.");
    terminal.keys(&format!("{}\r", script.prompt("Write.")));
    terminal.expect("Write /workspace/a");
    terminal.expect("Allow?");
    // Not understood is asked again.
    terminal.keys("maybe\r");
    terminal.expect("Allow?");
    terminal.keys("y\r");
    terminal.expect("✓ Write /workspace/a");
    terminal.expect("Allow?");
    terminal.keys("n not that one\r");
    terminal.expect("✗ Write /workspace/b");
    terminal.expect("not that one");
    terminal.expect("Asked.");
    terminal.expect("tokens in");
    terminal.expect("› ");
    terminal.keys("/files\r");
    terminal.expect(" a\r\n");
    terminal.expect("› ");
    let long = Script::new().step(Step::text("Going on and on. ".repeat(20)).chunks(100).delay_ms(100));
    terminal.keys(&format!("{}\r", long.prompt("Speak.")));
    // What was typed is on the screen too: the words are those after the agent began to think.
    terminal.expect("thinking…");
    terminal.expect("Going");
    terminal.keys(INTERRUPT);
    terminal.expect("interrupted");
    terminal.expect("› ");
    terminal.keys("/cost\r");
    terminal.expect("of $1.00");
    terminal.expect("› ");
    terminal.keys(END);
    terminal.expect("come back with: hostel chat ");
    terminal.ends_with(0);

    let id = stage.hostel(&["session", "list", "-q"]).success().to_owned();
    let mut back = Terminal::start(&stage.command(&["chat", &id]), 40, 120);
    back.expect("Speak.");
    back.expect("interrupted");
    back.expect("› ");
    back.keys("@@[{\"text\":\"Still here.\"}]\r");
    back.expect("Still here.");
    back.expect("tokens in");
    back.expect("› ");
    back.keys(INTERRUPT);
    back.expect("leaves");
    back.expect("› ");
    back.keys(INTERRUPT);
    back.ends_with(0);

    // Without a terminal: a line is a message, and the answers alone are data.
    let mut piped = stage.command(&["chat", &id]);
    let lines = stage.daemon.home().join("lines");
    fs::write(&lines, "@@[{\"text\":\"first\"}]\n\n@@[{\"text\":\"second\"}]\n").unwrap();
    piped.stdin(fs::File::open(&lines).unwrap());
    let said = Outcome::within(PATIENCE, piped);
    assert!(said.success().ends_with("first\nsecond"), "{said:?}");
    stage.finish();
}

#[test]
fn who_leaves_while_files_wait_for_a_sandbox_leaves_no_message_behind() {
    let Some(mut stage) = Stage::start() else { return };
    // There will be no sandbox for a while.
    stage.daemon.kill();
    let directory = stage.daemon.home().join("files");
    fs::create_dir(&directory).unwrap();
    let chat = stage.command(&["chat", "--workspace", &directory.display().to_string()]);
    let mut terminal = Terminal::start(&chat, 40, 120);
    terminal.expect("session ");
    let active = || {
        let sessions = stage.json(&["session", "list"]);
        sessions["sessions"][0]["active_turn"].clone()
    };
    eventually("the message is there", || active().is_object());
    terminal.keys(INTERRUPT);
    terminal.ends_with(130);
    // What it cost is asked of the daemon for some seconds.
    eventually("nobody works on it any more", || active().is_null());
    stage.daemon.restart();
    stage.finish();
}

#[test]
fn up_starts_both_servers_and_ends_both_in_good_order() {
    let daemon = TestDaemon::prepare(Setup::default());
    let up = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        command.env("HOSTEL_STATE_DIR", daemon.state()).env("HOSTEL_RUNTIME_DIR", daemon.runtime());
        let log = daemon.home().join("up.log");
        command
            .env("HOSTEL_LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap());
        (command.spawn().unwrap(), log)
    };
    let (mut child, log) = up(&["up", "--sessions-listen", "127.0.0.1:0"]);
    let address = listening(&log);
    let sessions = |address: &str| {
        let mut command = daemon.command(&["--json", "session", "list"]);
        command.env("HOSTEL_SESSIOND_ADDR", format!("http://{address}"));
        Outcome::of(command)
    };
    assert_eq!(sessions(&address).success(), r#"{"sessions":[],"total_size":0}"#);
    signal(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success(), "{}", fs::read_to_string(&log).unwrap());
    assert!(sessions(&address).failure(125).contains("hostel up"));

    let (mut child, log) = up(&["up", "--no-sessions"]);
    eventually("the daemon answers", || daemon.hostel(&["node", "info"]).code == Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap().matches("\"listening\"").count(), 1);
    signal(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_turn_is_steered_from_another_terminal() {
    let Some(stage) = Stage::start() else { return };
    let create = ["session", "create", "--pattern", "long-running", "--ask", "--permission-mode", "default"];
    let id = stage.hostel(&create).success().to_owned();
    let asks = || stage.json(&["session", "questions", &id])["questions"].as_array().unwrap().len();
    let write = |name: &str| {
        let write = json!({ "file_path": format!("/workspace/{name}"), "content": "x" });
        Script::new().tool("Write", write).text("tried").prompt("Write.")
    };
    let outcome = |message: &str| {
        let ends = stage.hostel(&["--json", "session", "events", &id, "--type", "turn:completed"]);
        let ends = ends.success().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        ends.map(|end| end["data"].clone()).find(|end| end["messageId"] == message)
    };
    let send = |text: &str| stage.hostel(&["session", "send", "--no-wait", &id, text]).success().to_owned();
    for (name, decide, there) in [
        ("denied", &["session", "deny", "-m", "not that one", &id][..], false),
        ("allowed", &["session", "approve", &id][..], true),
    ] {
        let message = send(&write(name));
        eventually("it asks", || asks() == 1);
        assert!(stage.hostel(&["session", "questions", &id]).success().contains(name));
        let _ = stage.hostel(decide).success();
        assert_eq!(asks(), 0);
        eventually("its turn ends", || outcome(&message).is_some());
        assert_eq!(stage.hostel(&["session", "files", &id]).success().contains(name), there);
    }
    assert!(stage.hostel(&["session", "approve", &id]).failure(125).contains("no question waits"));

    let long = Script::new().step(Step::text("Going on and on. ".repeat(20)).chunks(100).delay_ms(100));
    for (halt, result) in [("interrupt", "interrupted"), ("stop", "stopped"), ("kill", "killed")] {
        // Whoever follows the turn hears how it ended.
        let following = stage.command(&["session", "send", &id, &long.prompt("Speak.")]).spawn().unwrap();
        eventually("it speaks", || {
            let session = stage.json(&["session", "get", &id]);
            session["active_turn"]["phase"] == "running"
        });
        let halted = stage.json(&["session", halt, &id]);
        assert_eq!((&halted["status"], &halted["active_turn"]), (&json!("idle"), &Value::Null), "{halted}");
        let code = following.wait_with_output().unwrap().status.code();
        assert_eq!(code, Some(if halt == "interrupt" { 130 } else { 1 }), "{halt}");
        let ends = stage.hostel(&["--json", "session", "events", &id, "--type", "turn:completed"]);
        let last: Value = serde_json::from_str(ends.success().lines().last().unwrap()).unwrap();
        assert_eq!(last["data"]["outcome"]["result"], result, "{last}");
    }
    stage.finish();
}
