//! Pages of listings.

use crate::grpc::status::invalid;
use tonic::Status;

/// Where nothing is asked for, and the most at a time.
const DEFAULT: u64 = 50;
const MOST: u64 = 1000;

/// What `page_size` means: 0 is 50, above 1000 is 1000.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn size(asked: i32) -> Result<u64, Status> {
    match u64::try_from(asked) {
        Ok(0) => Ok(DEFAULT),
        Ok(size) => Ok(size.min(MOST)),
        Err(_) => Err(invalid("page_size", "must not be negative")),
    }
}

/// A token for a page.
pub(crate) fn token(page: u64) -> String {
    format!("page-{page}")
}

/// The page that a token is for, from 1.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn number(token: &str) -> Result<u64, Status> {
    if token.is_empty() {
        return Ok(1);
    }
    let number = token.strip_prefix("page-").and_then(|number| number.parse().ok());
    number
        .filter(|number| (1..=1 << 32).contains(number))
        .ok_or_else(|| invalid("page_token", "not a token of this listing: pass next_page_token"))
}
