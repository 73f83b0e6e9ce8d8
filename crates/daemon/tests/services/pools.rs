//! Pools through the API, over the backend in memory.

use crate::daemon::{Node, Running, reason};
use crate::files::read;
use hostel_proto::v1::{
    self, CreateSandboxRequest, DrainPoolRequest, Pool, PoolHealth, PoolSpec, ResourceLimits, StartKind,
    UpdatePoolRequest,
};
use hostel_sandbox::{BackendEvent, SandboxId};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::{Code, Status};

pub(crate) fn spec(size: u32) -> PoolSpec {
    PoolSpec { template: "host".to_owned(), max_size: 100, pinned_size: Some(size), ..Default::default() }
}

pub(crate) async fn make(daemon: &Running, name: &str, spec: PoolSpec) -> Result<Pool, Status> {
    let request = v1::CreatePoolRequest { name: name.to_owned(), spec: Some(spec), ..Default::default() };
    Ok(daemon.pools().create_pool(request).await?.into_inner().pool.unwrap())
}

pub(crate) async fn get(daemon: &Running, name: &str) -> Result<Pool, Status> {
    let request = v1::GetPoolRequest { name: name.to_owned() };
    Ok(daemon.pools().get_pool(request).await?.into_inner().pool.unwrap())
}

pub(crate) async fn update(daemon: &Running, spec: PoolSpec, paths: &[&str]) -> Result<Pool, Status> {
    let update_mask = Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
    let request = UpdatePoolRequest { name: "p".to_owned(), spec: Some(spec), update_mask };
    Ok(daemon.pools().update_pool(request).await?.into_inner().pool.unwrap())
}

/// Watches a pool until it is as wanted.
pub(crate) async fn until(
    daemon: &Running,
    name: &str,
    what: &str,
    wanted: impl FnMut(&Pool) -> bool,
) -> Pool {
    until_within(daemon, name, what, Duration::from_secs(30), wanted).await
}

/// The same for what takes long.
pub(crate) async fn until_within(
    daemon: &Running,
    name: &str,
    what: &str,
    limit: Duration,
    mut wanted: impl FnMut(&Pool) -> bool,
) -> Pool {
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = v1::WatchPoolsRequest { names: vec![name.to_owned()], interval };
    let mut messages = daemon.pools().watch_pools(request).await.unwrap().into_inner();
    let mut last = None;
    let seen = tokio::time::timeout(limit, async {
        loop {
            let pool = messages.message().await.unwrap().unwrap().pool.unwrap();
            if wanted(&pool) {
                return pool;
            }
            last = Some(pool);
        }
    });
    seen.await.unwrap_or_else(|_| panic!("{name} did not become {what}: {last:#?}"))
}

pub(crate) async fn full(daemon: &Running, size: u32) -> Pool {
    until(daemon, "p", "full", |pool| pool.status.as_ref().unwrap().ready == size).await
}

/// A pool of one that is full.
pub(crate) async fn pool_of_one(daemon: &Running) {
    make(daemon, "p", spec(1)).await.unwrap();
    full(daemon, 1).await;
}

pub(crate) async fn claim(
    daemon: &Running,
    request: CreateSandboxRequest,
) -> Result<v1::CreateSandboxResponse, Status> {
    Ok(daemon.sandboxes().create_sandbox(request).await?.into_inner())
}

