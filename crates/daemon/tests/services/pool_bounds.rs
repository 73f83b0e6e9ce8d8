//! What pools, claims and the queue for room may take, and when they let go.

use crate::daemon::{Node, Running, eventually, reason};
use crate::metrics::scrape;
use crate::pools::{claim, full, get, make, pool_of_one, spec, until};
use hostel_proto::v1::{
    self, CreateSandboxRequest, CreateSandboxResponse, Pool, PoolHealth, PoolSpec, StartKind,
};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{ResourceLimits, TemplateId};
use hosteld::Config;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status};

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A daemon with metrics and room for so many sandboxes.
async fn with_room(node: &Node, max_sandboxes: usize) -> (Running, SocketAddr) {
    let metrics = free_address().await;
    let config = Config { max_sandboxes, metrics_listen: Some(metrics), ..node.config() };
    (node.start_with(config).await, metrics)
}

async fn scraped(metrics: SocketAddr, line: &str) {
    let seen = async { while !scrape(metrics).await.contains(line) {} };
    tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap_or_else(|_| panic!("{line} never came"));
}

async fn patient(
    daemon: &Running,
    request: CreateSandboxRequest,
    limit: Duration,
) -> Result<CreateSandboxResponse, Status> {
    let mut request = Request::new(request);
    request.set_timeout(limit);
    Ok(daemon.sandboxes().create_sandbox(request).await?.into_inner())
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn who_waits_for_room_is_told_so_and_a_drained_node_takes_nobody_from_the_queue() {
    let node = Node::new();
    let (daemon, metrics) = with_room(&node, 1).await;
    let first = patient(&daemon, CreateSandboxRequest::default(), MINUTE).await.unwrap();
    assert!(first.stages.iter().all(|stage| stage.name != "queue"), "{first:?}");
    let gives_back = async {
        scraped(metrics, "hostel_admission_queue{kind=\"cold\"} 1").await;
        daemon.delete(&first.sandbox.unwrap().id).await.unwrap();
    };
    let (second, ()) = tokio::join!(patient(&daemon, CreateSandboxRequest::default(), MINUTE), gives_back);
    let second = second.unwrap();
    assert_eq!(second.stages[0].name, "queue");
    assert_eq!(second.stages[1].name, "clone");

    let drains = async {
        scraped(metrics, "hostel_admission_queue{kind=\"cold\"} 1").await;
        daemon.node().drain_node(v1::DrainNodeRequest { resume: false }).await.unwrap();
        daemon.delete(&second.sandbox.unwrap().id).await.unwrap();
    };
    let (third, ()) = tokio::join!(patient(&daemon, CreateSandboxRequest::default(), MINUTE), drains);
    assert_eq!(reason(&third.unwrap_err()), "NODE_DRAINING");
    assert_eq!(node.host.live(), 0);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_stops_waits_for_nobody_in_the_queue() {
    let node = Node::new();
    let (daemon, metrics) = with_room(&node, 1).await;
    daemon.create(CreateSandboxRequest::default()).await.unwrap();
    let mut client = daemon.sandboxes();
    let mut request = Request::new(CreateSandboxRequest { request_id: "r".into(), ..Default::default() });
    request.set_timeout(MINUTE);
    let stops = async {
        scraped(metrics, "hostel_admission_queue{kind=\"cold\"} 1").await;
        daemon.stop().await.unwrap();
    };
    let (queued, ()) = tokio::join!(client.create_sandbox(request), stops);
    assert_eq!(reason(&queued.unwrap_err()), "DRAINING");
}

#[tokio::test]
async fn a_claim_that_has_to_queue_for_more_takes_no_warm_sandbox_with_it() {
    let node = Node::new();
    let id = TemplateId::parse("other").unwrap();
    node.host.templates.lock().unwrap().insert(id.clone(), Template::new(id, TemplateSource::Imported));
    let (daemon, metrics) = with_room(&node, 1000).await;
    make(&daemon, "p", spec(2)).await.unwrap();
    full(&daemon, 2).await;
    let text = scrape(metrics).await;
    let line = text.lines().find(|line| line.starts_with("hostel_node_ceiling{resource=\"memory_bytes\"}"));
    let ceiling: f64 = line.unwrap().split_whitespace().last().unwrap().parse().unwrap();
    let of = |template: &str, share: f64| {
        let memory_bytes = Some((ceiling * share) as u64);
        let limits = Some(v1::ResourceLimits { memory_bytes, ..Default::default() });
        CreateSandboxRequest { template: template.into(), limits, ..Default::default() }
    };
    daemon.create(of("other", 0.5)).await.unwrap();
    let refused = async {
        scraped(metrics, "hostel_admission_queue{kind=\"cold\"} 1").await;
        // As many as may pass the large one that waits; then it is next, whatever would fit.
        for _ in 0..16 {
            daemon.create(of("other", 0.001)).await.unwrap();
        }
        patient(&daemon, of("host", 0.05), Duration::from_secs(1)).await.unwrap_err()
    };
    let large = patient(&daemon, of("other", 0.6), MINUTE);
    let refused = tokio::select! {
        refused = refused => refused,
        large = large => panic!("{large:?}"),
    };
    assert_eq!(reason(&refused), "NO_ROOM");
    let counters = get(&daemon, "p").await.unwrap().counters.unwrap();
    assert_eq!(counters.claim_failures, 0, "{counters:?}");
    daemon.kill().await;
}

#[tokio::test]
async fn a_removal_goes_on_until_it_worked_and_a_deletion_waits_for_it() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    node.host.stuck.store(true, Ordering::SeqCst);
    let delete = v1::DeletePoolRequest { name: "p".into(), allow_missing: false };
    let mut client = daemon.pools();
    let watches = async {
        eventually("it is tried", || node.host.destroys.load(Ordering::SeqCst) >= 6).await;
        let status = get(&daemon, "p").await.unwrap().status.unwrap();
        assert_eq!((status.health(), status.removing), (PoolHealth::Draining, 1));
        node.host.stuck.store(false, Ordering::SeqCst);
    };
    let (deleted, ()) = tokio::join!(client.delete_pool(delete), watches);
    deleted.unwrap();
    assert_eq!(node.host.live(), 0);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_claim_of_guests_that_hang_is_one_arrival_one_miss_and_one_wait() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(3)).await.unwrap();
    full(&daemon, 3).await;
    node.host.holding.store(true, Ordering::SeqCst);
    let env = std::collections::BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    let request = CreateSandboxRequest { env, ..Default::default() };
    let made = claim(&daemon, request.clone()).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Cold);
    let counters = get(&daemon, "p").await.unwrap().counters.unwrap();
    assert_eq!(
        (counters.hits, counters.misses, counters.claim_failures),
        (0, 1, 1),
        "all tries share a budget"
    );

    // Where they refuse at once, several are tried, for the one request.
    node.host.holding.store(false, Ordering::SeqCst);
    full(&daemon, 3).await;
    node.host.unbindable.store(true, Ordering::SeqCst);
    assert_eq!(claim(&daemon, request).await.unwrap().start_kind(), StartKind::Cold);
    let counters = get(&daemon, "p").await.unwrap().counters.unwrap();
    assert_eq!((counters.hits, counters.misses, counters.claim_failures), (0, 2, 4));
    let plan = v1::PlanPoolRequest { name: "p".into(), ..Default::default() };
    assert_eq!(daemon.pools().plan_pool(plan).await.unwrap().into_inner().claims, 2);
    daemon.stop().await.unwrap();
}

