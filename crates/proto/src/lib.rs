//! Generated code of the public API hostel.v1, and nothing else.
