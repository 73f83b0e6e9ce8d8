//! The supervisor inside a sandbox, and the zygote that clones jails.

pub mod container;
pub mod relay;
pub mod supervisor;
pub mod tied;
pub mod unpack;
pub mod zygote;
