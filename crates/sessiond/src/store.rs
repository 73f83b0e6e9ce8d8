//! Opens the store that the configuration names.

use crate::config::Config;
use crate::error::{Error, Result};
use hostel_session::{Store, StoreUrl, open_store};
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// Opens it.
///
/// # Errors
/// Where it cannot be opened.
pub(crate) async fn open(config: &Config) -> Result<Arc<dyn Store>> {
    let url = match &config.store {
        Some(url) => url.expose_secret().parse()?,
        None => {
            let directory = &config.state_directory;
            std::fs::create_dir_all(directory).map_err(|error| Error::file(directory, error))?;
            StoreUrl::sqlite(directory.join("sessions.sqlite"))
        }
    };
    Ok(open_store(&url).await?)
}
