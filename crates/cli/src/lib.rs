//! The hostel command line.
