//! `hostel up`: the daemon in this process.

use super::Outcome;
use crate::args::UpArgs;
use crate::failure::Failure;

pub(crate) async fn up(args: UpArgs) -> Outcome {
    Err(Failure::other("UNAVAILABLE", format!("the daemon is not part of this build yet: {args:?}")))
}