fn template_with(id: &TemplateId, memory_bytes: u64) -> Template {
    let limits = ResourceLimits { memory_bytes: Some(memory_bytes), ..Default::default() };
    let mut template = Template::new(id.clone(), TemplateSource::Imported);
    template.limits = limits.clone();
    template.max_limits = limits;
    template
}

#[tokio::test]
async fn a_ceiling_that_was_lowered_holds_for_claims_and_plans_go_by_what_is_warm() {
    let node = Node::new();
    let id = TemplateId::parse("capped").unwrap();
    let put = |memory| node.host.templates.lock().unwrap().insert(id.clone(), template_with(&id, memory));
    put(256 << 20);
    let daemon = node.start().await;
    make(&daemon, "p", PoolSpec { template: "capped".into(), ..spec(2) }).await.unwrap();
    full(&daemon, 2).await;
    let request = CreateSandboxRequest { template: "capped".into(), ..Default::default() };
    assert_eq!(claim(&daemon, request.clone()).await.unwrap().start_kind(), StartKind::Warm);
    full(&daemon, 2).await;
    let plan = v1::PlanPoolRequest { name: "p".into(), sizes: vec![4], window: None };
    let plan = daemon.pools().plan_pool(plan).await.unwrap().into_inner();
    assert!(plan.rows[0].idle_memory_bytes <= 4 * (256 << 20), "{plan:?}");

    // The successors take their time.
    node.host.creation_ms.store(600_000, Ordering::SeqCst);
    put(128 << 20);
    daemon.templates().list_templates(v1::ListTemplatesRequest::default()).await.unwrap();
    let before = node.host.creations.load(Ordering::SeqCst);
    eventually("they are being made", || node.host.creations.load(Ordering::SeqCst) == before + 2).await;
    node.host.creation_ms.store(0, Ordering::SeqCst);
    let made = claim(&daemon, request).await.unwrap();
    let memory = made.sandbox.as_ref().unwrap().limits.as_ref().unwrap().memory_bytes;
    assert_eq!((made.start_kind(), memory), (StartKind::Cold, Some(128 << 20)));
    assert_eq!(get(&daemon, "p").await.unwrap().counters.unwrap().claim_failures, 0);
    daemon.kill().await;
}

