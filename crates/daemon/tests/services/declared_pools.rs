//! Pools that files declare.

use crate::daemon::{Node, Running};
use crate::pools::{full, get, spec, until, update};
use hostel_proto::v1;
use hostel_sandbox::TemplateId;
use hostel_sandbox::template::{Template, TemplateSource};
use hosteld::Config;
use std::fs;
use std::time::Duration;
use tonic::Code;

/// Starts a daemon that reads this declaration of the pool `p`.
async fn start(node: &Node, text: &str) -> Running {
    let directory = node.directory.path().join("pools.d");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("p.toml"), text).unwrap();
    node.start_with(Config { pool_directories: vec![directory], ..node.config() }).await
}

async fn pinned(daemon: &Running) -> Option<u32> {
    get(daemon, "p").await.unwrap().spec.unwrap().pinned_size
}

#[tokio::test]
async fn a_file_is_applied_when_it_is_new_or_its_text_changed() {
    let node = Node::new();
    let first = "template = \"host\"\nmax = 9\npin = 1\n";
    let daemon = start(&node, first).await;
    full(&daemon, 1).await;
    update(&daemon, spec(2), &["pinned_size"]).await.unwrap();
    daemon.stop().await.unwrap();

    let daemon = start(&node, first).await;
    assert_eq!(pinned(&daemon).await, Some(2), "what was tuned stays");
    daemon.stop().await.unwrap();

    let second = first.replace("pin = 1", "pin = 3");
    let daemon = start(&node, &second).await;
    assert_eq!(pinned(&daemon).await, Some(3));
    let gone = v1::DeletePoolRequest { name: "p".into(), allow_missing: false };
    daemon.pools().delete_pool(gone).await.unwrap();
    daemon.stop().await.unwrap();

    let daemon = start(&node, &second).await;
    assert_eq!(get(&daemon, "p").await.unwrap_err().code(), Code::NotFound, "what was deleted stays so");
    daemon.stop().await.unwrap();

    let daemon = start(&node, first).await;
    assert_eq!(pinned(&daemon).await, Some(1), "until the file says something else");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn one_whose_template_comes_later_is_made_then() {
    let node = Node::new();
    let daemon = start(&node, "template = \"late\"\nmax = 9\npin = 1\n").await;
    assert_eq!(get(&daemon, "p").await.unwrap_err().code(), Code::NotFound);
    let id = TemplateId::parse("late").unwrap();
    let template = Template::new(id.clone(), TemplateSource::Imported);
    node.host.templates.lock().unwrap().insert(id, template);
    let made = async {
        while get(&daemon, "p").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), made).await.unwrap();
    until(&daemon, "p", "full", |pool| pool.status.as_ref().unwrap().ready == 1).await;
    daemon.stop().await.unwrap();
}
