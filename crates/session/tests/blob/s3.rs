//! A server that speaks S3, written by others.

use hostel_session::{BlobLocation, S3Bucket};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const BUCKET: &str = "hostel-test";

pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// None where it cannot be had, which is told.
    pub(crate) fn start() -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let made = Command::new(root.join("scripts/s3-server.sh")).output().unwrap();
        if !made.status.success() {
            eprintln!(
                "skipped: there is no server that speaks S3: {}",
                String::from_utf8_lossy(&made.stderr)
            );
            return None;
        }
        let program = String::from_utf8(made.stdout).unwrap();
        let mut child = Command::new(program.lines().last().unwrap())
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("http://").map(|(_, address)| address.trim().to_owned()));
        let address = address.expect("the server did not start").parse().unwrap();
        // It logs every request, and would stop when nobody read that.
        std::thread::spawn(move || lines.for_each(drop));
        make_bucket(address);
        Some(Self { child, address })
    }

    pub(crate) fn bucket(&self, prefix: &str) -> BlobLocation {
        bucket_at(self.address, prefix)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn bucket_at(address: SocketAddr, prefix: &str) -> BlobLocation {
    BlobLocation::S3(S3Bucket {
        bucket: BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(format!("http://{address}")),
        credentials: Some(("key-id".to_owned(), "secret-key".into())),
    })
}

fn make_bucket(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "PUT /{BUCKET} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}
