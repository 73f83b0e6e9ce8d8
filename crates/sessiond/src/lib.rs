//! The session server: REST, SSE, WebSocket and gRPC over agent sessions.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "the router takes it")]
mod grpc;
