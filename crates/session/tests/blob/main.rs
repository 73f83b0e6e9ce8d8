//! One suite for blobs in a directory and in a bucket of a server that speaks S3.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod s3;

use bytes::Bytes;
use futures::TryStreamExt as _;
use hostel_session::{Blob, BlobLocation, BlobStore, Error};
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/blobs");
    let store = BlobStore::open(&BlobLocation::Directory(path.clone())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    every_case(&store).await;
    // Nothing is left of what was removed or not finished, nor of its directories.
    let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ab"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_bucket() {
    let Some(server) = s3::Server::start() else { return };
    for prefix in ["", "some/prefix"] {
        let store = BlobStore::open(&server.bucket(prefix)).unwrap();
        every_case(&store).await;
        store.delete("ab").await.unwrap();
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_an_error() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location = s3::bucket_at(socket.local_addr().unwrap(), "");
    drop(socket);
    let store = BlobStore::open(&location).unwrap();
    let refused = store.put("a", Bytes::from_static(b"x")).await;
    match refused {
        Err(Error::Blob { problem, .. }) => assert!(!problem.contains("secret-key"), "{problem}"),
        other => panic!("{other:?}"),
    }
}

async fn every_case(store: &BlobStore) {
    store.check().await.unwrap();
    written_and_read(store).await;
    in_parts(store).await;
    listed_and_removed(store).await;
    refused(store).await;
}

async fn written_and_read(store: &BlobStore) {
    for content in ["", "one", "another, in its place"] {
        store.put("a/b.jsonl", Bytes::from(content)).await.unwrap();
        assert_eq!(store.read("a/b.jsonl", 100).await.unwrap(), content);
    }
    let (blob, _) = store.get("a/b.jsonl").await.unwrap();
    assert_eq!((blob.key.as_str(), blob.bytes), ("a/b.jsonl", 21));
    assert!(blob.modified.as_second() > 1_700_000_000);
    assert!(matches!(store.read("a/b.jsonl", 20).await, Err(Error::Blob { .. })));
    assert!(matches!(store.get("a/none").await, Err(Error::NoSuch { kind: "blob", .. })));
    // What is a directory to some is no blob.
    assert!(store.get("a").await.is_err());
}

/// A piece of some megabytes, another for each number.
fn piece(number: u8) -> Bytes {
    let mut piece = vec![number; 3 << 20];
    piece[17] = 0;
    Bytes::from(piece)
}

async fn in_parts(store: &BlobStore) {
    for count in [0, 1, 2, 3, 6, 9] {
        let content = (0..count).map(piece);
        let bytes = store.put_stream("stream", futures::stream::iter(content.clone().map(Ok))).await.unwrap();
        assert_eq!(bytes, u64::from(count) * (3 << 20));
        let (blob, read) = store.get("stream").await.unwrap();
        assert_eq!(blob.bytes, bytes);
        let read: Vec<Bytes> = read.try_collect().await.unwrap();
        assert!(read.concat() == content.collect::<Vec<_>>().concat(), "{count} pieces came back otherwise");
    }
    // One that breaks off leaves what was there.
    for pieces in [1, 6] {
        let broken = (0..pieces).map(piece).map(Ok).chain([Err(Error::Stopping)]);
        let refused = store.put_stream("stream", futures::stream::iter(broken)).await;
        assert!(matches!(refused, Err(Error::Stopping)), "{refused:?}");
        assert_eq!(store.get("stream").await.unwrap().0.bytes, 27 << 20);
    }
    let small = store.clone().with_max_bytes(10 << 20);
    let large = (0..6).map(piece).map(Ok);
    assert!(matches!(small.put_stream("large", futures::stream::iter(large)).await, Err(Error::Blob { .. })));
    assert!(matches!(small.put("large", Bytes::from(vec![0; 11 << 20])).await, Err(Error::Blob { .. })));
    assert!(store.get("large").await.is_err());
    assert_eq!(store.delete("stream").await.unwrap(), 1);
}

async fn listed_and_removed(store: &BlobStore) {
    for key in ["a/c/d", "a/c.d", "ab"] {
        store.put(key, Bytes::from(key.to_owned())).await.unwrap();
    }
    let keys = |blobs: Vec<Blob>| blobs.into_iter().map(|blob| blob.key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("").await.unwrap()), ["a/b.jsonl", "a/c.d", "a/c/d", "ab"]);
    assert_eq!(keys(store.list("a").await.unwrap()), ["a/b.jsonl", "a/c.d", "a/c/d"]);
    assert_eq!(keys(store.list("a/c").await.unwrap()), ["a/c/d"]);
    assert!(store.list("none").await.unwrap().is_empty());
    assert_eq!(store.delete("a/c").await.unwrap(), 1);
    assert_eq!(store.delete("a").await.unwrap(), 2);
    assert_eq!(store.delete("a").await.unwrap(), 0);
    assert_eq!(keys(store.list("").await.unwrap()), ["ab"]);
}

async fn refused(store: &BlobStore) {
    for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".hidden", "a#1"] {
        let refused = store.put(key, Bytes::new()).await;
        assert!(
            matches!(&refused, Err(Error::Invalid { field, .. }) if field == "key"),
            "{key}: {refused:?}"
        );
        assert!(store.get(key).await.is_err());
        assert!(store.delete(key).await.is_err());
    }
}

#[test]
fn locations() {
    let shown = |text: &str| text.parse::<BlobLocation>().map(|location| format!("{location} {location:?}"));
    assert_eq!(shown("/var/lib/blobs").unwrap(), "/var/lib/blobs Directory(\"/var/lib/blobs\")");
    let bucket = shown("s3://bucket/a/b?region=eu-west-1&endpoint=https://s3.example.com").unwrap();
    assert!(bucket.starts_with("s3://bucket/a/b S3("), "{bucket}");
    assert!(bucket.contains("eu-west-1") && bucket.contains("https://s3.example.com"), "{bucket}");
    for wrong in ["", "http://x", "s3://", "s3://id:secret@bucket/", "s3://bucket?acl=public"] {
        match shown(wrong) {
            Err(Error::Invalid { field, problem }) => {
                assert_eq!(field, "blobs");
                assert!(!problem.contains("secret"), "{problem}");
            }
            other => panic!("{wrong}: {other:?}"),
        }
    }
    assert!(!format!("{:?}", s3::bucket_at("127.0.0.1:1".parse().unwrap(), "")).contains("secret-key"));
}
