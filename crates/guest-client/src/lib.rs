//! The host side of the guest protocol: processes and files of a sandbox, through its guest.
