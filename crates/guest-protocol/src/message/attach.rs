//! An attached connection: how it begins, and what goes both ways.

use super::{Empty, Exit, Failure, FileEvent, TerminalSize};

/// How to attach.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attach {
    /// Which process.
    #[prost(string, tag = "1")]
    pub id: String,
    /// First offset wanted of standard output; absent is from now on.
    #[prost(uint64, optional, tag = "2")]
    pub stdout_from: Option<u64>,
    /// The same of standard error.
    #[prost(uint64, optional, tag = "3")]
    pub stderr_from: Option<u64>,
    /// Write to standard input.
    #[prost(bool, tag = "4")]
    pub stdin: bool,
    /// Take standard input from whoever has it.
    #[prost(bool, tag = "5")]
    pub takeover: bool,
}

/// From the host on an attached connection. Standard input itself comes as data frames.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToGuest {
    /// What.
    #[prost(oneof = "HostEvent", tags = "1, 2, 3, 4, 5, 6")]
    pub event: Option<HostEvent>,
}

/// See [`ToGuest`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum HostEvent {
    /// Everything of a stream before this offset is safe with the reader.
    #[prost(message, tag = "1")]
    Ack(Ack),
    /// End of standard input after what was sent.
    #[prost(message, tag = "2")]
    CloseStdin(Empty),
    /// A new terminal size.
    #[prost(message, tag = "3")]
    Resize(TerminalSize),
    /// A signal for the process group.
    #[prost(int32, tag = "4")]
    Signal(i32),
    /// The reader leaves for good: nothing need be held for it. Without this a lost connection holds the
    /// output for a grace time.
    #[prost(message, tag = "5")]
    Detach(Empty),
    /// After [`GuestEvent::Exited`]: the reader had everything, and the connection takes requests again. Before that
    /// it is a `Detach`. Only for a guest whose [`crate::Welcome::returns`] says so.
    #[prost(message, tag = "6")]
    Return(Empty),
}

/// An acknowledgement.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Ack {
    /// 1 is standard output, 2 standard error ([`crate::StreamId`]).
    #[prost(uint32, tag = "1")]
    pub stream: u32,
    /// First offset not yet had.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// From the guest on an attached or watching connection. Output itself comes as data frames.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromGuest {
    /// What.
    #[prost(oneof = "GuestEvent", tags = "1, 2, 3, 4, 5, 6")]
    pub event: Option<GuestEvent>,
}

/// See [`FromGuest`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum GuestEvent {
    /// Offsets that were wanted and are no longer held.
    #[prost(message, tag = "1")]
    Gap(Gap),
    /// Standard input was passed on to the process up to this offset: more may be sent, see
    /// [`crate::STDIN_WINDOW`].
    #[prost(uint64, tag = "2")]
    StdinAccepted(u64),
    /// The process ended; all output came before. Last.
    #[prost(message, tag = "3")]
    Exited(Exit),
    /// A change of a watched file.
    #[prost(message, tag = "4")]
    FileEvent(FileEvent),
    /// Somebody else took standard input over.
    #[prost(message, tag = "5")]
    StdinTaken(Empty),
    /// The host broke a rule of the stream (a hole in standard input, input after its end); the connection
    /// is closed after this.
    #[prost(message, tag = "6")]
    Failed(Failure),
}

/// Missing offsets of a stream.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Gap {
    /// 1 is standard output, 2 standard error.
    #[prost(uint32, tag = "1")]
    pub stream: u32,
    /// First missing.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// First held again.
    #[prost(uint64, tag = "3")]
    pub to: u64,
}
