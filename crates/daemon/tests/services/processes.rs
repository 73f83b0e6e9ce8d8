//! Processes over the wire: output with offsets, input, exit as data, attaching again.

use crate::daemon::{Node, Running, reason, words};
use futures::StreamExt as _;
use hostel_proto::v1::process_event::Event;
use hostel_proto::v1::{self, CreateSandboxRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

type Requests = mpsc::Sender<v1::ExecProcessRequest>;

fn input(input: v1::process_input::Input) -> v1::ExecProcessRequest {
    let input = v1::ProcessInput { input: Some(input) };
    v1::ExecProcessRequest { frame: Some(v1::exec_process_request::Frame::Input(input)) }
}

async fn exec(
    daemon: &Running,
    sandbox: &str,
    command: &[&str],
) -> (Requests, Streaming<v1::ExecProcessResponse>) {
    let start = v1::StartProcessRequest {
        sandbox_id: sandbox.to_owned(),
        spec: Some(v1::ProcessSpec { command: words(command), stdin: true, ..Default::default() }),
        ..Default::default()
    };
    let open = v1::ExecOpen { start: Some(start), ..Default::default() };
    let (requests, stream) = mpsc::channel(4);
    let first = v1::ExecProcessRequest { frame: Some(v1::exec_process_request::Frame::Open(open)) };
    requests.send(first).await.unwrap();
    let events = daemon.processes().exec_process(ReceiverStream::new(stream)).await.unwrap().into_inner();
    (requests, events)
}

async fn event(stream: &mut Streaming<v1::ExecProcessResponse>) -> Event {
    stream.message().await.unwrap().unwrap().event.unwrap().event.unwrap()
}

#[tokio::test]
async fn a_command_runs_and_its_output_and_exit_come_in_order() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let (_requests, mut events) = exec(&daemon, &id, &["echo", "hello"]).await;
    let Event::Opened(opened) = event(&mut events).await else { panic!("not opened") };
    let process = opened.process.unwrap();
    assert_eq!((process.command, process.sandbox_id), (words(&["echo", "hello"]), id.clone()));
    let Event::Output(output) = event(&mut events).await else { panic!("no output") };
    assert_eq!((output.offset, &output.data[..]), (0, &b"hello\n"[..]));
    let Event::Exited(exit) = event(&mut events).await else { panic!("no exit") };
    assert_eq!(exit.outcome, Some(v1::exit_status::Outcome::ExitCode(0)));
    assert!(events.message().await.unwrap().is_none(), "the exit is the end");
    let wait = v1::WaitProcessRequest { sandbox_id: id, process_id: process.id, timeout: None };
    let ended = daemon.processes().wait_process(wait).await.unwrap().into_inner().process.unwrap();
    assert_eq!(ended.state(), v1::ProcessState::Exited);
}

#[tokio::test]
async fn input_flows_and_a_client_that_leaves_only_detaches() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let (requests, mut events) = exec(&daemon, &id, &["cat"]).await;
    let Event::Opened(opened) = event(&mut events).await else { panic!("not opened") };
    let process = opened.process.unwrap().id;
    let stdin = v1::StdinData { offset: 0, data: "ping".into() };
    requests.send(input(v1::process_input::Input::Stdin(stdin))).await.unwrap();
    let echoed = loop {
        if let Event::Output(output) = event(&mut events).await {
            break output;
        }
    };
    assert_eq!(&echoed.data[..], b"ping");
    drop((requests, events));

    let stdin = v1::StdinData { offset: 4, data: "pong".into() };
    let write =
        v1::WriteStdinRequest { sandbox_id: id.clone(), process_id: process.clone(), stdin: Some(stdin) };
    let written = daemon.processes().write_stdin(write).await.unwrap().into_inner();
    assert_eq!(written.accepted_offset, 8);
    let get = v1::GetProcessRequest { sandbox_id: id.clone(), process_id: process.clone() };
    let known = daemon.processes().get_process(get).await.unwrap().into_inner().process.unwrap();
    assert_eq!(known.stdin_offset, 8);
    assert_eq!((known.user.as_str(), known.working_directory.as_str()), ("root", "/"));

    let request = v1::StreamOutputRequest {
        sandbox_id: id.clone(),
        process_id: process.clone(),
        stdout_offset: 2,
        ..Default::default()
    };
    let mut output = daemon.processes().stream_output(request).await.unwrap().into_inner();
    let opened = output.message().await.unwrap().unwrap().event.unwrap().event.unwrap();
    assert!(matches!(opened, Event::Opened(_)));
    let Event::Output(rest) = output.message().await.unwrap().unwrap().event.unwrap().event.unwrap() else {
        panic!("no output")
    };
    assert_eq!((rest.offset, &rest.data[..]), (2, &b"ngpong"[..]));
    let close = v1::CloseStdinRequest { sandbox_id: id, process_id: process };
    daemon.processes().close_stdin(close).await.unwrap();
    let Event::Exited(_) = output.message().await.unwrap().unwrap().event.unwrap().event.unwrap() else {
        panic!("no exit")
    };
}

#[tokio::test]
async fn nonsense_on_a_stream_ends_it_with_the_field() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let (requests, mut events) = exec(&daemon, &id, &["sleep"]).await;
    event(&mut events).await;
    requests.send(input(v1::process_input::Input::Signal(0))).await.unwrap();
    assert_eq!(events.message().await.unwrap_err().code(), Code::InvalidArgument);
    let nothing = futures::stream::iter([v1::ExecProcessRequest::default()]);
    let error = daemon.processes().exec_process(nothing).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let wait = v1::WaitProcessRequest { sandbox_id: id, process_id: "none".into(), timeout: None };
    let error = daemon.processes().wait_process(wait).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "NOT_FOUND"));
}

#[tokio::test]
async fn waiting_has_a_bound_of_its_own_and_calls_have_deadlines() {
    let node = Node::new();
    let daemon = node.start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let process = daemon.start_process(&id, &["sleep"], "").await.unwrap().id;
    let soon = prost_types::Duration { seconds: 0, nanos: 20_000_000 };
    let mut wait = v1::WaitProcessRequest { sandbox_id: id, process_id: process, timeout: Some(soon) };
    let process = daemon.processes().wait_process(wait.clone()).await.unwrap().into_inner().process.unwrap();
    assert_eq!(process.state(), v1::ProcessState::Running);
    wait.timeout = None;
    let mut client = tonic::client::Grpc::new(daemon.channel());
    client.ready().await.unwrap();
    // Without a timer of its own, so that the server's answer is seen.
    let mut request = tonic::Request::new(wait);
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let path = http::uri::PathAndQuery::from_static("/hostel.v1.ProcessService/WaitProcess");
    let codec = tonic_prost::ProstCodec::<v1::WaitProcessRequest, v1::WaitProcessResponse>::default();
    let error = client.unary(request, path, codec).await.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
}

#[tokio::test]
async fn much_output_arrives_whole() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let (_requests, events) = exec(&daemon, &id, &["flood", "100000000"]).await;
    let begin = std::time::Instant::now();
    let received = events
        .fold(0u64, |sum, message| async move {
            match message.unwrap().event.unwrap().event.unwrap() {
                Event::Output(output) => {
                    assert_eq!(output.offset, sum);
                    sum + output.data.len() as u64
                }
                _ => sum,
            }
        })
        .await;
    assert_eq!(received, 100_000_000);
    println!("{:.2} GB/s", 0.1 / begin.elapsed().as_secs_f64());
}
