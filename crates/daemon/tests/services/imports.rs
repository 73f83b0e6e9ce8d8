//! Imports of templates that go wrong: callers that go away, and too many at a time.

use crate::daemon::{Node, Running, eventually};
use hostel_proto::v1;
use hostel_proto::v1::import_template_request::Frame;
use hostel_sandbox::TemplateId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

/// An import whose pieces are sent by hand.
fn begin(
    daemon: &Running,
    name: &str,
    request_id: &str,
) -> (mpsc::Sender<v1::ImportTemplateRequest>, impl Future<Output = Answer> + use<>) {
    let (pieces, stream) = mpsc::channel(4);
    let open =
        v1::ImportTemplateOpen { name: name.into(), request_id: request_id.into(), ..Default::default() };
    pieces.try_send(v1::ImportTemplateRequest { frame: Some(Frame::Open(open)) }).unwrap();
    let mut templates = daemon.templates();
    (pieces, async move { templates.import_template(ReceiverStream::new(stream)).await })
}

type Answer = Result<Response<v1::ImportTemplateResponse>, Status>;

#[tokio::test]
async fn a_caller_that_goes_away_leaves_neither_a_name_nor_a_request_behind() {
    let node = Node::new();
    let daemon = node.start().await;
    let (pieces, call) = begin(&daemon, "base", "once");
    {
        let begun = eventually("the import begins", || !node.host.importing.lock().unwrap().is_empty());
        tokio::select! {
            answer = call => panic!("it cannot be over: {answer:?}"),
            () = begun => {}
        }
    }
    // The call was dropped, which is all that the daemon sees of a caller that is gone.
    eventually("the import ends", || node.host.importing.lock().unwrap().is_empty()).await;
    let is_base = |id: &TemplateId| id.as_str() == "base";
    assert!(!node.host.templates.lock().unwrap().keys().any(is_base), "half an archive is none");
    drop(pieces);
    let (pieces, again) = begin(&daemon, "base", "once");
    drop(pieces);
    let made = again.await.unwrap().into_inner().template.unwrap();
    assert_eq!(made.name, "base");
}

#[tokio::test]
async fn few_imports_are_made_at_a_time_and_the_others_wait() {
    let node = Node::new();
    let daemon = node.start().await;
    let mut begun: Vec<_> = (0..5).map(|i| begin(&daemon, &format!("t{i}"), "")).collect();
    let pieces: Vec<_> = begun.iter_mut().map(|(pieces, _)| pieces.clone()).collect();
    let calls = futures::future::join_all(begun.into_iter().map(|(_, call)| call));
    let release = async {
        eventually("two imports begin", || node.host.imports.lock().unwrap().0 == 2).await;
        drop(pieces);
    };
    let (answers, ()) = tokio::join!(calls, release);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(node.host.imports.lock().unwrap().1, 2);
}
