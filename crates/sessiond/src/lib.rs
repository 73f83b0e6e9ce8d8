//! The session server: REST, SSE, WebSocket and gRPC over agent sessions.
#![forbid(unsafe_code)]
