//! `hostel testkit model` as people use it, with the real claude where the scripts of this repository fetched it.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Outcome, executable, signal};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The program, running.
struct Model {
    child: Child,
    place: TempDir,
    /// What it printed.
    addresses: Value,
}

impl Model {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new(executable("hostel"));
        command.args([
            "--json",
            "testkit",
            "model",
            "--verbose",
            "--key",
            "the-key",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.arg("--unix").arg(place.path().join("model.sock"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, place, addresses: serde_json::from_str(&line).unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("model.sock")
    }

    /// Ends it in good order and gives what it told of requests.
    fn stop(mut self) -> String {
        signal(self.child.id(), Signal::TERM);
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(self.child.wait().unwrap().success(), "{told}");
        assert!(!self.socket().exists());
        told
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // A test that failed leaves none behind; one that did not has waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_prints_where_it_is_answers_and_ends_when_told_to() {
    let model = Model::start();
    assert!(model.addresses["url"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(model.addresses["unix"].as_str().map(Path::new), Some(model.socket().as_path()));
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi @@[{\"text\":\"there\"}]"}]}"#;
    let mut stream = UnixStream::connect(model.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "POST /v1/messages HTTP/1.1\r\nhost: example.com\r\nx-api-key: the-key\r\nconnection: close";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""text":"there""#), "{answer}");
    let told = model.stop();
    assert!(told.contains("200, step 1/1: text") && !told.contains("the-key"), "{told}");
    let mut elsewhere = Command::new(executable("hostel"));
    elsewhere.args(["testkit", "model", "--listen", "0.0.0.0:0"]);
    assert!(Outcome::of(elsewhere).failure(125).contains("loopback"));
}

/// The claude that `images/build.sh` fetched, if it did.
fn cached_claude() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let pins = fs::read_to_string(root.join("images/pins")).ok()?;
    let version = pins.lines().find_map(|line| line.strip_prefix("claude "))?.split(' ').next()?;
    let platform = if cfg!(target_arch = "x86_64") { "linux-x64" } else { "linux-arm64" };
    let cache = std::env::var_os("HOSTEL_CACHE").map_or_else(|| root.join(".cache/images"), PathBuf::from);
    Some(cache.join(format!("claude-{version}-{platform}/claude"))).filter(|path| path.exists())
}

#[test]
fn the_real_claude_completes_a_turn_with_a_tool_and_comes_through_faults() {
    let Some(claude) = cached_claude() else {
        eprintln!("skipped: the real claude and a scripted model: images/build.sh did not fetch it here");
        return;
    };
    let model = Model::start();
    let work = model.place.path().join("work");
    fs::create_dir(&work).unwrap();
    let script = r#"Look around. @@[{"thinking":"hm","tool":"Bash","input":{"command":"echo seen-$((6*7)) > seen"}},
        {"error":529,"times":1},{"text":"half of it","sse_error":"overloaded_error","after":4,"times":1},
        {"text":"abc","chunks":3,"cut":5,"times":1},{"text":"It is done.","usage":{"output_tokens":4321}}]"#;
    let mut command = Command::new(claude);
    command.args(["-p", script, "--output-format", "json", "--allowedTools", "Bash"]);
    command.env_clear().current_dir(&work).stdin(Stdio::null());
    command.env("PATH", "/usr/bin:/bin").env("HOME", model.place.path().join("home"));
    command.env("IS_SANDBOX", "1").env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    command.env("ANTHROPIC_API_KEY", "the-key").env("ANTHROPIC_BASE_URL", "http://model.example.com");
    command.env("ANTHROPIC_UNIX_SOCKET", model.socket());
    let outcome = Outcome::of(command);
    let result: Value = serde_json::from_str(outcome.success()).unwrap();
    assert_eq!(result["result"], "It is done.");
    assert!(result["usage"]["output_tokens"].as_u64().unwrap() >= 4321, "{result}");
    assert_eq!(fs::read_to_string(work.join("seen")).unwrap(), "seen-42\n");
    let told = model.stop();
    for step in [
        "step 1/5: tool Bash",
        "529, step 2/5",
        "step 3/5: overloaded_error",
        "step 4/5: cut",
        "step 5/5: text",
    ] {
        assert!(told.contains(step), "{step}: {told}");
    }
}
