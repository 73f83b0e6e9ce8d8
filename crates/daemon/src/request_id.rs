//! Request ids: what makes a request repeatable.

use crate::error::Result;
use crate::listen::Peer;
use crate::sandboxes::Repeat;
use crate::store::RequestKey;
use hostel_sandbox::Error as DomainError;
use hostel_sandbox::process::StartRequest;
use prost::Message;
use sha2::{Digest as _, Sha256};

/// Longest request id, in characters.
const LONGEST: usize = 64;

/// Reads the request id of a request. `body` is the request with the id taken out of it.
///
/// # Errors
/// `InvalidArgument` where the id is not 1 to 64 printable ASCII characters.
pub(crate) fn repeat(
    peer: &Peer,
    method: &'static str,
    request_id: String,
    body: &impl Message,
) -> Result<Option<Repeat>> {
    if request_id.is_empty() {
        return Ok(None);
    }
    if request_id.len() > LONGEST || !request_id.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let problem = format!("must be 1 to {LONGEST} printable ASCII characters");
        return Err(DomainError::invalid("request_id", problem).into());
    }
    let key = RequestKey { principal: peer.actor.to_string(), method, request_id };
    // Maps are ordered in our generated types, so one message has one encoding.
    Ok(Some(Repeat { key, body: Sha256::digest(body.encode_to_vec()).into() }))
}

/// What a sandbox keeps of a request to start a process.
pub(crate) fn start_request(repeat: &Repeat) -> StartRequest {
    let mut hash = Sha256::new();
    for part in [&repeat.key.principal, &repeat.key.request_id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    StartRequest { key: hash.finalize().into(), body: repeat.body }
}

/// The id of the process that a repeatable request starts where the caller names none: the same each time, so that
/// who asks again gets the answer about the process that is there.
pub(crate) fn derived_process_id(request: &StartRequest) -> String {
    format!("p-{}", &crate::page::hex(&request.key)[..12])
}
