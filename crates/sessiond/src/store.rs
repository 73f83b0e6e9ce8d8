//! Opens what the configuration names to keep sessions in.

use crate::config::Config;
use crate::error::{Error, Result};
use hostel_session::{BlobStore, Store};
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

/// Makes the state directory, readable by nobody else, and opens the store and the one for blobs.
///
/// # Errors
/// Where the directory cannot be made or a store not opened.
pub(crate) async fn open(config: &Config) -> Result<(Arc<dyn Store>, BlobStore)> {
    let directory = &config.state_directory;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| Error::file(directory, error))?;
    let blobs = BlobStore::open(&config.blobs)?;
    Ok((hostel_session::open_store(&config.store).await?, blobs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_session::BlobLocation;

    #[tokio::test]
    async fn blobs_are_in_the_state_directory_or_it_does_not_open() {
        let state = tempfile::tempdir().unwrap();
        let mut config = Config::in_directory(state.path());
        open(&config).await.unwrap().0.close().await;
        assert!(state.path().join("blobs").is_dir());
        let file = state.path().join("a-file");
        std::fs::write(&file, "").unwrap();
        config.blobs = BlobLocation::Directory(file.clone());
        let Err(error) = open(&config).await else { panic!("a file is no directory") };
        let error = error.to_string();
        assert!(error.contains("the blob store") && error.contains(file.to_str().unwrap()), "{error}");
    }
}
