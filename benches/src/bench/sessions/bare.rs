//! The agent's command line without us: a process with pipes, whose prompts are written as soon as it is started.

use super::PATIENCE;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// As the session server starts it too.
const ARGUMENTS: [&str; 9] = [
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--permission-prompt-tool",
    "stdio",
    "--session-mirror",
];

/// A process with a home of its own; killed when dropped.
pub(super) struct Bare {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _home: TempDir,
}

impl Bare {
    /// Starts one and writes its first prompt.
    pub(super) async fn start(claude: &Path, model: SocketAddr, prompt: &str) -> Result<Self> {
        let mut bare = Self::spawn(claude, model)?;
        bare.say(prompt).await?;
        Ok(bare)
    }

    /// Starts one and waits until it is ready.
    pub(super) async fn ready(claude: &Path, model: SocketAddr) -> Result<Self> {
        let mut bare = Self::spawn(claude, model)?;
        let begin = json!({ "type": "control_request", "request_id": "begin",
            "request": { "subtype": "initialize" } });
        bare.input.write_all(format!("{begin}\n").as_bytes()).await.context("begin")?;
        while !bare.line().await?.contains("\"control_response\"") {}
        Ok(bare)
    }

    fn spawn(claude: &Path, model: SocketAddr) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("hostel-bench-bare.").tempdir().context("a home")?;
        let work = home.path().join("workspace");
        std::fs::create_dir(&work).context("a workspace")?;
        let mut child = Command::new(claude)
            .args(ARGUMENTS)
            .args(["--session-id", &uuid::Uuid::new_v4().to_string()])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", home.path())
            .env("CLAUDE_CONFIG_DIR", home.path().join(".claude"))
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "1")
            .env("IS_SANDBOX", "1")
            .env("ANTHROPIC_BASE_URL", format!("http://{model}"))
            .env("ANTHROPIC_API_KEY", "none")
            .current_dir(&work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start claude")?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Self { child, input, output, _home: home })
    }

    /// Writes a prompt.
    pub(super) async fn say(&mut self, prompt: &str) -> Result<()> {
        let line = json!({ "type": "user", "session_id": "", "uuid": uuid::Uuid::new_v4().to_string(),
            "parent_tool_use_id": null, "message": { "role": "user", "content": prompt } });
        self.input.write_all(format!("{line}\n").as_bytes()).await.context("write a prompt")
    }

    /// Reads to the end of a turn, and gives every line to `look` as soon as it is there.
    pub(super) async fn turn(&mut self, mut look: impl FnMut(&str) -> Result<()>) -> Result<()> {
        loop {
            let line = self.line().await?;
            look(&line)?;
            let failed = line.contains("\"type\":\"result\"") && line.contains("\"is_error\":true");
            ensure!(!failed, "a turn failed: {line:.300}");
            if line.contains("\"subtype\":\"session_state_changed\",\"state\":\"idle\"") {
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await.context("no output")?;
        line.context("read its output")?.context("claude ended")
    }

    /// Ends it at once.
    pub(super) async fn end(mut self) -> Result<()> {
        self.child.kill().await.context("kill claude")
    }
}
