//! `hostel-sessiond`.
#![forbid(unsafe_code)]

fn main() {}
