//! Opens the store that the configuration names.

use crate::config::Config;
use crate::error::{Error, Result};
use hostel_session::Store;
use std::sync::Arc;

/// Opens it.
///
/// # Errors
/// Where it cannot be opened.
pub(crate) async fn open(_config: &Config) -> Result<Arc<dyn Store>> {
    Err(Error::Config("this version has no store".to_owned()))
}
