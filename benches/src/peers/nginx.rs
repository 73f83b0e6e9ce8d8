//! nginx as a reverse proxy before the scripted model, as people put one before an API.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server of our own; it ends when dropped.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    _place: TempDir,
}

impl Nginx {
    pub(crate) fn start(model: SocketAddr) -> Result<Self> {
        let place =
            tempfile::Builder::new().prefix("hostel-bench-nginx.").tempdir().context("a directory")?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a port")?;
        let address = free.local_addr().context("an address")?;
        drop(free);
        let configuration = format!(
            "daemon off; master_process off; error_log stderr; pid {place}/pid;
             events {{ worker_connections 4096; }}
             http {{ access_log off; client_max_body_size 32m; client_body_temp_path {place}/body;
               proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi;
               scgi_temp_path {place}/scgi; tcp_nodelay on;
               upstream model {{ server {model}; keepalive 64; }}
               server {{ listen {address}; location / {{ proxy_pass http://model; proxy_http_version 1.1;
                 proxy_set_header Connection \"\"; proxy_buffering off; proxy_request_buffering off; }} }} }}",
            place = place.path().display(),
        );
        let file = place.path().join("nginx.conf");
        fs::write(&file, configuration).context("configure nginx")?;
        let child = Command::new("nginx")
            .arg("-p")
            .arg(place.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start it")?;
        let mut nginx = Self { child, address, _place: place };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = nginx.child.try_wait().context("look after it")? {
                bail!("it ended with {status}");
            }
            if start.elapsed() > PATIENCE {
                bail!("it did not listen within {PATIENCE:?}");
            }
            std::thread::yield_now();
        }
        Ok(nginx)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
