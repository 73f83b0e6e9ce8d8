//! The real guest, where `HOSTEL_TEST_GUEST` says where its program is:
//! `HOSTEL_TEST_GUEST=target/guest/…/hostel-guest cargo test -p hostel-guest-client -- --ignored real`.

use super::script::{TOKEN, id, spec};
use crate::{Endpoint, Guest};
use bytes::Bytes;
use hostel_guest_protocol::GuestConfig;
use hostel_sandbox::file::{ByteStream, Compression, WriteOptions};
use hostel_sandbox::process::{AttachOptions, Input, Output, OutputStream, ProcessSpec};
use hostel_sandbox::{Files, Processes};
use prost::Message;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

struct Real {
    child: Child,
    directory: tempfile::TempDir,
    guest: Guest,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start() -> Option<Real> {
    let program = std::env::var_os("HOSTEL_TEST_GUEST")?;
    let directory = tempfile::tempdir().unwrap();
    let (socket, config) = (directory.path().join("guest.sock"), directory.path().join("config"));
    let told = GuestConfig { token: TOKEN.to_vec(), ..GuestConfig::default() };
    std::fs::write(&config, told.encode_to_vec()).unwrap();
    let mut command = Command::new(program);
    command.arg("supervise").arg("--socket").arg(&socket).arg("--config").arg(&config);
    let child = command.arg("--spill").arg(directory.path()).spawn().unwrap();
    let guest = Guest::new(Endpoint::open(directory.path(), "guest.sock", TOKEN).unwrap());
    while guest.ping(Duration::from_secs(1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Some(Real { child, directory, guest })
}

fn shell(line: &str) -> ProcessSpec {
    ProcessSpec { stdin: true, ..spec(&["/bin/sh", "-c", line]) }
}

fn content(bytes: Vec<u8>) -> ByteStream {
    let (sender, content) = mpsc::channel(1);
    sender.try_send(Ok(bytes.into())).unwrap();
    content
}

async fn collect(mut stream: ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = stream.recv().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guest's program"]
async fn real_processes() {
    let Some(real) = start().await else { return };
    let guest = &real.guest;
    // More in and out than all buffers on the way hold: this ends only if neither direction waits for the other.
    let attachment = guest.exec(shell("cat"), AttachOptions::everything()).await.unwrap();
    let total: u64 = 64 << 20;
    let (input, mut output) = (attachment.input, attachment.output);
    let writer = async {
        let data = Bytes::from(vec![b'x'; 256 << 10]);
        for index in 0..total >> 18 {
            input.send(Input::Stdin { offset: index << 18, data: data.clone() }).await.unwrap();
        }
        input.send(Input::CloseStdin).await.unwrap();
        // Late enough that the process has to wait for its reader.
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let reader = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut had = 0;
        while let Some(said) = output.recv().await {
            match said.unwrap() {
                Output::Data { offset, data, .. } => {
                    assert_eq!(offset, had);
                    had += data.len() as u64;
                }
                Output::Exited(status) => assert_eq!(status.code, Some(0)),
                Output::Gap { .. } => panic!("a gap for a reader that is there"),
                Output::Opened(_) | Output::StdinAccepted { .. } => {}
            }
        }
        had
    };
    let both = async { tokio::join!(writer, reader) };
    let ((), had) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(had, total);

    let process =
        guest.start(ProcessSpec { id: Some(id("later")), ..shell("sleep 0.2; exit 5") }).await.unwrap();
    assert_eq!(
        guest.start(ProcessSpec { id: Some(id("later")), ..shell("") }).await.unwrap_err().reason(),
        "ALREADY_EXISTS"
    );
    assert_eq!(guest.wait(&process.id).await.unwrap().exit.unwrap().code, Some(5));
    assert_eq!(guest.signal(&process.id, 9).await.unwrap_err().reason(), "PROCESS_ENDED");
    assert_eq!(
        guest.start(spec(&["no-such-program"])).await.unwrap_err().to_string(),
        r#"no program "no-such-program""#
    );
    assert_eq!(guest.process(&id("nobody")).await.unwrap_err().reason(), "NOT_FOUND");
    assert!(guest.processes().await.unwrap().len() >= 2);

    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let mut attachment = guest.exec(spec(&["/bin/true"]), AttachOptions::everything()).await.unwrap();
        while !matches!(attachment.output.recv().await, Some(Ok(Output::Exited(_)))) {}
        times.push(start.elapsed());
    }
    times.sort();
    println!("exec of true: {:?} median, {:?} at 95 %", times[100], times[190]);

    let start = Instant::now();
    let line = "head -c 8G /dev/zero";
    let mut attachment = guest.exec(shell(line), AttachOptions::everything()).await.unwrap();
    let mut had = 0;
    while let Some(said) = attachment.output.recv().await {
        if let Output::Data { stream: OutputStream::Stdout, data, .. } = said.unwrap() {
            had += data.len() as u64;
        }
    }
    assert_eq!(had, 8 << 30);
    println!("output: {:.2} GB/s", had as f64 / start.elapsed().as_secs_f64() / 1e9);
    guest.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guest's program"]
async fn real_files() {
    let Some(real) = start().await else { return };
    let guest = &real.guest;
    let root = real.directory.path().join("files").to_str().unwrap().to_owned();
    let path = |name: &str| format!("{root}/{name}");
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| i.to_le_bytes()[(i % 3) as usize]).collect();
    let options = WriteOptions { create_parents: true, ..WriteOptions::default() };
    let written = guest.write(&path("a/b"), options.clone(), content(bytes.clone())).await.unwrap();
    assert_eq!(written.size, bytes.len() as u64);
    let (info, read) = guest.read(&path("a/b"), 1000, Some(2_000_000)).await.unwrap();
    assert_eq!(info.size, written.size);
    assert!(collect(read).await == bytes[1000..2_001_000]);
    let in_place = WriteOptions { offset: Some(3), ..WriteOptions::default() };
    guest.write(&path("a/b"), in_place, content(b"HERE".to_vec())).await.unwrap();
    let (_, read) = guest.read(&path("a/b"), 0, Some(10)).await.unwrap();
    assert_eq!(collect(read).await[3..7], *b"HERE");
    let mut events = guest.watch(&root, true).await.unwrap();
    guest.make_directory(&path("new"), false, None).await.unwrap();
    assert_eq!(events.recv().await.unwrap().unwrap().path, path("new"));
    guest.rename(&path("a/b"), &path("new/c"), false).await.unwrap();
    let names: Vec<String> =
        guest.list(&root, None, 10).await.unwrap().files.into_iter().map(|file| file.path).collect();
    assert_eq!(names, [path("a"), path("new")]);
    assert_eq!(guest.remove(&path("new"), false).await.unwrap_err().reason(), "DIRECTORY_NOT_EMPTY");
    for compression in [Compression::None, Compression::Zstd] {
        let archive = guest.export(&path("new"), compression).await.unwrap();
        let copy = path(&format!("copy-{compression:?}"));
        assert_eq!(guest.import(&copy, compression, archive).await.unwrap(), 2);
        let (_, read) = guest.read(&format!("{copy}/new/c"), 7, None).await.unwrap();
        assert!(collect(read).await == bytes[7..]);
    }
    let garbage = guest.import(&path("garbage"), Compression::None, content(vec![7; 3_000_000])).await;
    assert_eq!(garbage.unwrap_err().reason(), "INVALID_ARGUMENT");
    let error = guest.export(&path("nothing"), Compression::None).await.unwrap_err();
    assert_eq!(error.reason(), "NOT_FOUND");
    guest.remove(&root, true).await.unwrap();
    assert_eq!(guest.stat(&root, true).await.unwrap_err().reason(), "NOT_FOUND");
    let dropped = guest.write("/dev/shm/hostel-dropped", options, mpsc::channel(1).1);
    drop(dropped.await);
    guest.remove("/dev/shm/hostel-dropped", false).await.unwrap();
    assert!(guest.activity().await.unwrap().running == 0);
    guest.shutdown_guest().await.unwrap();
    guest.close().await;
}
