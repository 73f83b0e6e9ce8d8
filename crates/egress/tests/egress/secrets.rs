//! Secrets on the way through the doors.

use crate::world::{World, allow, ask, get};
use hostel_egress::Kind;
use hostel_egress::secret::{PlaceholderKey, SecretSet, SecretSource, SecretValue, Secrets};
use hostel_sandbox::SandboxId;
use hostel_sandbox::secret::{SecretForm, SecretRef};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_bound_host_gets_the_value_and_nobody_else() {
    let mut world = World::new().await;
    let (bound, other) = ("api.example.com", "other.example.com");
    let (host, stranger) = (world.https(bound, "127.1.0.1").await, world.https(other, "127.1.0.2").await);
    let (port, strange) = (host.address.port(), stranger.address.port());
    world.policy(vec![allow(bound, port), allow(other, strange), allow(bound, strange)]);
    let url = format!("{bound}:{port}");
    let mut before = world.tls(world.connect(&url).await.unwrap(), bound).await.unwrap();
    let secret = SecretRef {
        name: "token".to_owned(),
        hosts: vec![bound.parse().unwrap()],
        form: SecretForm::Placeholder,
        env: None,
    };
    let value = SecretValue::new("token", b"the-real-value-of-it").unwrap();
    let set =
        SecretSet::new(SandboxId::generate(), vec![(secret, value, "the-placeholder".to_owned())]).unwrap();
    world.sandbox.set_secrets(Arc::new(set));
    // What was not seen before is cut, for now it must be.
    assert!(before.read(&mut [0; 1]).await.is_err());

    let request =
        |host: &str| get(host).replace("Connection", "Authorization: Bearer the-placeholder\r\nConnection");
    for stream in [world.connect(&url).await.unwrap(), world.direct(host.address).await] {
        let tls = world.tls(stream, bound).await.unwrap();
        assert!(ask(tls, &request(&url)).await.contains("200 OK"));
        assert!(
            host.heard().to_lowercase().contains("authorization: bearer the-real-value-of-it"),
            "{}",
            host.heard()
        );
        host.heard.lock().unwrap().clear();
        let used = world.sandbox.recent().into_iter().rev().find(|one| one.kind == Kind::Secret).unwrap();
        assert_eq!((used.secret.as_deref(), used.host.as_deref()), (Some("token"), Some(bound)));
    }
    let stream = world.connect(&format!("{other}:{strange}")).await.unwrap();
    let tls = world.tls(stream, other).await.unwrap();
    assert!(ask(tls, &request(other)).await.contains("200 OK"));
    assert!(stranger.heard().contains("the-placeholder") && !stranger.heard().contains("the-real"));
    // The bound name at somebody else's address gets nothing.
    assert!(world.tls(world.direct(stranger.address).await, bound).await.is_err());
    assert_eq!(world.refused(), "name_mismatch");
    assert!(!format!("{:?}", world.sandbox.recent()).contains("the-real"));
}

#[tokio::test]
async fn a_host_whose_secrets_stay_is_not_cut() {
    let mut world = World::new().await;
    let (stays, goes) = ("stays.example.com", "goes.example.com");
    let (one, other) = (world.https(stays, "127.1.0.1").await, world.https(goes, "127.1.0.2").await);
    world.policy(vec![allow(stays, one.address.port()), allow(goes, other.address.port())]);
    let directory = tempfile::tempdir().unwrap();
    let variables = ["ONE", "TWO"].map(|name| (format!("HOSTEL_SECRET_{name}"), "a-real-value".to_owned()));
    let values = Arc::new(Secrets::new(None, SecretSource::from_parts(Vec::new(), None, variables)));
    let (id, key) = (SandboxId::generate(), PlaceholderKey::load_or_create(directory.path()).unwrap());
    let secret = |name: &str, host: &str| SecretRef {
        name: name.to_owned(),
        hosts: vec![host.parse().unwrap()],
        form: SecretForm::Placeholder,
        env: None,
    };
    let set = |second: SecretRef| {
        let secrets = [secret("one", stays), second];
        world
            .sandbox
            .set_secrets(Arc::new(SecretSet::open(id.clone(), &secrets, Arc::clone(&values), &key).unwrap()));
    };
    set(secret("two", goes));
    let url = format!("{stays}:{}", one.address.port());
    let kept = world.tls(world.connect(&url).await.unwrap(), stays).await.unwrap();
    let away = format!("{goes}:{}", other.address.port());
    let mut cut = world.tls(world.connect(&away).await.unwrap(), goes).await.unwrap();
    let form = SecretForm::Header { name: "x-key".to_owned(), template: "{}".to_owned() };
    set(SecretRef { form, ..secret("two", goes) });
    assert!(cut.read(&mut [0; 1]).await.is_err());
    assert!(ask(kept, &get(&url)).await.contains("200 OK"));
}
