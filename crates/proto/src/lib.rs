//! Generated code of the public API `hostel.v1`, and nothing else.
//!
//! Messages, clients and servers are in [`v1`]. What they mean is written in the `.proto` files, from which the
//! documentation here is taken.
#![forbid(unsafe_code)]

/// The package `hostel.v1`.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, rustdoc::all, clippy::all, clippy::pedantic)]
#[allow(clippy::large_futures, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("hostel.v1");
}

/// The compiled `.proto` files with everything they import, as an encoded `google.protobuf.FileDescriptorSet`: for
/// server reflection and for clients that read the API at run time.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("hostel_descriptor");

#[cfg(test)]
mod tests;
