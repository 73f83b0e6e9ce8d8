//! One suite for blobs in a directory and in a bucket of a server that speaks S3.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;
mod s3;

use bytes::Bytes;
use cases::every_case;
use futures::stream;
use hostel_session::{BlobLocation, BlobStore, Error};
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

/// With a clock that goes on as soon as everybody waits for it.
#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_waited_for_in_vain_and_not_for_ever() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = s3::bucket_at(socket.local_addr().unwrap(), "");
    let store = BlobStore::open(&location).unwrap();
    let asking = async {
        let given_up = [
            store.put("a", Bytes::from_static(b"x")).await.err(),
            store.put_stream("a", stream::iter([Ok(Bytes::from(vec![7; 20 << 20]))])).await.err(),
            store.get("a").await.err(),
            store.list("").await.err(),
            store.copy("a", "b").await.err(),
            store.delete("a").await.err(),
            store.check().await.err(),
        ];
        for (turn, error) in given_up.into_iter().enumerate() {
            assert!(matches!(error, Some(Error::Blob { .. })), "{turn}: {error:?}");
        }
    };
    let silent = async {
        let mut clients = Vec::new();
        while let Ok((client, _)) = socket.accept().await {
            clients.push(client);
        }
    };
    tokio::select! {
        () = asking => {}
        () = silent => {}
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
