//! What every store of blobs does.

use bytes::Bytes;
use futures::TryStreamExt as _;
use hostel_session::{Blob, BlobStore, Error};

pub(crate) async fn every_case(store: &BlobStore) {
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
    assert_eq!(store.copy("a", "copies/of").await.unwrap(), 3);
    assert_eq!(
        keys(store.list("copies").await.unwrap()),
        ["copies/of/b.jsonl", "copies/of/c.d", "copies/of/c/d"]
    );
    assert_eq!(store.read("copies/of/c/d", 100).await.unwrap(), "a/c/d");
    assert_eq!(store.copy("none", "copies").await.unwrap(), 0);
    assert_eq!(store.delete("copies").await.unwrap(), 3);
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
