//! What operators can set, with defaults that need no setting.

use crate::namespace::original_destination;
use crate::resolve::Names;
use ipnet::IpNet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Settings of a daemon's egress.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Limits of each sandbox.
    pub limits: Limits,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// Whom to ask for the addresses of names.
    pub names: Names,
    /// Ranges that count as public although they are not, even where they are this host's own addresses.
    pub reachable: Vec<IpNet>,
    /// Ranges that nobody reaches, whatever a policy says.
    pub forbidden: Vec<IpNet>,
    /// Lets connections pass whose ClientHello may hide a second name (encrypted ClientHello). Such a name is not
    /// seen here, so with mode `allowlist` a host of the same provider could be reached that no rule allows.
    pub encrypted_hello: bool,
    /// How the original destination of a redirected connection is found.
    pub origin: Origin,
    /// Where sandboxes are served, in turn; empty: in the runtime where they are attached. With runtimes of one thread
    /// each, what a connection does wakes no second thread, and a disk that is slow with the audit log holds up nothing
    /// else of the program.
    pub runtimes: Vec<Handle>,
}

/// Limits of each sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Connections whose buffers the kernel sizes as it likes; further ones have small buffers.
    pub at_ease: usize,
    /// Connections that have not yet said what they want; others wait.
    pub undecided: usize,
    /// New connections in a second; others wait.
    pub connections_per_second: u32,
    /// Refusals in a second that are recorded each; of more the number is recorded.
    pub refusals_per_second: u32,
    /// Bytes of a ClientHello or of an HTTP head.
    pub head_bytes: usize,
    /// DNS questions at the same time.
    pub questions: usize,
    /// DNS questions in a minute.
    pub questions_per_minute: u32,
    /// Different names asked for in a minute.
    pub names_per_minute: u32,
    /// Different names below one parent (of two labels) in a minute.
    pub names_below_one_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            at_ease: 64,
            undecided: 64,
            connections_per_second: 5000,
            refusals_per_second: 50,
            head_bytes: 16 * 1024,
            questions: 64,
            questions_per_minute: 3000,
            names_per_minute: 600,
            names_below_one_per_minute: 120,
        }
    }
}

/// Limits of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to say what it wants.
    pub sniff: Duration,
    /// How long a program may say nothing before its server is let speak first. Not on ports 80 and 443.
    pub quiet: Duration,
    /// For a name to be resolved.
    pub resolve: Duration,
    /// For a connection to a host.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// For connections to end when a sandbox ends.
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            sniff: Duration::from_secs(10),
            quiet: Duration::from_millis(300),
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(15 * 60),
            close: Duration::from_secs(2),
        }
    }
}

/// Tells the original destination of a connection.
pub type OriginHook = dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync;

/// How the original destination of a redirected connection is found.
#[derive(Clone, Default)]
pub enum Origin {
    /// The kernel is asked.
    #[default]
    Kernel,
    /// Told by a function, for tests.
    Hook(Arc<OriginHook>),
}

impl Origin {
    pub(crate) fn of(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel => original_destination(stream),
            Self::Hook(hook) => hook(stream),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "Kernel",
            Self::Hook(_) => "Hook",
        })
    }
}
