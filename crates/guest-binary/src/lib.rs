//! The static guest and probe executables, as bytes.