#[tokio::test]
async fn watchers_of_pools_are_counted_with_the_others() {
    let node = Node::new();
    let daemon = node.start_with(Config { max_watchers: 1, ..node.config() }).await;
    make(&daemon, "p", spec(0)).await.unwrap();
    let watch = || v1::WatchPoolsRequest::default();
    let mut first = daemon.pools().watch_pools(watch()).await.unwrap().into_inner();
    first.message().await.unwrap();
    let refused = daemon.pools().watch_pools(watch()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"));
    drop(first);
    let again = async { while daemon.pools().watch_pools(watch()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_refill_that_panics_fails_and_the_next_works() {
    let node = Node::new();
    let daemon = node.start().await;
    node.host.panics.store(true, Ordering::SeqCst);
    make(&daemon, "p", PoolSpec { refill_concurrency: 1, ..spec(1) }).await.unwrap();
    let failing = |pool: &Pool| pool.status.as_ref().unwrap().health() == PoolHealth::Failing;
    let pool = until(&daemon, "p", "failing", failing).await;
    assert!(pool.status.unwrap().last_failure.unwrap().message.contains("panicked"));
    node.host.panics.store(false, Ordering::SeqCst);
    full(&daemon, 1).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn one_that_was_taken_back_without_an_answer_is_given_once_it_answers() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    let warm = node.host.sandboxes.lock().unwrap().keys().next().unwrap().to_string();
    daemon.stop().await.unwrap();

    node.host.mute.store(true, Ordering::SeqCst);
    let daemon = node.start().await;
    let status = get(&daemon, "p").await.unwrap().status.unwrap();
    assert_eq!((status.ready, status.health()), (0, PoolHealth::Refilling));
    let cold = claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    assert_eq!(cold.start_kind(), StartKind::Cold);
    node.host.mute.store(false, Ordering::SeqCst);
    full(&daemon, 1).await;
    let made = claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    assert_eq!((made.start_kind(), made.sandbox.unwrap().id), (StartKind::Warm, warm));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn counters_begin_at_0_for_prometheus_and_go_on_for_ops_with_the_demand() {
    let node = Node::new();
    let daemon = node.start().await;
    make(&daemon, "p", spec(0)).await.unwrap();
    for _ in 0..3 {
        claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    }
    daemon.stop().await.unwrap();

    let (daemon, metrics) = with_room(&node, 1000).await;
    let misses = |count: u64| format!("hostel_pool_claims_total{{pool=\"p\",outcome=\"miss\"}} {count}\n");
    let text = scrape(metrics).await;
    assert!(text.contains(&misses(0)), "{text}");
    claim(&daemon, CreateSandboxRequest::default()).await.unwrap();
    let text = scrape(metrics).await;
    assert!(text.contains(&misses(1)), "{text}");
    assert_eq!(get(&daemon, "p").await.unwrap().counters.unwrap().misses, 4);
    let plan = v1::PlanPoolRequest { name: "p".into(), ..Default::default() };
    assert_eq!(
        daemon.pools().plan_pool(plan).await.unwrap().into_inner().claims,
        4,
        "a stop forgets nothing"
    );
    daemon.stop().await.unwrap();
}
