//! What a host-side backend and the guest say to each other, and what the daemon says to the zygote.
//!
//! A guest serves unix stream sockets. Every connection starts with [`Hello`] from the host, answered by
//! [`Welcome`]; then the host sends [`Request`]s one at a time and gets one [`Reply`] each, in order. Two
//! requests turn the connection into a stream for good: `Attach`/`Exec` (process output and input) and
//! `WatchFiles`. Contents of files travel as descriptors, or, where a guest is reached through a [`relay`], as frames
//! on the same connection. Messages are protobuf, so that a daemon of a newer version can speak to guests that an
//! older one started; bulk output travels as raw frames. Each side takes what the other says for hostile:
//! lengths are checked before memory is taken, and a broken rule ends the connection, nothing else.
#![forbid(unsafe_code)]

pub mod frame;
pub mod message;
pub mod relay;
pub mod zygote;

pub use frame::{Decoder, Frame, FrameError, HEADER_LEN, MAX_DATA, MAX_MESSAGE, StreamId};
pub use message::*;
