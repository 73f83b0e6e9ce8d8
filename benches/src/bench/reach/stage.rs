//! A daemon with an upstream, the scripted endpoint, and sandboxes to connect from.

use super::wire::{self, Model};
use crate::daemon::Daemon;
use anyhow::{Context as _, Result, ensure};
use hostel_client::{Client, CreateSandbox, Event, Exec};
use hostel_sandbox::{ModelAccess, NetworkPolicy, NetworkRule, SandboxSpec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the gateway and the proxy are, inside.
const MODEL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 3129);
const PROXY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 3128);

pub(super) struct Stage {
    daemon: Daemon,
    client: Client,
    endpoint: Child,
    model: SocketAddr,
    _place: TempDir,
}

impl Stage {
    pub(super) async fn start(binaries: &Path) -> Result<Self> {
        let place =
            tempfile::Builder::new().prefix("hostel-bench-reach.").tempdir().context("a directory")?;
        let mut endpoint = Command::new(binaries.join("hostel"))
            .args(["testkit", "model"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the scripted endpoint")?;
        let mut line = String::new();
        let output = endpoint.stdout.take().context("its output")?;
        BufReader::new(output).read_line(&mut line).context("the endpoint's address")?;
        let model = line.trim().trim_start_matches("http://").parse().context("the endpoint's address")?;
        let gateway = place.path().join("gateway.toml");
        let declared = format!(
            "[[upstream]]\nname = \"scripted\"\nbase_url = \"http://{model}\"\nkey_env = \"HOSTEL_BENCH_KEY\"\nmax_concurrent = 400\n"
        );
        fs::write(&gateway, declared).context("declare the upstream")?;
        let environment = vec![
            ("HOSTEL_GATEWAY", gateway.into_os_string()),
            ("HOSTEL_BENCH_KEY", "a-key".into()),
            ("HOSTEL_REACHABLE", format!("{}/32", here()?).into()),
        ];
        let daemon = Daemon::start_with(binaries, place.path(), environment).await?;
        let client = daemon.client().await?;
        Ok(Self { daemon, client, endpoint, model, _place: place })
    }

    /// The scripted endpoint.
    pub(super) fn model(&self) -> SocketAddr {
        self.model
    }

    /// A sandbox that may ask the model and reach this address.
    pub(super) async fn sandbox(&self, reaches: SocketAddr) -> Result<Inside> {
        let host = reaches.ip().to_string().parse().map_err(anyhow::Error::msg)?;
        let rule = NetworkRule { ports: vec![reaches.port()], ..NetworkRule::allow(host) };
        let spec = SandboxSpec {
            network: NetworkPolicy::allowlist(vec![rule]),
            model: Some(ModelAccess::default()),
            ..SandboxSpec::default()
        };
        let create = CreateSandbox { spec, network_given: true, ..CreateSandbox::default() };
        let sandbox = self.client.create_sandbox(create).await.context("create a sandbox")?.sandbox.id;
        let told = "readlink /proc/self/ns/net; printenv ANTHROPIC_API_KEY; exec sleep 1000";
        let exec = Exec::command(&sandbox, ["sh", "-c", told]);
        let mut session = self.client.exec(exec).await.context("start a process")?;
        let mut text = String::new();
        while text.lines().count() < 2 || !text.ends_with('\n') {
            match session.output.next().await.context("the process ended")?? {
                Event::Output { data, .. } => text.push_str(&String::from_utf8_lossy(&data)),
                other => anyhow::bail!("the process said {other:?}"),
            }
        }
        let mut lines = text.lines();
        let namespace = find(lines.next().unwrap_or_default())?;
        Ok(Inside { namespace, key: lines.next().unwrap_or_default().to_owned() })
    }

    pub(super) async fn end(mut self) -> Result<()> {
        let ended = self.daemon.shutdown().await;
        self.endpoint.kill().context("end the endpoint")?;
        self.endpoint.wait().context("wait for the endpoint")?;
        ended
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.endpoint.kill();
        let _ = self.endpoint.wait();
    }
}

/// A process's network namespace, by what it is called from everywhere.
fn find(name: &str) -> Result<File> {
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let path: PathBuf = entry.path().join("ns/net");
        if fs::read_link(&path).is_ok_and(|found| found.as_os_str() == name) {
            return File::open(&path).context("open a network namespace");
        }
    }
    anyhow::bail!("no process has the network namespace {name:?}")
}

/// An address of this host that is not loopback: sandboxes have that themselves.
pub(super) fn here() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
    // Nothing is sent: the kernel only says which address it would send from.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).context("this host has no route")?;
    Ok(socket.local_addr().context("an address")?.ip())
}

/// Where a sandbox's programs connect from.
pub(super) struct Inside {
    namespace: File,
    key: String,
}

impl Inside {
    /// A connection to the model gateway.
    pub(super) fn model(&self) -> Result<Model> {
        Ok(Model::over(self.within(|| wire::connect(MODEL.into()))?, &self.key))
    }

    /// A connection by CONNECT.
    pub(super) fn tunnel(&self, to: SocketAddr) -> Result<TcpStream> {
        self.within(|| tunnel(to))
    }

    /// How long it takes to connect by CONNECT and to get a byte back.
    pub(super) fn touch(&self, to: SocketAddr) -> Result<Duration> {
        self.within(|| {
            let start = Instant::now();
            wire::touch(tunnel(to)?)?;
            Ok(start.elapsed())
        })
    }

    /// A socket belongs to the namespace that its thread was in.
    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("enter a network namespace")?;
                work()
            });
            done.join().ok().context("a thread broke")?
        })
    }
}

fn tunnel(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = wire::connect(PROXY.into())?;
    // At once: each argument would be a segment of its own.
    let asked = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
    stream.write_all(asked.as_bytes()).context("ask the proxy")?;
    // Nothing comes behind it before something is sent.
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut part).context("the proxy's answer")?;
        ensure!(count > 0, "the proxy ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(stream)
}
