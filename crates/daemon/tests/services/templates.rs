//! Templates of several backends, and those that take the place of others.

use crate::daemon::{Node, Running};
use crate::fake::{Fake, Host};
use hostel_proto::v1::{DeleteTemplateRequest, GetTemplateRequest, Template as Shown};
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
