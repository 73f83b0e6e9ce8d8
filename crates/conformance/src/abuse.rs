//! Attempts to get out of a sandbox, made from inside by `hostel-probe`, each of which must be refused.

use crate::archive;
use crate::failure::{Failure, Outcome, ensure};
use crate::session::{Session, patiently};
use bytes::Bytes;
use hostel_sandbox::ExecutionEnvironment;
use hostel_sandbox::file::WriteOptions;
use hostel_sandbox::process::{AttachOptions, ProcessSpec};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Whom the probes run as: the sandbox's default user, its root, and an ordinary user.
pub const USERS: [Option<&str>; 3] = [None, Some("0"), Some("1000")];

/// Probes that some hosts cannot be asked: they say `skipped` for a reason that is no weakness of the sandbox.
const MAY_BE_SKIPPED: &[&str] = &[
    "iopl",
    "x32-call",
    "int-80-call",
    "raise-hard-limit",
    "kill-pid-1",
    "tiocsti",
    "seccomp-active",
    "device-tree-write",
];

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The sandbox held.
    Refused,
    /// It got through.
    Escaped,
    /// It could not be tried.
    Skipped,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The probe's name, as `hostel-probe list` prints it.
    pub name: String,
    /// The user it ran as; `None` is the sandbox's default.
    pub user: Option<String>,
    /// What came of it.
    pub verdict: Verdict,
    /// What exactly was seen.
    pub detail: String,
}

impl Finding {
    /// Whether the sandbox is to blame.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        match self.verdict {
            Verdict::Refused => false,
            Verdict::Escaped => true,
            Verdict::Skipped => !MAY_BE_SKIPPED.contains(&self.name.as_str()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or("the default user");
        write!(f, "{} as {user}: {:?}: {}", self.name, self.verdict, self.detail)
    }
}

/// What the host holds out for the probes to reach: listeners that nobody inside may get at.
pub struct Bait {
    tcp: Vec<TcpListener>,
    abstract_socket: UnixListener,
    name: String,
    host_paths: Vec<String>,
}

impl Bait {
    /// Listens on every address of the host, and on an abstract unix socket.
    ///
    /// # Errors
    /// Where not even IPv4 can be listened on.
    pub fn lay(host_paths: Vec<String>) -> Outcome<Self> {
        let mut tcp = vec![TcpListener::bind("127.0.0.1:0")?];
        tcp.extend(TcpListener::bind("[::1]:0"));
        // The address that the host would be seen with: connecting a datagram socket sends nothing.
        let outside = UdpSocket::bind("0.0.0.0:0")
            .and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
        if let Ok(outside) = outside {
            tcp.extend(TcpListener::bind((outside.ip(), 0)));
        }
        let name = format!("hostel-bait-{}", uuid::Uuid::new_v4());
        let abstract_socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        abstract_socket.set_nonblocking(true)?;
        for listener in &tcp {
            listener.set_nonblocking(true)?;
        }
        Ok(Self { tcp, abstract_socket, name, host_paths })
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let addresses = self.tcp.iter().filter_map(|listener| listener.local_addr().ok());
        let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
        [
            ("HOSTEL_PROBE_TCP".to_owned(), addresses.join(" ")),
            ("HOSTEL_PROBE_ABSTRACT".to_owned(), self.name.clone()),
            ("HOSTEL_PROBE_HOST_PATHS".to_owned(), self.host_paths.join(":")),
        ]
        .into()
    }

    /// Fails if somebody took it.
    ///
    /// # Errors
    /// With who did.
    pub fn untouched(&self) -> Outcome {
        for listener in &self.tcp {
            ensure!(
                listener.accept().is_err(),
                "somebody connected to {:?} of the host",
                listener.local_addr()
            );
        }
        ensure!(self.abstract_socket.accept().is_err(), "somebody connected to @{} of the host", self.name);
        Ok(())
    }
}

/// Uploads the probe and runs every abuse probe as each of [`USERS`]. The caller looks for
/// [`Finding::is_bad`] ones.
///
/// # Errors
/// Where the probe cannot be run, does not run to its end, or leaves probes out.
pub async fn run(environment: &dyn ExecutionEnvironment, probe: &[u8], bait: &Bait) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for user in USERS {
        let found = run_as(environment, probe, bait, user).await;
        findings.extend(found.map_err(|failure| failure.while_(format!("as {user:?}")))?);
    }
    Ok(findings)
}

/// [`run`] as one user.
///
/// # Errors
/// As [`run`].
pub async fn run_as(
    environment: &dyn ExecutionEnvironment,
    probe: &[u8],
    bait: &Bait,
    user: Option<&str>,
) -> Outcome<Vec<Finding>> {
    const PATH: &str = "/tmp/hostel-abuse-probe";
    if environment.inside()?.stat(PATH, true).await.is_err() {
        let options = WriteOptions { mode: Some(0o755), create_parents: true, ..WriteOptions::default() };
        let upload =
            environment.inside()?.write(PATH, options, archive::stream(Bytes::copy_from_slice(probe)));
        patiently("uploading the probe", upload).await??;
    }
    let names = read_all(environment, &[PATH, "list"], bait, user).await?;
    let names: Vec<&str> = names.lines().collect();
    ensure!(names.len() >= 80, "the probe knows only {} probes", names.len());
    let text = read_all(environment, &[PATH, "abuse"], bait, user).await?;
    let findings = text.lines().map(|line| parse(line, user)).collect::<Outcome<Vec<_>>>()?;
    let found: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
    ensure!(found == names, "the probe stopped after {:?}", found.last());
    Ok(findings)
}

async fn read_all(
    environment: &dyn ExecutionEnvironment,
    argv: &[&str],
    bait: &Bait,
    user: Option<&str>,
) -> Outcome<String> {
    let spec = ProcessSpec {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: bait.environment(),
        user: user.map(str::to_owned),
        ..ProcessSpec::default()
    };
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    let attachment =
        patiently("starting the probe", environment.inside()?.exec(spec, options.clone())).await??;
    let finished = Session::open(attachment, &options).await?.finish().await?;
    ensure!(
        matches!(finished.code(), Some(0 | 1)),
        "the probe ended with {:?}: {} {}",
        finished.exit,
        finished.text(),
        finished.complaint()
    );
    Ok(finished.text())
}

fn parse(line: &str, user: Option<&str>) -> Outcome<Finding> {
    let mut fields = line.splitn(3, '\t');
    let (Some(name), Some(word), Some(detail)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(Failure::new(format!("the probe said {line:?}")));
    };
    let verdict = match word {
        "refused" => Verdict::Refused,
        "ESCAPED" => Verdict::Escaped,
        "skipped" => Verdict::Skipped,
        _ => return Err(Failure::new(format!("the probe said {line:?}"))),
    };
    Ok(Finding { name: name.to_owned(), user: user.map(str::to_owned), verdict, detail: detail.to_owned() })
}
