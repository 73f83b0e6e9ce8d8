//! The most that a template lets its sandboxes have.

use crate::daemon::{Node, Running};
use crate::pools::{claim, full, make, spec};
use hostel_proto::v1::{self, CreateSandboxRequest, PoolSpec, ResourceLimits, StartKind};
use hostel_sandbox::TemplateId;
use hostel_sandbox::template::{Template, TemplateSource};
use tonic::{Code, Status};

fn pids(pids: u32) -> Option<ResourceLimits> {
    Some(ResourceLimits { pids: Some(pids), ..Default::default() })
}

fn request(limits: Option<ResourceLimits>) -> CreateSandboxRequest {
    CreateSandboxRequest { template: "small".into(), limits, ..Default::default() }
}

/// A node whose template `small` allows 50 processes.
fn node() -> Node {
    let node = Node::new();
    let id = TemplateId::parse("small").unwrap();
    let mut template = Template::new(id.clone(), TemplateSource::Imported);
    template.max_limits.pids = Some(50);
    node.host.templates.lock().unwrap().insert(id, template);
    node
}

fn refused(status: &Status) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("51 is more than the 50 that the template small allows"), "{status}");
}

async fn refuses_more(daemon: &Running, id: &str) {
    let fork = v1::ForkSandboxRequest {
        sandbox_id: id.to_owned(),
        count: 1,
        limits: pids(51),
        ..Default::default()
    };
    refused(&daemon.sandboxes().fork_sandbox(fork).await.unwrap_err());
    let update = v1::UpdateSandboxRequest {
        sandbox_id: id.to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["limits".to_owned()] }),
        limits: pids(51),
        ..Default::default()
    };
    refused(&daemon.sandboxes().update_sandbox(update).await.unwrap_err());
}

#[tokio::test]
async fn nobody_gets_more_than_a_template_allows() {
    let node = node();
    let daemon = node.start().await;
    refused(&claim(&daemon, request(pids(51))).await.unwrap_err());
    let made = claim(&daemon, request(pids(50))).await.unwrap();
    refuses_more(&daemon, &made.sandbox.unwrap().id).await;
    // The node's default would be more.
    let made = claim(&daemon, request(None)).await.unwrap().sandbox.unwrap();
    assert_eq!(made.limits.unwrap().pids, Some(50));
}

#[tokio::test]
async fn a_claim_gets_no_more_either_and_a_pool_asks_for_no_more() {
    let node = node();
    let daemon = node.start().await;
    let small = |limits| PoolSpec { template: "small".into(), limits, ..spec(1) };
    refused(&make(&daemon, "p", small(pids(51))).await.unwrap_err());
    make(&daemon, "p", small(None)).await.unwrap();
    full(&daemon, 1).await;
    refused(&claim(&daemon, request(pids(51))).await.unwrap_err());
    let made = claim(&daemon, request(pids(49))).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
    refuses_more(&daemon, &made.sandbox.unwrap().id).await;
}

#[tokio::test]
async fn what_a_fork_inherits_is_lowered_to_what_the_template_allows_by_now() {
    let node = node();
    let daemon = node.start().await;
    let parent = daemon.create(request(pids(40))).await.unwrap().id;
    let id = TemplateId::parse("small").unwrap();
    daemon.stop().await.unwrap();
    node.host.templates.lock().unwrap().get_mut(&id).unwrap().max_limits.pids = Some(30);
    let daemon = node.start().await;
    let fork = |limits| v1::ForkSandboxRequest { sandbox_id: parent.clone(), limits, ..Default::default() };
    let forked = daemon.sandboxes().fork_sandbox(fork(None)).await.unwrap().into_inner();
    let Some(v1::fork_result::Result::Sandbox(child)) = &forked.results[0].result else {
        panic!("{forked:?}")
    };
    assert_eq!(child.limits.as_ref().unwrap().pids, Some(30));
    let error = daemon.sandboxes().fork_sandbox(fork(pids(31))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}
