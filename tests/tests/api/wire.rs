//! Bytes that are no requests, and connections that nobody ends.

use crate::{Stage, refused};
use bytes::Bytes;
use hostel_proto::v1;
use hostel_tests::{Api, RawCodec, TestDaemon, eventually, refusal, resident_bytes};
use http::uri::PathAndQuery;
use prost::Message as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};

const CREATE: &str = "/hostel.v1.SandboxService/CreateSandbox";
const GET: &str = "/hostel.v1.SandboxService/GetSandbox";
const EXEC: &str = "/hostel.v1.ProcessService/ExecProcess";
const WRITE: &str = "/hostel.v1.FileService/WriteFile";

/// Calls a method with a stream of whatever bytes, and takes the first answer.
async fn call(api: &Api, method: &'static str, messages: Vec<Bytes>) -> Result<Option<Bytes>, Status> {
    let mut client = Grpc::new(api.channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(method);
    let answers = client.streaming(Request::new(tokio_stream::iter(messages)), path, RawCodec).await;
    answers?.into_inner().message().await
}

/// Bytes that no message begins with: a field without a value, wrong types, a length beyond the end, no UTF-8.
fn damaged() -> Vec<Bytes> {
    [
        &b"\x0a"[..],
        b"\xff\xff\xff\xff\xff\xff",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x02\xc3\x28",
        b"\x08\x01\x0f",
        b"\x00",
    ]
    .map(Bytes::from_static)
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_read_are_the_senders_fault() {
    let stage = Stage::set().await;
    let wrong = (Code::InvalidArgument, "INVALID_ARGUMENT".to_owned());
    for bytes in damaged() {
        for method in [CREATE, GET, EXEC, WRITE] {
            assert_eq!(
                refused(call(&stage.api, method, vec![bytes.clone()]).await),
                wrong,
                "{method} {bytes:?}"
            );
        }
    }
    // A message of 5 MiB, where 4 are taken.
    let long = v1::GetSandboxRequest { sandbox_id: "x".repeat(5 << 20) }.encode_to_vec();
    for method in [GET, EXEC, WRITE] {
        let refused = refused(call(&stage.api, method, vec![long.clone().into()]).await);
        assert_eq!(refused, (Code::ResourceExhausted, "LIMIT_REACHED".to_owned()), "{method}");
    }
    assert_eq!(refused(call(&stage.api, GET, vec![]).await), wrong, "no message at all");

    // What comes from a newer client is not looked at.
    let mut newer = v1::GetSandboxRequest { sandbox_id: stage.victim.clone() }.encode_to_vec();
    newer.extend_from_slice(b"\xfa\x3f\x05later\xf0\x3f\x01");
    assert!(call(&stage.api, GET, vec![newer.into()]).await.unwrap().is_some());
    let unknown = call(&stage.api, "/hostel.v1.SandboxService/Nonesuch", vec![]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goes_wrong_later_ends_with_an_answer() {
    let stage = Stage::set().await;
    let open = v1::ExecOpen { start: Some(stage.process(&["sleep", "1000"])), ..Default::default() };
    let frame = v1::exec_process_request::Frame::Open(open);
    let open: Bytes = v1::ExecProcessRequest { frame: Some(frame) }.encode_to_vec().into();
    for (later, code) in [
        (Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f"), Code::InvalidArgument),
        (Bytes::new(), Code::InvalidArgument),
        (open.clone(), Code::InvalidArgument),
        (vec![0x12; 5 << 20].into(), Code::ResourceExhausted),
    ] {
        let mut client = Grpc::new(stage.api.channel.clone());
        client.ready().await.unwrap();
        let messages = tokio_stream::iter([open.clone(), later.clone()]);
        let path = PathAndQuery::from_static(EXEC);
        let mut answers =
            client.streaming(Request::new(messages), path, RawCodec).await.unwrap().into_inner();
        let status = loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well after {later:.20?}"),
                Err(status) => break status,
            }
        };
        assert_eq!(refusal(&status).code, code, "{later:.20?}: {status:?}");
    }
    let name = v1::WriteFileOpen {
        sandbox_id: stage.victim.clone(),
        path: "/workspace/x".into(),
        ..Default::default()
    };
    let open = v1::WriteFileRequest { frame: Some(v1::write_file_request::Frame::Open(name)) };
    let messages = vec![open.encode_to_vec().into(), Bytes::from_static(b"\x12\xff\xff\xff\xff\x0f")];
    assert_eq!(refused(call(&stage.api, WRITE, messages).await).0, Code::InvalidArgument);
    assert_eq!(stage.daemon.shell(&stage.victim, "ls -A /workspace"), "");
    stage.clear();
}

fn open_descriptors(daemon: &TestDaemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_a_thousand_streams_and_goes_is_forgotten() {
    let stage = Stage::set().await;
    let started = stage.api.processes().start_process(stage.process(&["sleep", "1000"])).await.unwrap();
    let process_id = started.into_inner().process.unwrap().id;
    let before = open_descriptors(&stage.daemon);
    let crowd = Api::connect(&stage.daemon).await;
    let mut streams = Vec::new();
    let mut refusals = 0;
    for _ in 0..500 {
        let (sandbox_id, process_id) = (stage.victim.clone(), process_id.clone());
        let output = v1::StreamOutputRequest { sandbox_id, process_id, ..Default::default() };
        match crowd.processes().stream_output(output).await {
            Ok(stream) => streams.push(stream.map(drop)),
            Err(status) => {
                assert_eq!(refusal(&status).code, Code::ResourceExhausted, "{status:?}");
                refusals += 1;
            }
        }
        let watch = v1::WatchSandboxesRequest::default();
        if let Err(status) = crowd.sandboxes().watch_sandboxes(watch).await {
            assert_eq!(refusal(&status).code, Code::ResourceExhausted, "{status:?}");
        }
    }
    eprintln!("{} attached, {refusals} refused", streams.len());
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (sandbox_id, process_id) = (stage.victim.clone(), process_id.clone());
        let wait = v1::WaitProcessRequest { sandbox_id, process_id, timeout: None };
        let mut processes = crowd.processes();
        held.spawn(async move { processes.wait_process(wait).await });
    }
    // While they are there, others go on, and the sandbox answers.
    let _ = stage.daemon.hostel(&["run", "--", "true"]).success();
    let _ = stage.daemon.hostel(&["ps", &stage.victim]).success();
    held.abort_all();
    drop((crowd, streams, held));
    eventually("the daemon lets go of them", || open_descriptors(&stage.daemon) <= before + 8);
    assert_eq!(stage.daemon.shell(&stage.victim, "echo again"), "again");
    stage.clear();
}

const WAIT_THEN_WRITE: &str = "while [ ! -e /tmp/attached ]; do sleep 0.01; done; exec yes";

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_holds_its_process_back_and_nobody_else() {
    let stage = Stage::set().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let process = stage.process(&["sh", "-c", WAIT_THEN_WRITE]);
        let started = stage.api.processes().start_process(process).await.unwrap();
        let process_id = started.into_inner().process.unwrap().id;
        let sandbox_id = stage.victim.clone();
        let output =
            v1::StreamOutputRequest { sandbox_id, process_id: process_id.clone(), ..Default::default() };
        let reader = Api::connect(&stage.daemon).await;
        let stream = reader.processes().stream_output(output).await.unwrap().into_inner();
        streams.push((process_id, reader, stream));
    }
    // What nobody is attached to may write what it likes.
    let _ = stage.daemon.hostel(&["exec", &stage.victim, "--", "touch", "/tmp/attached"]).success();
    // Another client has much to read meanwhile.
    for _ in 0..4 {
        let copied =
            stage.daemon.hostel(&["exec", &stage.witness, "--", "head", "-c", "32000000", "/dev/zero"]);
        assert_eq!(copied.success().len(), 32_000_000);
    }
    for (process_id, ..) in &streams {
        let mut written = 0;
        eventually("it is held back", || {
            let list = stage.daemon.hostel(&["--json", "ps", &stage.victim]);
            let list: serde_json::Value = serde_json::from_str(list.success()).unwrap();
            let process =
                list["processes"].as_array().unwrap().iter().find(|one| one["id"] == *process_id).unwrap();
            let now = process["stdout"]["end_offset"].as_u64().unwrap();
            std::mem::replace(&mut written, now) == now
        });
        assert!(written < 64 << 20, "{written} bytes for somebody who reads nothing");
    }
    let resident = resident_bytes(stage.daemon.pid());
    assert!(resident < 256 << 20, "the daemon has {resident} bytes");
    drop(streams);
    stage.clear();
}

/// What begins like HTTP/2 and is not, or is nothing at all.
fn garbage() -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |length: [u8; 3], kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let header = [&length[..], &[kind, flags, 0, 0, 0, stream]].concat();
        [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &header, payload].concat()
    };
    let mut noise = vec![0; 100_000];
    for (index, byte) in noise.iter_mut().enumerate() {
        *byte = (index.wrapping_mul(2_654_435_761) >> 11) as u8;
    }
    vec![
        vec![],
        vec![0],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        noise.clone(),
        [PREFACE, &noise].concat(),
        // The longest frame, announced and not sent; headers that never end, that index nothing, that are cut.
        frame([0xff; 3], 0, 0, 1, &[]),
        frame([0, 0, 4], 1, 0, 1, &[0x82; 4]),
        frame([0, 0, 6], 1, 4, 1, &[0xff; 6]),
        frame([0, 0, 9], 1, 4, 1, &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        frame([0, 0, 3], 1, 0x0c, 1, &[250, 0x82, 0x86]),
        frame([0, 0, 5], 1, 4, 2, &[0x41, 3, b'%', b'2', b'F']),
        frame([0, 0, 4], 9, 4, 7, &[0x82; 4]),
        frame([0, 0, 8], 6, 0, 0, &[7; 8]),
        frame([0, 0, 5], 4, 0, 0, &[0; 5]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_speak_nonsense_or_nothing_disturb_nobody() {
    let stage = Stage::set().await;
    let before = open_descriptors(&stage.daemon);
    let mut open = Vec::new();
    for bytes in garbage() {
        for ends in [true, false] {
            let mut connection = UnixStream::connect(stage.daemon.socket()).unwrap();
            // It may be closed already while we still write.
            let _ = connection.write_all(&bytes);
            if ends {
                let _ = connection.shutdown(std::net::Shutdown::Write);
                let mut answer = Vec::new();
                let _ = connection.read_to_end(&mut answer);
            } else {
                open.push(connection);
            }
        }
        assert_eq!(stage.daemon.shell(&stage.victim, "echo fine"), "fine", "after {bytes:.40?}");
    }
    for _ in 0..300 {
        drop(UnixStream::connect(stage.daemon.socket()).unwrap());
    }
    drop(open);
    eventually("the daemon lets go of them", || open_descriptors(&stage.daemon) <= before + 8);
    stage.clear();
}
