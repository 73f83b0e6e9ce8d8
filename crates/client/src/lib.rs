//! Rust client of hostel.v1.