#[tokio::test]
async fn a_claim_is_warm_and_bound_to_its_caller_and_the_pool_refills() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(2)).await.unwrap();
    full(&daemon, 2).await;
    let all = v1::ListSandboxesRequest::default();
    assert!(daemon.sandboxes().list_sandboxes(all).await.unwrap().into_inner().sandboxes.is_empty());

    let request = CreateSandboxRequest {
        request_id: "once".into(),
        sandbox_id: "mine".into(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        env: [("A".to_owned(), "1".to_owned())].into(),
        limits: Some(ResourceLimits { pids: Some(33), ..Default::default() }),
        ..Default::default()
    };
    let made = claim(&daemon, request.clone()).await.unwrap();
    let sandbox = made.sandbox.clone().unwrap();
    assert_eq!((made.start_kind(), sandbox.pool.as_str()), (StartKind::Warm, "p"));
    assert_eq!((sandbox.id.as_str(), &sandbox.labels["k"]), ("mine", &"v".to_owned()));
    assert_eq!(made.stages[0].name, "bind");
    let bound: Vec<_> = {
        let sandboxes = node.host.sandboxes.lock().unwrap();
        sandboxes.values().flat_map(|sandbox| sandbox.bound.lock().unwrap().clone()).collect()
    };
    assert_eq!(bound.len(), 1);
    assert_eq!((bound[0].env["A"].as_str(), bound[0].limits.pids), ("1", Some(33)));
    assert_eq!(bound[0].limits.memory_bytes, None, "only what differs is changed");

    // The same request again gives the same sandbox, and takes none.
    let again = claim(&daemon, request).await.unwrap().sandbox.unwrap();
    assert_eq!(again.id, "mine");
    let pool = full(&daemon, 2).await;
    let counters = pool.counters.unwrap();
    assert_eq!((counters.hits, counters.misses, counters.created), (1, 0, 3));
    // Its processes and its end are as any sandbox's.
    daemon.start_process("mine", &["sleep"], "").await.unwrap();
    daemon.delete("mine").await.unwrap();
    assert_eq!(node.host.live(), 2);
}

#[tokio::test]
async fn a_sandbox_begins_with_its_files_warm_or_cold_or_is_not_there() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(1)).await.unwrap();
    let file = |path: &str, content: &'static [u8]| v1::InitialFile {
        path: path.into(),
        content: content.into(),
        permissions: None,
    };
    let reading = |id: &str, path: &str| v1::ReadFileRequest {
        sandbox_id: id.into(),
        path: path.into(),
        ..Default::default()
    };
    let request = |id: &str| CreateSandboxRequest {
        sandbox_id: id.into(),
        files: vec![file("/w/a", b"one"), file("/w/b", b"two")],
        ..Default::default()
    };
    for (id, kind) in [("warm", StartKind::Warm), ("cold", StartKind::Cold)] {
        full(&daemon, 1).await;
        if kind == StartKind::Cold {
            daemon.pools().drain_pool(DrainPoolRequest { name: "p".into() }).await.unwrap();
            until(&daemon, "p", "empty", |pool| pool.status.as_ref().unwrap().ready == 0).await;
        }
        let made = claim(&daemon, request(id)).await.unwrap();
        assert_eq!(made.start_kind(), kind);
        assert!(made.stages.iter().any(|stage| stage.name == "files"), "{made:?}");
        assert_eq!(read(&daemon, reading(id, "/w/a")).await.unwrap(), b"one");
        assert_eq!(read(&daemon, reading(id, "/w/b")).await.unwrap(), b"two");
        daemon.delete(id).await.unwrap();
    }

    let refused = claim(&daemon, CreateSandboxRequest { files: vec![file("a", b"")], ..request("x") });
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("files[0].path"), "{refused}");
    assert_eq!(daemon.get("x").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_empty_pool_costs_a_cold_start_and_never_a_wait() {
    let node = Node::new();
    let daemon = node.start().await;
    node.host.creation_ms.store(300, Ordering::SeqCst);
    let limits = Some(ResourceLimits { pids: Some(77), ..Default::default() });
    make(&daemon, "p", PoolSpec { limits, ..spec(1) }).await.unwrap();
    let cold = claim(&daemon, CreateSandboxRequest { pool: "p".into(), ..Default::default() }).await.unwrap();
    assert_eq!(cold.start_kind(), StartKind::Cold);
    // It is what a warm one would have been.
    assert_eq!(cold.sandbox.unwrap().limits.unwrap().pids, Some(77));
    let pool = full(&daemon, 1).await;
    assert_eq!(pool.counters.unwrap().misses, 1);
}

#[tokio::test]
async fn what_the_node_has_no_room_for_takes_no_warm_sandbox_with_it() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(2)).await.unwrap();
    full(&daemon, 2).await;
    let limits = Some(ResourceLimits { memory_bytes: Some(1 << 49), ..Default::default() });
    let refused = claim(&daemon, CreateSandboxRequest { limits, ..Default::default() }).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_ROOM");
    let pool = full(&daemon, 2).await;
    let counters = pool.counters.unwrap();
    assert_eq!((counters.misses_unfit, counters.claim_failures, counters.created), (1, 0, 2));
}

