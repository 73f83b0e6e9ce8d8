//! Opens the store that the configuration names.

use crate::config::Config;
use crate::error::{Error, Result};
use hostel_session::Store;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

/// Makes the state directory, readable by nobody else, and opens the store.
///
/// # Errors
/// Where the directory cannot be made or the store not opened.
pub(crate) async fn open(config: &Config) -> Result<Arc<dyn Store>> {
    let directory = &config.state_directory;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| Error::file(directory, error))?;
    Ok(hostel_session::open_store(&config.store).await?)
}
