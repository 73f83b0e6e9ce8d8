//! The supervisor inside a sandbox, and the zygote that clones jails.
