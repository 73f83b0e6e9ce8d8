//! A daemon whose gateway asks the model, with the agent's template, and a session server before it.

use super::PATIENCE;
use crate::daemon::{self, Daemon};
use anyhow::{Context as _, Result, bail, ensure};
use hostel_client::model::StartKind;
use hostel_client::{Client, ListSandboxes};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Where the package of the agent may be, so that it need not be fetched; below the working directory.
const PACKAGES: &str = ".cache/npm";
/// The session server's own pool.
const POOL: &str = "hostel-agents";
/// A warm agent is counted as ready when it is started; it is at rest so long after.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) struct Stage {
    binaries: PathBuf,
    daemon: Daemon,
    client: Client,
    server: Option<Child>,
    address: Option<SocketAddr>,
    http: reqwest::Client,
    place: TempDir,
}

impl Stage {
    /// Starts them, without warm agents.
    pub(super) async fn start(binaries: &Path, model: SocketAddr) -> Result<Self> {
        let place =
            tempfile::Builder::new().prefix("hostel-bench-sessions.").tempdir().context("a directory")?;
        let gateway = place.path().join("gateway.toml");
        let declared = format!(
            "[[upstream]]\nname = \"scripted\"\nbase_url = \"http://{model}\"\nkey_env = \"HOSTEL_BENCH_KEY\"\nmax_concurrent = 400\n"
        );
        fs::write(&gateway, declared).context("declare the upstream")?;
        let environment =
            vec![("HOSTEL_GATEWAY", gateway.into_os_string()), ("HOSTEL_BENCH_KEY", "a-key".into())];
        let daemon = Daemon::start_with(binaries, place.path(), environment).await?;
        let client = daemon.client().await?;
        let http = reqwest::Client::builder().no_proxy().build().context("an HTTP client")?;
        let binaries = binaries.to_owned();
        let mut stage = Self { binaries, daemon, client, server: None, address: None, http, place };
        stage.install().await?;
        stage.serve(0).await?;
        Ok(stage)
    }

    async fn install(&self) -> Result<()> {
        let mut install = Command::new(self.binaries.join("hostel"));
        install.args(["template", "install-cli"]);
        install.env("HOSTEL_ADDR", format!("unix://{}", self.daemon.socket().display()));
        let packages = fs::read_dir(PACKAGES).into_iter().flatten().flatten().map(|entry| entry.path());
        let package =
            packages.filter(|path| path.extension().is_some_and(|extension| extension == "tgz")).max();
        if let Some(package) = package {
            install.arg("--archive").arg(package);
        }
        let installed = install.kill_on_drop(true).output().await.context("install the agent")?;
        ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        Ok(())
    }

