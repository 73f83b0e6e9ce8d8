//! The rate limits that the API tells of in headers (docs of the API, "Rate limits"). Ours limit nothing.

use crate::messages::MessagesRequest;
use jiff::{SignedDuration, Timestamp, Unit};

const REQUESTS: u64 = 4000;
const INPUT_TOKENS: u64 = 2_000_000;
const OUTPUT_TOKENS: u64 = 400_000;

/// The headers of one answer. Where the answer is that a limit was reached, nothing remains.
pub(super) fn headers(
    request: &MessagesRequest,
    reached: bool,
    retry_after: Option<u32>,
) -> Vec<(&'static str, String)> {
    let seconds = retry_after.unwrap_or(if reached { 60 } else { 1 });
    let reset = Timestamp::now()
        .checked_add(SignedDuration::from_secs(seconds.into()))
        .and_then(|reset| reset.round(Unit::Second))
        .unwrap_or(Timestamp::MAX)
        .to_string();
    let remaining = |most: u64, used: u64| if reached { 0 } else { most.saturating_sub(used) }.to_string();
    let input = remaining(INPUT_TOKENS, request.input_tokens);
    let all = remaining(INPUT_TOKENS + OUTPUT_TOKENS, request.input_tokens);
    vec![
        ("anthropic-ratelimit-requests-limit", REQUESTS.to_string()),
        ("anthropic-ratelimit-requests-remaining", remaining(REQUESTS, 1)),
        ("anthropic-ratelimit-requests-reset", reset.clone()),
        ("anthropic-ratelimit-input-tokens-limit", INPUT_TOKENS.to_string()),
        ("anthropic-ratelimit-input-tokens-remaining", input),
        ("anthropic-ratelimit-input-tokens-reset", reset.clone()),
        ("anthropic-ratelimit-output-tokens-limit", OUTPUT_TOKENS.to_string()),
        ("anthropic-ratelimit-output-tokens-remaining", remaining(OUTPUT_TOKENS, 0)),
        ("anthropic-ratelimit-output-tokens-reset", reset.clone()),
        ("anthropic-ratelimit-tokens-limit", (INPUT_TOKENS + OUTPUT_TOKENS).to_string()),
        ("anthropic-ratelimit-tokens-remaining", all),
        ("anthropic-ratelimit-tokens-reset", reset),
    ]
}
