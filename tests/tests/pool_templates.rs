//! Pools of a template that is replaced, on real jails.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_proto::v1;
use hostel_proto::v1::import_template_request::Frame;
use hostel_tests::{Api, TestDaemon, eventually, leftovers};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Imports a template `agent`: the host's files, and these on top of them.
async fn import(api: &Api, files: &Path, replace: bool) {
    let open = v1::ImportTemplateOpen {
        name: "agent".into(),
        base_template: "host".into(),
        host_path: files.display().to_string(),
        replace,
        ..Default::default()
    };
    let request = v1::ImportTemplateRequest { frame: Some(Frame::Open(open)) };
    api.templates().import_template(tokio_stream::once(request)).await.unwrap();
}

fn pool(daemon: &TestDaemon) -> Value {
    serde_json::from_str(daemon.hostel(&["--json", "pool", "get", "p"]).success()).unwrap()
}

fn ready(daemon: &TestDaemon) {
    eventually("the pool is full", || {
        let status = pool(daemon)["status"].clone();
        status["ready"] == 1 && status["creating"] == 0 && status["removing"] == 0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_rolls_over_to_what_took_its_template_s_place_and_what_runs_keeps_its_files() {
    let mut daemon = TestDaemon::start();
    let api = Api::connect(&daemon).await;
    let files = tempfile::tempdir().unwrap();
    // It becomes the root directory, which everybody goes through.
    std::fs::set_permissions(files.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let write = |text: &str| std::fs::write(files.path().join("marker"), text).unwrap();
    write("one");
    import(&api, files.path(), false).await;
    let sizes = ["--pin", "1", "--memory", "64M", "--disk", "64M", "--max-age", "24h", "--wait"];
    let create = [&["pool", "create", "p", "--template", "agent"], &sizes[..]].concat();
    let _ = daemon.hostel(&create).success();
    let kept = daemon.hostel(&["sandbox", "create", "-q", "--template", "agent"]).success().to_owned();
    ready(&daemon);

    write("two");
    import(&api, files.path(), true).await;
    eventually("what was warm is replaced", || pool(&daemon)["counters"]["recycled"] == 1);
    ready(&daemon);
    let run = ["--json", "run", "--template", "agent", "--", "cat", "/marker"];
    let ran = daemon.hostel(&run);
    assert!(ran.success().contains("\"start_kind\":\"warm\""), "{ran:?}");
    assert!(ran.stdout.contains("\"text\":\"two\""), "{ran:?}");
    let read = ["exec", &kept, "--", "cat", "/marker"];
    assert_eq!(daemon.hostel(&read).success(), "one");

    // Neither does the next daemon take its files from it.
    ready(&daemon);
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.hostel(&read).success(), "one");
    let ran = daemon.hostel(&run);
    assert!(ran.success().contains("\"text\":\"two\""), "{ran:?}");
    for remove in [["sandbox", "rm", &kept], ["pool", "rm", "p"], ["template", "rm", "agent"]] {
        let _ = daemon.hostel(&remove).success();
    }
    drop(api);
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}