    /// Starts the session server, again with the same sessions, with so many warm agents.
    pub(super) async fn serve(&mut self, warm: usize) -> Result<()> {
        self.stop().await?;
        let path = self.place.path().join("sessiond.log");
        let mut server = Command::new(self.binaries.join("hostel-sessiond"))
            .args(["--listen", "127.0.0.1:0", "--config", "/dev/null", "--warm-agents", &warm.to_string()])
            .env("HOSTEL_ADDR", format!("unix://{}", self.daemon.socket().display()))
            .env("HOSTEL_SESSIOND_STATE_DIR", self.place.path().join("sessions"))
            .env("HOSTEL_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(File::create(&path).context("a log")?)
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .context("start hostel-sessiond")?;
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(&path).unwrap_or_default();
            if let Some(status) = server.try_wait().context("look after the session server")? {
                bail!("hostel-sessiond ended with {status}:\n{log}");
            }
            let line = log.lines().find(|line| line.contains("listening"));
            self.address =
                line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok());
            if self.address.is_some() {
                self.server = Some(server);
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "hostel-sessiond does not listen:\n{log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many agents are warm and nothing else goes on.
    pub(super) async fn settle(&self, warm: usize) -> Result<()> {
        let start = Instant::now();
        while !self.is_full(warm).await? {
            ensure!(start.elapsed() < PATIENCE, "the pool of agents does not fill");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Whether so many agents are warm; the server makes the pool when it gets to it.
    async fn is_full(&self, warm: usize) -> Result<bool> {
        let Ok(pool) = self.client.get_pool(POOL).await else { return Ok(warm == 0) };
        let status = pool.status;
        Ok(usize::try_from(status.ready)? >= warm && status.creating == 0 && status.removing == 0)
    }

    /// How many sandboxes of sessions came out of a pool.
    pub(super) async fn warm_starts(&self) -> Result<usize> {
        let page = self.client.list_sandboxes(&ListSandboxes::default()).await.context("list sandboxes")?;
        let own = page.sandboxes.iter().filter(|one| one.labels.contains_key("hostel-session"));
        Ok(own.filter(|one| one.start_kind == StartKind::Warm).count())
    }

    /// The agent's binary that is in the sandboxes.
    pub(super) fn claude(&self) -> PathBuf {
        self.place.path().join("hostel/state/jail/templates/claude/rootfs/opt/claude/bin/claude")
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.address.context("a session server")
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.server.as_ref().and_then(Child::id).context("a session server")
    }

    /// Makes a session, and gives its path.
    pub(super) async fn session(&self) -> Result<String> {
        let made = self.post("/api/sessions", json!({ "pattern": "long-running" })).await?;
        Ok(format!("/api/sessions/{}", made["id"].as_str().context("a session's id")?))
    }

    /// Sends a message and waits for the end of its turn.
    pub(super) async fn turn(&self, session: &str, prompt: &str) -> Result<()> {
        let body = json!({ "prompt": prompt, "streaming": false });
        let done = self.post(&format!("{session}/message"), body).await?;
        ensure!(done["isError"] == false, "a turn failed: {done}");
        Ok(())
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let url = format!("http://{}{path}", self.address()?);
        let answer = self.http.post(url).json(&body).timeout(PATIENCE).send().await.context("ask")?;
        let status = answer.status();
        let body = answer.json().await.context("read an answer")?;
        ensure!(status.is_success(), "POST {path}: {status}: {body}");
        Ok(body)
    }

    /// A session's events, from the first on.
    pub(super) async fn events(&self, session: &str) -> Result<reqwest::Response> {
        let url = format!("http://{}{session}/events", self.address()?);
        let answer = self.http.get(url).send().await.context("ask for events")?;
        answer.error_for_status().context("ask for events")
    }

    /// When the agent of a session was ready: it had begun, or was claimed where it was there before.
    pub(super) async fn ready(&self, session: &str) -> Result<Timestamp> {
        let url = format!("http://{}{session}/events?types=agent:message", self.address()?);
        let asked = self.http.get(url).header("accept", "application/json").timeout(PATIENCE);
        let page: Value = asked.send().await.context("ask for events")?.json().await.context("events")?;
        let events = page["events"].as_array().context("events")?;
        let when = |answer: &str| {
            let is_it = |event: &&Value| event["data"]["message"]["response"]["request_id"] == answer;
            events.iter().find(is_it)?["time"].as_str()?.parse().ok()
        };
        let ready = when("hostel:claim").or_else(|| when("hostel:initialize"));
        ready.with_context(|| format!("the agent was never ready: {page:.500}"))
    }

    pub(super) async fn delete(&self, session: &str) -> Result<()> {
        let url = format!("http://{}{session}", self.address()?);
        let answer = self.http.delete(url).timeout(PATIENCE).send().await.context("delete a session")?;
        answer.error_for_status().context("delete a session")?;
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let pid = server.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.context("its number")?, Signal::TERM).context("end the session server")?;
        let ended = tokio::time::timeout(PATIENCE, server.wait()).await;
        ended.context("the session server does not end")?.context("wait for the session server")?;
        Ok(())
    }

    pub(super) async fn end(mut self) -> Result<()> {
        self.stop().await?;
        // There is one where agents were kept warm.
        let _ = self.client.delete_pool(POOL, true).await;
        daemon::delete_all(&self.client).await?;
        self.daemon.shutdown().await
    }
}
