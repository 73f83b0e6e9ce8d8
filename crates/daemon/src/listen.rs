//! Where clients connect, and who they are.

mod address;
mod authority;
mod incoming;
mod peer;
mod places;
mod tcp;
mod unix;

pub use address::Address;
pub(crate) use incoming::Listeners;
pub(crate) use peer::Peer;
pub(crate) use places::Most;
