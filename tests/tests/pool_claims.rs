//! Many claims at once on real jails, and what a `kill -9` in the middle of them leaves.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_proto::v1::{self, CreateSandboxRequest, PoolHealth, StartKind};
use hostel_tests::{Api, TestDaemon, eventually, leftovers};
use std::collections::BTreeSet;
use std::time::Duration;

const CLIENTS: usize = 50;
const CLAIMS_EACH: usize = 20;

/// A daemon with a pool of jails with little memory each, as the node may be small.
fn daemon_with_pool(size: u32) -> TestDaemon {
    let daemon = TestDaemon::start();
    let size = size.to_string();
    let sizes = ["--min", "0", "--max", "100", "--pin", &size, "--refill-concurrency", "4"];
    let made = [&["pool", "create", "p", "--memory", "64M", "--disk", "64M"], &sizes[..]].concat();
    let _ = daemon.hostel(&made).success();
    daemon
}

async fn pool(api: &Api) -> v1::Pool {
    let request = v1::GetPoolRequest { name: "p".into() };
    api.pools().get_pool(request).await.unwrap().into_inner().pool.unwrap()
}

async fn full(api: &Api, size: u32) -> v1::Pool {
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let watch = v1::WatchPoolsRequest { names: vec!["p".into()], interval };
    let mut watch = api.pools().watch_pools(watch).await.unwrap().into_inner();
    let full = async {
        loop {
            let pool = watch.message().await.unwrap().unwrap().pool.unwrap();
            if pool.status.as_ref().unwrap().ready == size {
                return pool;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), full).await.unwrap()
}

/// One client's claims, each checked to be its own and deleted. → ids, and how many were warm.
async fn claims(api: Api) -> (Vec<String>, u64) {
    let (mut ids, mut warm) = (Vec::new(), 0);
    for _ in 0..CLAIMS_EACH {
        let made =
            api.sandboxes().create_sandbox(CreateSandboxRequest::default()).await.unwrap().into_inner();
        warm += u64::from(made.start_kind() == StartKind::Warm);
        let id = made.sandbox.unwrap().id;
        let mark = v1::MakeDirectoryRequest {
            sandbox_id: id.clone(),
            path: "/workspace/mine".into(),
            ..Default::default()
        };
        // Nobody was here before.
        api.files().make_directory(mark).await.unwrap();
        let delete = v1::DeleteSandboxRequest { sandbox_id: id.clone(), ..Default::default() };
        api.sandboxes().delete_sandbox(delete).await.unwrap();
        ids.push(id);
    }
    (ids, warm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_claims_by_fifty_clients_get_a_sandbox_each() {
    let mut daemon = daemon_with_pool(40);
    let api = Api::connect(&daemon).await;
    full(&api, 40).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let api = Api::connect(&daemon).await;
        clients.spawn(claims(api));
    }
    let (mut ids, mut warm) = (BTreeSet::new(), 0);
    while let Some(done) = clients.join_next().await {
        let (claimed, hits) = done.unwrap();
        assert!(claimed.into_iter().all(|id| ids.insert(id)), "one went to two");
        warm += hits;
    }
    assert_eq!(ids.len(), CLIENTS * CLAIMS_EACH);
    let counters = full(&api, 40).await.counters.unwrap();
    assert_eq!((counters.hits, counters.hits + counters.misses), (warm, 1000));
    assert!(warm >= 40, "{warm} of the 40 that were there");

    let drained =
        api.pools().drain_pool(v1::DrainPoolRequest { name: "p".into() }).await.unwrap().into_inner();
    assert_eq!(drained.pool.unwrap().status.unwrap().health(), PoolHealth::Drained);
    let made = api.sandboxes().create_sandbox(CreateSandboxRequest::default()).await.unwrap().into_inner();
    assert_eq!(made.start_kind(), StartKind::Cold);
    let delete = v1::DeleteSandboxRequest { sandbox_id: made.sandbox.unwrap().id, ..Default::default() };
    api.sandboxes().delete_sandbox(delete).await.unwrap();
    drop(api);
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn less_memory_than_the_pool_has_is_made_cold_and_takes_no_warm_sandbox_with_it() {
    let daemon = daemon_with_pool(2);
    let api = Api::connect(&daemon).await;
    full(&api, 2).await;
    let claim = |memory_bytes| CreateSandboxRequest {
        limits: Some(v1::ResourceLimits { memory_bytes: Some(memory_bytes), ..Default::default() }),
        ..Default::default()
    };
    for (memory, start) in [(32 << 20, StartKind::Cold), (64 << 20, StartKind::Warm)] {
        let made = api.sandboxes().create_sandbox(claim(memory)).await.unwrap().into_inner();
        assert_eq!(made.start_kind(), start);
        assert_eq!(made.sandbox.unwrap().limits.unwrap().memory_bytes, Some(memory));
    }
    let counters = pool(&api).await.counters.unwrap();
    assert_eq!((counters.hits, counters.misses_unfit, counters.claim_failures), (1, 1, 0));
}

/// Claims a sandbox without an environment and checks that it has none.
async fn without_token(api: &Api) {
    let made = api.sandboxes().create_sandbox(CreateSandboxRequest::default()).await.unwrap().into_inner();
    let id = made.sandbox.unwrap().id;
    let command = ["sh", "-c", "test -z \"$TOKEN\""].map(str::to_owned).to_vec();
    let spec = Some(v1::ProcessSpec { command, ..Default::default() });
    let start = v1::StartProcessRequest { sandbox_id: id.clone(), spec, ..Default::default() };
    let process = api.processes().start_process(start).await.unwrap().into_inner().process.unwrap();
    let wait =
        v1::WaitProcessRequest { sandbox_id: id.clone(), process_id: process.id, ..Default::default() };
    let ended = api.processes().wait_process(wait).await.unwrap().into_inner().process.unwrap();
    let outcome = ended.exit_status.unwrap().outcome;
    assert_eq!(outcome, Some(v1::exit_status::Outcome::ExitCode(0)), "another's token is in it");
    let delete = v1::DeleteSandboxRequest { sandbox_id: id, ..Default::default() };
    api.sandboxes().delete_sandbox(delete).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_loses_no_claimed_sandbox_and_leaves_nothing() {
    let mut daemon = daemon_with_pool(6);
    for round in 0..4u64 {
        let api = Api::connect(&daemon).await;
        if round == 0 {
            full(&api, 6).await;
        }
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let api = Api::connect(&daemon).await;
            clients.spawn(async move {
                let mut claimed = Vec::new();
                // Until the daemon is gone.
                let request = CreateSandboxRequest {
                    env: [("TOKEN".to_owned(), "secret".to_owned())].into(),
                    ..Default::default()
                };
                while let Ok(made) = api.sandboxes().create_sandbox(request.clone()).await {
                    claimed.push(made.into_inner().sandbox.unwrap().id);
                }
                claimed
            });
        }
        // A different moment each time.
        tokio::time::sleep(Duration::from_millis(20 + 35 * round)).await;
        daemon.kill();
        let mut told = BTreeSet::new();
        while let Some(claimed) = clients.join_next().await {
            assert!(claimed.unwrap().into_iter().all(|id| told.insert(id)), "one went to two");
        }
        daemon.restart();
        let api = Api::connect(&daemon).await;
        let list = v1::ListSandboxesRequest { page_size: 1000, ..Default::default() };
        let there = api.sandboxes().list_sandboxes(list).await.unwrap().into_inner().sandboxes;
        let there: BTreeSet<_> = there.into_iter().map(|sandbox| sandbox.id).collect();
        assert!(told.is_subset(&there), "lost: {:?}", told.difference(&there).collect::<Vec<_>>());
        for id in &there {
            let spec = v1::ProcessSpec { command: vec!["true".into()], ..Default::default() };
            let start =
                v1::StartProcessRequest { sandbox_id: id.clone(), spec: Some(spec), ..Default::default() };
            api.processes().start_process(start).await.unwrap();
            let delete = v1::DeleteSandboxRequest { sandbox_id: id.clone(), ..Default::default() };
            api.sandboxes().delete_sandbox(delete).await.unwrap();
        }
        // Whatever is warm after that holds nothing of those who claimed.
        for _ in 0..6 {
            without_token(&api).await;
        }
        full(&api, 6).await;
    }
    let api = Api::connect(&daemon).await;
    assert_eq!(pool(&api).await.status.unwrap().health(), PoolHealth::Healthy);
    api.pools().delete_pool(v1::DeletePoolRequest { name: "p".into(), allow_missing: false }).await.unwrap();
    drop(api);
    assert!(daemon.stop().success());
    eventually("nothing is left", || leftovers(&daemon).is_empty());
}
