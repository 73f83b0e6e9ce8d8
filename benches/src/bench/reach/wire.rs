//! Clients and a server as plain as can be: what is measured is what lies between them.

use anyhow::{Context as _, Result, bail, ensure};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Of a request, with its system prompt and tools, as an agent's first.
const REQUEST_BYTES: usize = 48 << 10;
const PATIENCE: Duration = Duration::from_secs(60);
/// What is asked of [`Raw`]. No letters: a word could become a request of HTTP, and is waited for.
const TOUCH: u8 = 1;
const MUCH: u8 = 2;

/// How an answer came.
pub(super) struct Times {
    /// Until its first byte.
    pub(super) first: Duration,
    /// Until its last.
    pub(super) all: Duration,
    /// How many bytes it had, head and framing included.
    pub(super) bytes: u64,
}

/// A connection to a model, kept open.
pub(super) struct Model {
    stream: TcpStream,
    key: String,
}

impl Model {
    /// To the endpoint or a proxy before it.
    pub(super) fn direct(address: SocketAddr) -> Result<Self> {
        Ok(Self { stream: connect(address)?, key: "none".to_owned() })
    }

    /// Over this connection, with this key.
    pub(super) fn over(stream: TcpStream, key: &str) -> Self {
        Self { stream, key: key.to_owned() }
    }

    /// Asks, and reads the answer to its end; `at_least` so many bytes are expected.
    pub(super) fn ask(&mut self, prompt: &str, at_least: Option<u64>) -> Result<Times> {
        let padding = "x".repeat(REQUEST_BYTES.saturating_sub(prompt.len()));
        let body = serde_json::json!({
            "model": "claude-haiku-4-5", "max_tokens": 1024, "stream": true, "system": padding,
            "messages": [{ "role": "user", "content": prompt }],
        })
        .to_string();
        let request = format!(
            "POST /v1/messages?beta=true HTTP/1.1\r\nhost: model\r\nx-api-key: {}\r\nanthropic-version: 2023-06-01\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        let start = Instant::now();
        self.stream.write_all(request.as_bytes()).context("send a request")?;
        let mut buffer = vec![0; 256 << 10];
        let (mut first, mut bytes, mut end) = (None, 0, Vec::new());
        loop {
            let length = self.stream.read(&mut buffer).context("read an answer")?;
            ensure!(length > 0, "the answer ended early, after {bytes} bytes");
            if first.is_none() {
                ensure!(
                    buffer.starts_with(b"HTTP/1.1 200"),
                    "{}",
                    String::from_utf8_lossy(&buffer[..length])
                );
            }
            let first = *first.get_or_insert_with(|| start.elapsed());
            bytes += u64::try_from(length)?;
            end.extend_from_slice(&buffer[length.saturating_sub(16)..length]);
            // The last chunk (RFC 9112 §7.1).
            if end.ends_with(b"\r\n0\r\n\r\n") {
                ensure!(at_least.is_none_or(|least| bytes >= least), "only {bytes} bytes came");
                return Ok(Times { first, all: start.elapsed(), bytes });
            }
            end.drain(..end.len().saturating_sub(16));
        }
    }
}

/// Connects.
pub(super) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
    Ok(stream)
}

/// One byte there and one back.
pub(super) fn touch(mut stream: TcpStream) -> Result<()> {
    stream.write_all(&[TOUCH]).context("send a byte")?;
    stream.read_exact(&mut [0]).context("read a byte")
}

/// Asks for very much, and reads so many bytes.
pub(super) fn drain(mut stream: TcpStream, bytes: u64) -> Result<Duration> {
    let start = Instant::now();
    stream.write_all(&[MUCH]).context("send a byte")?;
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    while count < bytes {
        match stream.read(&mut buffer).context("read")? {
            0 => bail!("only {count} bytes came"),
            length => count += u64::try_from(length)?,
        }
    }
    Ok(start.elapsed())
}

/// A server that sends what the first byte asks for: one byte, or as many as are taken. Ends with the program.
pub(super) struct Raw(SocketAddr);

impl Raw {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((super::stage::here()?, 0)).context("listen")?;
        let address = listener.local_addr().context("an address")?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(Self(address))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0
    }
}

fn serve(mut stream: TcpStream) {
    let mut asked = [0];
    if stream.set_nodelay(true).is_err() || stream.read_exact(&mut asked).is_err() {
        return;
    }
    let much = vec![0; 256 << 10];
    if asked == [MUCH] {
        while stream.write_all(&much).is_ok() {}
    } else {
        // Who goes away has what it wanted.
        let _ = stream.write_all(b"1");
    }
}
