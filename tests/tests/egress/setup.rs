//! A daemon whose sandboxes' names are resolved by us, and servers of ours that stand for the internet.

use hostel_tests::{NameServer, Setup, TestDaemon, skip};
use rustix::process::geteuid;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The names of these tests: all are this host.
pub(crate) const NAMES: [&str; 4] =
    ["web.example.com", "other.example.com", "api.example.com", "deep.api.example.com"];

/// An address of this host that is not loopback, which sandboxes have themselves.
pub(crate) fn here() -> Option<Ipv4Addr> {
    // Nothing is sent: the kernel only says which address it would send from.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

/// Whether this can be tested here; says so where not.
pub(crate) fn usable(what: &str) -> bool {
    let why = match (geteuid().is_root(), here()) {
        (true, Some(_)) => return true,
        (false, _) => "only root may enter network namespaces",
        (true, None) => "this host has no address but loopback",
    };
    skip(&format!("{what}: {why}"));
    false
}

/// A daemon that asks our name server, and whatever else.
pub(crate) fn daemon(more: Setup) -> (TestDaemon, NameServer) {
    let here = here().unwrap();
    let names = NameServer::start(NAMES.map(|name| (name, here)));
    let mut setup = more;
    setup.environment.push(("HOSTEL_NAME_SERVER", OsString::from(names.address().to_string())));
    // Our servers are this host's own, which nobody reaches otherwise.
    setup.environment.push(("HOSTEL_REACHABLE", OsString::from(format!("{here}/32"))));
    let mut daemon = TestDaemon::prepare(setup);
    daemon.restart();
    (daemon, names)
}

/// An HTTP server that answers every request with who it is, and keeps what it was sent.
pub(crate) struct Web {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((here().unwrap(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (kept, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || answer(stream, &kept));
            }
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Heads of requests, oldest first.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    // A path of its own keeps the connection until the other end lets go.
    let waits = head.starts_with("GET /wait ");
    seen.lock().unwrap().push(head);
    let length = if waits { 100 } else { 5 };
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nhello");
    if stream.write_all(answer.as_bytes()).is_ok() && waits {
        let _ = stream.read(&mut byte);
    }
}

/// A command that asks a web server over plain TCP, as a program does that knows no proxies; needs only bash.
pub(crate) fn fetch(host: &str, port: u16, path: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/{host}/{port} && printf 'GET {path} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3"
    )
}
