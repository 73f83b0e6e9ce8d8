//! What only SQLite has: files.

use crate::place::{Place, open};
use crate::records::session;
use hostel_session::{Error, NewSession, StoreUrl, open_store};
use sqlx::Connection as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/sessions.db");
    let store = open(path.to_str().unwrap()).await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    for beside in ["sessions.db-wal", "sessions.db-shm"] {
        assert_eq!(mode(&path.with_file_name(beside)), 0o600);
    }
    store.close().await;
    // All is in the file then, so that it may be copied.
    assert!(!path.with_file_name("sessions.db-wal").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let place = Place::sqlite();
    place.open().await.close().await;
    let mut connection = sqlx::SqliteConnection::connect(&place.url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999, 'later', TRUE, x'00', 0)";
    sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    match open_store(&place.url.parse().unwrap()).await {
        Err(Error::Store { problem, .. }) => assert!(problem.contains("version 999"), "{problem}"),
        _ => panic!("it was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    std::fs::write(&path, "this is no database, and longer than nothing at all".repeat(100)).unwrap();
    let refused = open_store(&StoreUrl::sqlite(&path)).await;
    assert!(matches!(refused, Err(Error::Store { .. })));
    let refused = open_store(&StoreUrl::sqlite(directory.path())).await;
    assert!(matches!(refused, Err(Error::Store { .. })));
}

#[test]
fn addresses() {
    let shown = |url: &str| url.parse::<StoreUrl>().map(|url| format!("{url} {url:?}"));
    assert_eq!(shown("/a/b.db").unwrap(), "sqlite:///a/b.db StoreUrl(sqlite:///a/b.db)");
    assert_eq!(shown("sqlite:///a/b.db").unwrap(), "sqlite:///a/b.db StoreUrl(sqlite:///a/b.db)");
    let postgres = shown("postgres://me:secret@db.example.com:5433/main?sslmode=disable").unwrap();
    assert_eq!(postgres, "postgres://db.example.com:5433/main StoreUrl(postgres://db.example.com:5433/main)");
    for wrong in ["", "mysql://x/y", "sqlite://b.db", "postgres://me:secret@host:port/main"] {
        match shown(wrong) {
            Err(Error::Invalid { field, problem }) => {
                assert_eq!(field, "store");
                assert!(!problem.contains("secret"), "{problem}");
            }
            other => panic!("{wrong}: {other:?}"),
        }
    }
}