#[tokio::test]
async fn one_that_cannot_be_bound_is_removed_and_the_caller_gets_another() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    node.host.unbindable.store(true, Ordering::SeqCst);
    let env = [("A".to_owned(), "1".to_owned())].into();
    let made = claim(&daemon, CreateSandboxRequest { env, ..Default::default() }).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Cold);
    let pool = until(&daemon, "p", "told", |pool| pool.counters.as_ref().unwrap().claim_failures > 0).await;
    assert!(pool.counters.unwrap().unhealthy >= 1);
    // What differs in nothing needs no binding.
    full(&daemon, 1).await;
    let made = claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
}

#[tokio::test]
async fn failing_refills_back_off_show_and_recover() {
    let node = Node::new();
    let daemon = node.start().await;
    node.host.broken.store(true, Ordering::SeqCst);
    make(&daemon, "p", spec(1)).await.unwrap();
    let failing = |pool: &Pool| pool.status.as_ref().unwrap().health() == PoolHealth::Failing;
    let pool = until(&daemon, "p", "failing", failing).await;
    let status = pool.status.unwrap();
    assert!(status.last_failure.unwrap().message.contains("out of order"));
    assert!(status.retry_time.is_some());
    assert!(node.host.creations.load(Ordering::SeqCst) < 5, "a hot loop");
    node.host.broken.store(false, Ordering::SeqCst);
    let pool = full(&daemon, 1).await;
    assert_eq!(pool.status.unwrap().last_failure, None);
}

#[tokio::test]
async fn a_restart_takes_back_what_is_warm() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(3)).await.unwrap();
    full(&daemon, 3).await;
    let claimed = claim(&daemon, CreateSandboxRequest { sandbox_id: "c".into(), ..Default::default() });
    assert_eq!(claimed.await.unwrap().start_kind(), StartKind::Warm);
    full(&daemon, 3).await;
    daemon.stop().await.unwrap();
    let creations = node.host.creations.load(Ordering::SeqCst);

    let daemon = node.start().await;
    let pool = full(&daemon, 3).await;
    assert_eq!(node.host.creations.load(Ordering::SeqCst), creations);
    assert_eq!(pool.counters.unwrap().hits, 1);
    // The claimed one is found under the name that its caller chose.
    daemon.start_process("c", &["sleep"], "").await.unwrap();
    let made = claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
}

#[tokio::test]
async fn one_that_dies_is_replaced_and_a_claimed_one_is_its_callers() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    let warm = node.host.sandboxes.lock().unwrap().keys().next().unwrap().clone();
    let died = |sandbox: SandboxId| BackendEvent::Died { sandbox, reason: "guest_died".into() };
    daemon.backend.tell.send(died(warm.clone())).await.unwrap();
    let replaced = |pool: &Pool| {
        let (status, counters) = (pool.status.as_ref().unwrap(), pool.counters.as_ref().unwrap());
        counters.unhealthy == 1 && status.ready == 1 && status.removing == 0
    };
    until(&daemon, "p", "replaced", replaced).await;
    let next = node.host.sandboxes.lock().unwrap().keys().next().unwrap().clone();
    assert_ne!(warm, next);

    claim(&daemon, CreateSandboxRequest { sandbox_id: "mine".into(), ..Default::default() }).await.unwrap();
    // Nobody else can have the name that the backend knows it by.
    let taken = CreateSandboxRequest { sandbox_id: next.to_string(), ..Default::default() };
    assert_eq!(claim(&daemon, taken.clone()).await.unwrap_err().code(), Code::AlreadyExists);
    let gone = v1::DeletePoolRequest { name: "p".into(), allow_missing: false };
    daemon.pools().delete_pool(gone).await.unwrap();
    assert_eq!(
        claim(&daemon, taken).await.unwrap_err().code(),
        Code::AlreadyExists,
        "without a pool neither"
    );
    let watch = v1::WatchSandboxesRequest { sandbox_ids: vec!["mine".into()], ..Default::default() };
    let mut events = daemon.sandboxes().watch_sandboxes(watch).await.unwrap().into_inner();
    events.message().await.unwrap();
    daemon.backend.tell.send(died(next)).await.unwrap();
    events.message().await.unwrap();
    assert_eq!(daemon.get("mine").await.unwrap().last_transition.unwrap().reason, "guest_died");
}

