//! The messages between a host-side backend and the guest inside a sandbox.
