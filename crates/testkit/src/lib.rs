//! For tests and demonstrations: a scripted model endpoint.
#![forbid(unsafe_code)]