#[tokio::test]
async fn tuning_takes_effect_at_once_and_draining_leaves_nothing() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    update(&daemon, spec(4), &["pinned_size"]).await.unwrap();
    full(&daemon, 4).await;
    update(&daemon, spec(2), &["spec.pinned_size"]).await.unwrap();
    until(&daemon, "p", "smaller", |pool| {
        let status = pool.status.as_ref().unwrap();
        status.ready == 2 && status.removing == 0
    })
    .await;
    assert_eq!(node.host.live(), 2);

    // Other limits: all are replaced.
    let limits = Some(ResourceLimits { pids: Some(50), ..Default::default() });
    update(&daemon, PoolSpec { limits, ..spec(2) }, &["limits"]).await.unwrap();
    let rolled = |pool: &Pool| {
        let status = pool.status.as_ref().unwrap();
        pool.counters.as_ref().unwrap().recycled == 2 && status.ready == 2 && status.removing == 0
    };
    until(&daemon, "p", "rolled over", rolled).await;
    assert_eq!(
        claim(&daemon, CreateSandboxRequest::default()).await.unwrap().sandbox.unwrap().limits.unwrap().pids,
        Some(50)
    );

    let drained = daemon.pools().drain_pool(DrainPoolRequest { name: "p".into() }).await.unwrap();
    assert_eq!(drained.into_inner().pool.unwrap().status.unwrap().health(), PoolHealth::Drained);
    assert_eq!(node.host.live(), 1, "only the claimed one");
    update(&daemon, spec(1), &["draining", "pinned_size"]).await.unwrap();
    full(&daemon, 1).await;
    let delete = v1::DeletePoolRequest { name: "p".into(), allow_missing: false };
    daemon.pools().delete_pool(delete.clone()).await.unwrap();
    assert_eq!(node.host.live(), 1);
    assert_eq!(daemon.pools().delete_pool(delete).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_bound_of_idle_memory_keeps_fewer_warm() {
    let node = Node::new();
    let daemon = node.start().await;
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    // Each uses one.
    let eight = PoolSpec { max_idle_memory_bytes: Some(8 << 20), health_check_interval: second, ..spec(10) };
    make(&daemon, "p", eight).await.unwrap();
    let bounded = |pool: &Pool| {
        let status = pool.status.as_ref().unwrap();
        status.ready == 8 && status.removing == 0 && status.idle_memory_bytes == Some(8 << 20)
    };
    let pool = until(&daemon, "p", "smaller", bounded).await;
    assert_eq!(pool.status.unwrap().target_size, 8);
    assert_eq!(node.host.live(), 8);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let node = Node::new();
    let daemon = node.start().await;
    let refused = [
        ("P", spec(1), Code::InvalidArgument),
        ("p", PoolSpec { max_size: 0, ..spec(0) }, Code::InvalidArgument),
        ("p", PoolSpec { min_size: 3, max_size: 2, pinned_size: None, ..spec(0) }, Code::InvalidArgument),
        ("p", PoolSpec { template: "none-such".into(), ..spec(1) }, Code::NotFound),
        ("p", PoolSpec { backend: "none-such".into(), ..spec(1) }, Code::NotFound),
        ("p", PoolSpec { target_hit_rate: 2.0, ..spec(1) }, Code::InvalidArgument),
    ];
    for (name, spec, code) in refused {
        assert_eq!(make(&daemon, name, spec.clone()).await.unwrap_err().code(), code, "{spec:?}");
    }
    assert_eq!(get(&daemon, "p").await.unwrap_err().code(), Code::NotFound);
    make(&daemon, "p", spec(0)).await.unwrap();
    assert_eq!(make(&daemon, "p", spec(0)).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(update(&daemon, spec(0), &["backend"]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(update(&daemon, spec(0), &[]).await.unwrap_err().code(), Code::InvalidArgument);
    let named = CreateSandboxRequest { pool: "q".into(), ..Default::default() };
    assert_eq!(claim(&daemon, named).await.unwrap_err().code(), Code::NotFound);
    let plan = v1::PlanPoolRequest { name: "p".into(), ..Default::default() };
    assert_eq!(reason(&daemon.pools().plan_pool(plan).await.unwrap_err()), "NO_DEMAND");
}

#[tokio::test]
async fn demand_that_was_met_is_replayed() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(2)).await.unwrap();
    full(&daemon, 2).await;
    for _ in 0..4 {
        claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    }
    let request = v1::PlanPoolRequest { name: "p".into(), sizes: vec![8, 0, 8], window: None };
    let plan = daemon.pools().plan_pool(request).await.unwrap().into_inner();
    assert_eq!(plan.claims, 4);
    assert_eq!(plan.rows.iter().map(|row| row.size).collect::<Vec<_>>(), [Some(0), Some(8), None]);
    assert!(plan.rows[0].hit_rate < 0.01 && plan.rows[1].hit_rate > 0.99, "{plan:#?}");
}

#[tokio::test]
async fn no_warm_sandbox_goes_to_two_callers() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", PoolSpec { refill_concurrency: 8, ..spec(40) }).await.unwrap();
    full(&daemon, 40).await;
    let claims = (0..200).map(|_| claim(&daemon, CreateSandboxRequest::default()));
    let made = futures::future::join_all(claims).await;
    let mut ids: Vec<_> = made.into_iter().map(|made| made.unwrap().sandbox.unwrap().id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    let pool = full(&daemon, 40).await;
    let counters = pool.counters.unwrap();
    assert_eq!(counters.hits + counters.misses, 200);
    assert!(counters.hits >= 40);
    assert_eq!(node.host.live(), 240);
}

#[tokio::test]
async fn of_the_pools_that_fit_one_that_has_something_warm_serves() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "empty", spec(0)).await.unwrap();
    make(&daemon, "p", spec(2)).await.unwrap();
    make(&daemon, "q", PoolSpec { draining: true, ..spec(2) }).await.unwrap();
    full(&daemon, 2).await;
    let pool = |made: v1::CreateSandboxResponse| made.sandbox.unwrap().pool;
    let made = claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    assert_eq!(pool(made), "p");
    // Whoever names one gets that one, warm or not.
    let named = CreateSandboxRequest { pool: "empty".into(), ..Default::default() };
    assert_eq!(claim(&daemon, named).await.unwrap().start_kind(), StartKind::Cold);
    assert_eq!(get(&daemon, "empty").await.unwrap().counters.unwrap().misses, 1);
}

