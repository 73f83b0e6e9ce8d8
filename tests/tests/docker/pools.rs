//! Pools of containers: claims at once, a daemon that is killed, an engine that goes away.

use crate::setup::{daemon_on, instance, own_engine};
use hostel_proto::v1::{CreateSandboxRequest, DeleteSandboxRequest, StartKind};
use hostel_tests::{Api, TestDaemon, docker, eventually, shared_engine};
use serde_json::Value;
use std::collections::BTreeSet;

/// Pool size, clients, and claims of each: few, as a container takes long; with `HOSTEL_TEST_MANY=1` a thousand.
fn scale() -> (usize, usize, usize) {
    if std::env::var_os("HOSTEL_TEST_MANY").is_some() { (40, 50, 20) } else { (6, 10, 3) }
}

fn pool(daemon: &TestDaemon) -> Value {
    serde_json::from_str(daemon.hostel(&["--json", "pool", "get", "c"]).success()).unwrap()
}

fn make_pool(daemon: &TestDaemon, size: &str) {
    let sizes = ["--min", "0", "--max", "60", "--pin", size, "--refill-concurrency", "2"];
    let limits = ["--memory", "64M", "--disk", "64M", "--max-age", "24h", "--wait"];
    let made = [&["pool", "create", "c", "--backend", "docker"], &sizes[..], &limits[..]].concat();
    let _ = daemon.hostel(&made).success();
}

fn ready(daemon: &TestDaemon, size: u64) {
    eventually("the pool is full", || {
        let status = pool(daemon)["status"].clone();
        status["ready"] == size && status["creating"] == 0 && status["removing"] == 0
    });
}

/// A name of an image that goes with its test.
struct Tag<'a>(&'a str, String);

impl Drop for Tag<'_> {
    fn drop(&mut self) {
        let _ = docker(self.0, &["rmi", "--force", &self.1]);
    }
}

fn claim() -> CreateSandboxRequest {
    CreateSandboxRequest { backend: "docker".into(), ..Default::default() }
}

/// Claims and deletes, one after another. → ids, and how many were warm.
async fn claims(api: Api, count: usize) -> (Vec<String>, u64) {
    let (mut ids, mut warm) = (Vec::new(), 0);
    for _ in 0..count {
        let made = api.sandboxes().create_sandbox(claim()).await.unwrap().into_inner();
        warm += u64::from(made.start_kind() == StartKind::Warm);
        let id = made.sandbox.unwrap().id;
        let delete = DeleteSandboxRequest { sandbox_id: id.clone(), ..Default::default() };
        api.sandboxes().delete_sandbox(delete).await.unwrap();
        ids.push(id);
    }
    (ids, warm)
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_containers_go_to_one_caller_each_and_outlive_the_daemon() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let (size, many, each) = scale();
    make_pool(&daemon, &size.to_string());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..many {
        let api = Api::connect(&daemon).await;
        clients.spawn(claims(api, each));
    }
    let (mut ids, mut warm) = (BTreeSet::new(), 0);
    while let Some(done) = clients.join_next().await {
        let (claimed, hits) = done.unwrap();
        assert!(claimed.into_iter().all(|id| ids.insert(id)), "one went to two");
        warm += hits;
    }
    assert_eq!(ids.len(), many * each);
    assert!(warm >= size as u64, "{warm} of {} were warm", ids.len());
    ready(&daemon, size as u64);

    let label = format!("label=hostel.instance={}", instance(&daemon));
    let containers = || {
        let listed = docker(&host, &["ps", "--all", "--quiet", "--filter", &label]);
        listed.success().lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>()
    };
    let before = containers();
    assert_eq!(before.len(), size);
    daemon.kill();
    daemon.restart();
    ready(&daemon, size as u64);
    assert_eq!(containers(), before, "taken back, not made again");
    let script = ["--env", "A=1", "--", "sh", "-c", "echo $A"];
    let ran = daemon.hostel(&[&["--json", "run", "--backend", "docker"], &script[..]].concat());
    assert!(ran.success().contains("\"start_kind\":\"warm\""), "{ran:?}");
    assert!(ran.stdout.contains("\"text\":\"1\\n\""), "{ran:?}");
    let _ = daemon.hostel(&["pool", "rm", "c"]).success();
    eventually("no container is left", || containers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_among_claims_gives_no_container_to_two_and_leaves_none() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    make_pool(&daemon, "4");
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let api = Api::connect(&daemon).await;
        clients.spawn(async move {
            let request =
                CreateSandboxRequest { env: [("TOKEN".to_owned(), "secret".to_owned())].into(), ..claim() };
            let made = api.sandboxes().create_sandbox(request).await.ok()?;
            made.into_inner().sandbox.map(|sandbox| sandbox.id)
        });
    }
    // One has its sandbox; the others are somewhere between.
    let mut told: Vec<String> = clients.join_next().await.unwrap().unwrap().into_iter().collect();
    daemon.kill();
    while let Some(done) = clients.join_next().await {
        told.extend(done.unwrap());
    }
    assert!(!told.is_empty());
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "one went to two");
    daemon.restart();

    let there = daemon.hostel(&["sandbox", "list", "-q"]).success().to_owned();
    let there: BTreeSet<&str> = there.split_whitespace().collect();
    assert!(told.iter().all(|id| there.contains(id.as_str())), "{told:?} of {there:?}");
    ready(&daemon, 4);
    let label = format!("label=hostel.instance={}", instance(&daemon));
    let names = || {
        let format = ["--format", "{{.Label \"hostel.sandbox\"}}"];
        let listed = docker(&host, &[&["ps", "--all", "--filter", &label], &format[..]].concat());
        listed.success().lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let containers = names();
    assert_eq!(containers.iter().collect::<BTreeSet<_>>().len(), containers.len(), "{containers:?}");
    assert_eq!(containers.len(), there.len() + 4, "owned and warm, and nothing else: {containers:?}");
    for id in &there {
        assert_eq!(daemon.shell(id, "echo $TOKEN"), "secret");
    }
    // Nobody gets what was another's.
    for _ in 0..4 {
        let ran =
            daemon.hostel(&["--json", "run", "--backend", "docker", "--", "sh", "-c", "echo none${TOKEN}"]);
        assert!(ran.success().contains("\"text\":\"none\\n\""), "{ran:?}");
    }

    let drained = daemon.hostel(&["--json", "pool", "drain", "c"]);
    let drained: Value = serde_json::from_str(drained.success()).unwrap();
    assert_eq!((&drained["status"]["health"], &drained["status"]["ready"]), (&"drained".into(), &0.into()));
    let cold = daemon.hostel(&["--json", "sandbox", "create", "--backend", "docker"]);
    let cold: Value = serde_json::from_str(cold.success()).unwrap();
    assert_eq!(cold["start_kind"], "cold");
    let _ = daemon.hostel(&["pool", "rm", "c"]).success();
    for id in there.iter().copied().chain(cold["id"].as_str()) {
        let _ = daemon.hostel(&["sandbox", "rm", id]).success();
    }
    eventually("no container is left", || names().is_empty());
}

