//! Network policy enforcement, secret brokering: what leaves a sandbox, and what does not.
#![forbid(unsafe_code)]

pub mod namespace;
