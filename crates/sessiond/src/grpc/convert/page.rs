//! Pages of listings.

use crate::grpc::status::invalid;
use hostel_session::{Position, Start};
use jiff::Timestamp;
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

/// A token for the page behind a session.
pub(crate) fn token(position: &Position) -> String {
    format!("{}.{}", position.created_at.as_microsecond(), position.id)
}

/// Where the page begins that a token is for.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn start(token: &str) -> Result<Start, Status> {
    if token.is_empty() {
        return Ok(Start::default());
    }
    let position = token.split_once('.').and_then(|(micros, id)| {
        let created_at = Timestamp::from_microsecond(micros.parse().ok()?).ok()?;
        Some(Position { created_at, id: id.parse().ok()? })
    });
    position
        .map(Start::After)
        .ok_or_else(|| invalid("page_token", "not a token of this listing: pass next_page_token"))
}