#[test]
fn refills_fail_while_the_engine_is_away_and_go_on_after() {
    let Some((mut engine, daemon)) = own_engine(&[]) else { return };
    make_pool(&daemon, "2");
    // Its containers die with it.
    engine.stop();
    eventually("refills fail", || {
        let status = pool(&daemon)["status"].clone();
        status["health"] == "failing" && status["last_failure"]["message"].to_string().contains("engine")
    });
    engine.restart();
    ready(&daemon, 2);
    assert_eq!(pool(&daemon)["status"]["health"], "healthy");
    let ran = daemon.hostel(&["--json", "run", "--backend", "docker", "--", "true"]);
    assert!(ran.success().contains("\"start_kind\":\"warm\""), "{ran:?}");
}

#[test]
fn another_image_behind_the_tag_rolls_the_pool_over() {
    let Some((host, image)) = shared_engine() else { return };
    let tag = Tag(&host, format!("hostel-test-rolling:{}", std::process::id()));
    let _ = docker(&host, &["tag", &image, &tag.1]).success();
    let mut daemon = daemon_on(&host, &tag.1);
    make_pool(&daemon, "1");
    ready(&daemon, 1);
    let helper = docker(&host, &["create", &image, "true"]).success().to_owned();
    let _ = docker(&host, &["commit", "--change", "ENV ROLLED=yes", &helper, &tag.1]).success();
    let _ = docker(&host, &["rm", &helper]).success();
    eventually("what was warm is replaced", || pool(&daemon)["counters"]["recycled"] == 1);
    ready(&daemon, 1);
    let ran =
        daemon.hostel(&["--json", "run", "--backend", "docker", "--", "sh", "-c", "echo rolled $ROLLED"]);
    assert!(ran.success().contains("\"start_kind\":\"warm\""), "{ran:?}");
    assert!(ran.stdout.contains("\"text\":\"rolled yes\\n\""), "{ran:?}");
    assert_eq!(pool(&daemon)["counters"]["recycled"], 1);
    daemon.finish();
}
