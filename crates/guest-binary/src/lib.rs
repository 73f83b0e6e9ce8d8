//! The static guest and probe executables, as bytes: `hosteld` is one file to deploy.
#![forbid(unsafe_code)]

/// `hostel-guest`: supervisor of a sandbox, and zygote of jails.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostel-guest"));

/// `hostel-probe`: looks around in a sandbox, tries to get out of it, eats its resources. For tests.
pub static PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostel-probe"));
