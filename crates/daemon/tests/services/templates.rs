//! Templates of several backends, and those that take the place of others.

use crate::daemon::{Node, Running, reason};
use crate::fake::{Fake, Host};
use crate::pools::{claim, full, make, spec, until};
use hostel_proto::v1::import_template_request::Frame;
use hostel_proto::v1::{
    CreateSandboxRequest, DeleteTemplateRequest, GetTemplateRequest, ImportTemplateOpen,
    ImportTemplateRequest, ListTemplatesRequest, Pool, PoolSpec, StartKind, Template as Shown,
    TemplateDefaults,
};
use hostel_sandbox::TemplateId;
use hostel_sandbox::template::{Template, TemplateSource};
use std::sync::atomic::Ordering;
use tonic::{Code, Status};

fn put(host: &Host, name: &str) -> TemplateId {
    let id = TemplateId::parse(name).unwrap();
    let template = Template::new(id.clone(), TemplateSource::Imported);
    host.templates.lock().unwrap().insert(id.clone(), template);
    id
}

async fn template(daemon: &Running, name: &str, backend: &str) -> Result<Shown, Status> {
    let request = GetTemplateRequest { name: name.into(), backend: backend.into() };
    Ok(daemon.templates().get_template(request).await?.into_inner().template.unwrap())
}

#[tokio::test]
async fn a_backend_that_is_named_says_itself_why_it_cannot_answer() {
    let (node, other) = (Node::new(), Host::new());
    let id = put(&node.host, "agent");
    put(&other, "agent");
    let daemon = node.start_beside(node.config(), vec![Fake::named("other", &other)]).await;
    other.listless.store(true, Ordering::SeqCst);
    let delete = |backend: &str| DeleteTemplateRequest {
        name: "agent".into(),
        allow_missing: true,
        backend: backend.into(),
    };
    let refused = daemon.templates().delete_template(delete("other")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    assert_eq!(template(&daemon, "agent", "other").await.unwrap_err().code(), Code::Internal);
    assert_eq!(template(&daemon, "agent", "fake").await.unwrap().backends, ["fake"]);

    other.listless.store(false, Ordering::SeqCst);
    daemon.templates().delete_template(delete("other")).await.unwrap();
    assert!(!other.templates.lock().unwrap().contains_key(&id));
    assert!(node.host.templates.lock().unwrap().contains_key(&id));
    // Where there is none such, that is no error to whoever says so.
    daemon.templates().delete_template(delete("none")).await.unwrap();
    daemon.stop().await.unwrap();
}

/// Imports a template `agent` whose sandboxes have this in their environment.
async fn import(daemon: &Running, value: &str, open: ImportTemplateOpen) -> Result<Shown, Status> {
    let env = [("VALUE".to_owned(), value.to_owned())].into();
    let defaults = Some(TemplateDefaults { env, ..Default::default() });
    let open = ImportTemplateOpen { name: "agent".into(), defaults, ..open };
    let requests = vec![ImportTemplateRequest { frame: Some(Frame::Open(open)) }];
    let mut templates = daemon.templates();
    let made = templates.import_template(futures::stream::iter(requests)).await?;
    Ok(made.into_inner().template.unwrap())
}

fn replacing() -> ImportTemplateOpen {
    ImportTemplateOpen { request_id: "once".into(), replace: true, ..Default::default() }
}

#[tokio::test]
async fn a_template_that_takes_another_one_s_place_rolls_the_pool_over() {
    let node = Node::new();
    let daemon = node.start().await;
    import(&daemon, "one", ImportTemplateOpen::default()).await.unwrap();
    make(&daemon, "p", PoolSpec { template: "agent".into(), ..spec(1) }).await.unwrap();
    full(&daemon, 1).await;
    let old = node.host.sandboxes.lock().unwrap().keys().next().unwrap().to_string();
    let taken = import(&daemon, "two", ImportTemplateOpen::default()).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let delete = DeleteTemplateRequest { name: "agent".into(), ..Default::default() };
    let refused = daemon.templates().delete_template(delete).await.unwrap_err();
    assert_eq!(reason(&refused), "TEMPLATE_IN_USE");

    let replaced = import(&daemon, "two", replacing()).await.unwrap();
    assert_eq!(
        (replaced.name.as_str(), replaced.defaults.as_ref().unwrap().env["VALUE"].as_str()),
        ("agent", "two")
    );
    let rolled_over = |pool: &Pool| {
        let (status, counters) = (pool.status.as_ref().unwrap(), pool.counters.as_ref().unwrap());
        counters.recycled == 1 && status.ready == 1 && status.creating == 0 && status.removing == 0
    };
    until(&daemon, "p", "rolled over", rolled_over).await;
    let request = CreateSandboxRequest { template: "agent".into(), ..Default::default() };
    let made = claim(&daemon, request).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
    assert_ne!(made.sandbox.unwrap().id, old);

    // The same request again replaces nothing, and nothing is left of how it was done.
    let again = import(&daemon, "two", replacing()).await.unwrap();
    assert_eq!(again.create_time, replaced.create_time);
    let all = daemon.templates().list_templates(ListTemplatesRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = all.templates.iter().map(|template| template.name.as_str()).collect();
    assert_eq!(names, ["agent", "host"]);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn an_import_that_shall_replace_a_template_makes_it_where_there_is_none() {
    let node = Node::new();
    let daemon = node.start().await;
    assert_eq!(import(&daemon, "one", replacing()).await.unwrap().name, "agent");
    let itself =
        ImportTemplateOpen { base_template: "agent".into(), request_id: String::new(), ..replacing() };
    assert_eq!(import(&daemon, "two", itself).await.unwrap_err().code(), Code::InvalidArgument);
    daemon.stop().await.unwrap();
}
