//! Connections that only cost.

use crate::world::{World, allow, ask, get, read_all};
use hostel_egress::{Discard, Limits, Settings, Timeouts};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn quick() -> Settings {
    let timeouts = Timeouts { sniff: Duration::from_millis(500), ..Timeouts::default() };
    Settings {
        timeouts,
        limits: Limits { connections: 40, undecided: 8, ..Limits::default() },
        ..Settings::default()
    }
}

#[tokio::test]
async fn half_open_connections_do_not_last() {
    let mut world = World::with(quick(), Arc::new(Discard)).await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let mut silent = Vec::new();
    for n in 0..30 {
        silent.push(if n % 2 == 0 {
            world.proxied().await
        } else {
            world.direct(([127, 1, 0, 1], 443).into()).await
        });
    }
    // Silent ones go away in turn, and others get theirs.
    for stream in &mut silent {
        read_all(stream).await;
    }
    let url = format!("api.example.com:{}", host.address.port());
    assert!(ask(world.connect(&url).await.unwrap(), &get(&url)).await.contains("200 OK"));
    assert!(world.sandbox.recent().iter().any(|one| one.reason == "timeout"));
}

#[tokio::test]
async fn slow_drips_end() {
    let world = World::with(quick(), Arc::new(Discard)).await;
    world.policy(vec![allow("api.example.com", 443)]);
    for (mut stream, bytes) in [
        (world.proxied().await, get("api.example.com").into_bytes()),
        (world.proxied().await, vec![5, 200]),
        (world.direct(([127, 1, 0, 1], 443).into()).await, vec![22, 3, 1, 2, 0, 1, 0]),
    ] {
        let mut drip = tokio::time::interval(Duration::from_millis(60));
        let dripping = async {
            for byte in bytes.iter().cycle() {
                drip.tick().await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), dripping).await.unwrap();
    }
    assert!(world.sandbox.recent().iter().all(|one| !one.allowed));
}

#[tokio::test]
async fn heads_have_a_limit() {
    let world = World::with(quick(), Arc::new(Discard)).await;
    let endless = format!("GET http://api.example.com/{} HTTP/1.1\r\n", "a".repeat(100_000));
    assert!(ask(world.proxied().await, &endless).await.starts_with("HTTP/1.1 400"));
    let mut hello = vec![22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc];
    hello.resize(100_000, 0);
    let mut stream = world.direct(([127, 1, 0, 1], 443).into()).await;
    let _ = stream.write_all(&hello).await;
    read_all(&mut stream).await;
    assert_eq!(world.refused(), "bad_request");
}

#[tokio::test]
async fn connections_have_a_limit() {
    let mut world = World::with(quick(), Arc::new(Discard)).await;
    let host = world.echo("api.example.com", "127.1.0.1", b"hello").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(world.connect(&url).await.unwrap());
    }
    assert_eq!(world.connect(&url).await.unwrap_err(), "");
    assert_eq!(world.refused(), "limit");
    open.pop();
    // The place is free once the end of one has been seen.
    while world.connect(&url).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// What lies in buffers is the host's: of connections that were fast and are read no more.
#[tokio::test]
async fn late_connections_of_a_crowd_hold_little() {
    const READ: usize = 64 << 20;
    let limits = Limits { at_ease: 1, ..Limits::default() };
    let mut world = World::with(Settings { limits, ..Settings::default() }, Arc::new(Discard)).await;
    let host = world.reading("api.example.com", "127.1.0.1", READ).await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    let mut held = Vec::new();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = world.connect(&url).await.unwrap();
        let bytes = vec![7; 256 << 10];
        let mut sent = 0;
        while let Ok(count) = tokio::time::timeout(Duration::from_secs(1), stream.write(&bytes)).await {
            sent += count.unwrap();
        }
        held.push(sent - READ);
        open.push(stream);
    }
    // The program's own buffers are in there, and the far host's.
    assert!(held[1] < held[0] / 2, "{held:?}");
}
