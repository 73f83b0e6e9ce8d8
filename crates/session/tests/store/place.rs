//! Where the databases of a test are.

use crate::postgres;
use hostel_session::{Store, StoreUrl, open_store};
use std::sync::Arc;
use tempfile::TempDir;

/// A database of one test's own.
pub(crate) struct Place {
    pub(crate) url: String,
    _directory: Option<TempDir>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/new/sessions.db", directory.path().display());
        Self { url, _directory: Some(directory) }
    }

    /// None where PostgreSQL is not installed, which is told.
    pub(crate) async fn postgres() -> Option<Self> {
        let url = postgres::shared()?.new_database().await;
        Some(Self { url, _directory: None })
    }

    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        open(&self.url).await
    }
}

pub(crate) async fn open(url: &str) -> Arc<dyn Store> {
    open_store(&url.parse::<StoreUrl>().unwrap()).await.unwrap()
}

/// Waits until something is so.
pub(crate) async fn eventually(so: impl Fn() -> bool) {
    let soon = async {
        while !so() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), soon).await.expect("it does not come about");
}
