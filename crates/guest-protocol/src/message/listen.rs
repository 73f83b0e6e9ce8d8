//! Sockets that a guest listens with and the host accepts on.

/// Most listening sockets of one guest.
pub const MAX_LISTENERS: usize = 16;
/// Why a request to listen is refused that is one too many.
pub const LISTENERS: &str = "listeners";

/// Make a listening socket, or find the one made earlier.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Listen {
    /// Where.
    #[prost(oneof = "ListenAt", tags = "1, 2")]
    pub at: Option<ListenAt>,
}

/// Where to listen.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ListenAt {
    /// A unix stream socket.
    #[prost(message, tag = "1")]
    Unix(ListenUnix),
    /// This port of TCP on 127.0.0.1, from 1 to 65535.
    #[prost(uint32, tag = "2")]
    Tcp(u32),
}

/// A unix stream socket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListenUnix {
    /// Absolute, inside. Missing directories are made; a socket that is there is replaced.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Permission bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
}