#[tokio::test]
async fn a_pool_that_is_for_those_who_name_it_serves_nobody_else() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", PoolSpec { named_only: true, ..spec(1) }).await.unwrap();
    assert!(full(&daemon, 1).await.spec.unwrap().named_only);
    let unnamed = || claim(&daemon, CreateSandboxRequest::default());
    let cold = unnamed().await.unwrap();
    assert_eq!((cold.start_kind(), cold.sandbox.unwrap().pool.as_str()), (StartKind::Cold, ""));
    let counters = get(&daemon, "p").await.unwrap().counters.unwrap();
    assert_eq!((counters.hits, counters.misses), (0, 0), "it was not asked");
    let named = CreateSandboxRequest { pool: "p".into(), ..Default::default() };
    assert_eq!(claim(&daemon, named).await.unwrap().start_kind(), StartKind::Warm);
    full(&daemon, 1).await;
    update(&daemon, PoolSpec::default(), &["named_only"]).await.unwrap();
    assert_eq!(unnamed().await.unwrap().start_kind(), StartKind::Warm);
}

#[tokio::test]
async fn pools_follow_a_node_that_is_drained_at_once() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(2)).await.unwrap();
    full(&daemon, 2).await;
    let begin = std::time::Instant::now();
    for (resume, ready) in [(false, 0), (true, 2)] {
        daemon.node().drain_node(v1::DrainNodeRequest { resume }).await.unwrap();
        full(&daemon, ready).await;
    }
    // Without being told, pools look every five seconds.
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}
