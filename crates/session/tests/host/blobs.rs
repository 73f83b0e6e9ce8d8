//! What a host does with the blobs of its sessions.

use super::{PATIENCE, create, host};
use hostel_session::{
    BlobLocation, BlobStore, Commit, CreateSession, Error, Session, SessionConfig, SessionHost as _,
    SessionId, SessionStatus, StoreUrl, TranscriptPiece, open_store,
};

pub(crate) fn url(place: &tempfile::TempDir) -> StoreUrl {
    StoreUrl::sqlite(place.path().join("sessions.db"))
}

pub(crate) fn blobs(place: &tempfile::TempDir) -> BlobStore {
    BlobStore::open(&BlobLocation::Directory(place.path().join("blobs"))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_blobs_cannot_be_removed_can_be_deleted_again() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let id = host.create(create()).await.unwrap().session.id;
    let (blob, in_the_way) =
        (format!("sessions/{id}/tool-results/d/a.txt"), place.path().join("blobs/sessions"));
    std::fs::write(&in_the_way, "").unwrap();
    let failed = host.delete(&id).await;
    assert!(matches!(failed, Err(Error::Blob { .. })), "{failed:?}");
    let session = host.get(&id).await.unwrap();
    assert_eq!(session.status, SessionStatus::Terminated);

    std::fs::remove_file(&in_the_way).unwrap();
    blobs(&place).put(&blob, "kept".into()).await.unwrap();
    host.delete(&id).await.unwrap();
    assert!(matches!(host.get(&id).await, Err(Error::NotFound { .. })));
    assert!(blobs(&place).list("").await.unwrap().is_empty());
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_goes_on_with_another_has_blobs_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let earlier = host.create(create()).await.unwrap().session;
    // What its agent would have done.
    host.unload(&earlier.id).await.unwrap();
    let left = async {
        while host.is_loaded(&earlier.id) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("nobody has it");
    let store = open_store(&url(&place)).await.unwrap();
    let taken = store.take(&earlier.id).await.unwrap();
    let session = Session { session_id: "c".to_owned(), ..taken.session };
    let transcript =
        vec![TranscriptPiece { path: "/s/projects/p/c.jsonl".to_owned(), lines: "{}\n".to_owned() }];
    let commit = Commit::new(earlier.id.clone(), taken.generation);
    store.commit(Commit { session: Some(session), transcript, ..commit }).await.unwrap();
    store.close().await;
    let kept = |id: &SessionId| format!("sessions/{id}/tool-results/d/a.txt");
    blobs(&place).put(&kept(&earlier.id), "kept".into()).await.unwrap();

    let config = SessionConfig { resume_session_id: Some("c".to_owned()), ..SessionConfig::default() };
    let id = host.create(CreateSession { config, ..create() }).await.unwrap().session.id;
    host.delete(&earlier.id).await.unwrap();
    let left = blobs(&place).list("").await.unwrap();
    assert_eq!(left.iter().map(|blob| blob.key.as_str()).collect::<Vec<_>>(), [kept(&id)]);
    assert_eq!(blobs(&place).read(&kept(&id), 100).await.unwrap(), "kept");
    host.shutdown().await;
}
