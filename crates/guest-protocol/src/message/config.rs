//! What a guest is told about itself, and tells.

use std::collections::BTreeMap;

/// What a guest is told at birth, and again when it is claimed or its limits change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GuestConfig {
    /// See [`crate::TOKEN_LEN`].
    #[prost(bytes = "vec", tag = "1")]
    pub token: Vec<u8>,
    /// Environment of every process.
    #[prost(btree_map = "string, string", tag = "2")]
    pub env: BTreeMap<String, String>,
    /// Default user: a name from `/etc/passwd` inside or a uid, either with `:` and a name from `/etc/group` or a gid;
    /// empty is root.
    #[prost(string, tag = "3")]
    pub user: String,
    /// Default working directory; made, and given to the default user, where absent.
    #[prost(string, tag = "4")]
    pub workdir: String,
    /// `RLIMIT_NOFILE` of processes; 0 leaves it.
    #[prost(uint32, tag = "5")]
    pub open_files: u32,
    /// Output of all processes together, bytes per second; 0 is unlimited.
    #[prost(uint64, tag = "6")]
    pub output_bytes_per_second: u64,
    /// Ring of each output stream, bytes; 0 is 1 MiB.
    #[prost(uint64, tag = "7")]
    pub ring_bytes: u64,
    /// Spill file of each output stream, bytes; 0 is no spill.
    #[prost(uint64, tag = "8")]
    pub spill_bytes: u64,
    /// All rings of ended processes and all spill files together, bytes each; 0 is 16 MiB and 64 MiB.
    #[prost(uint64, tag = "9")]
    pub retained_ring_bytes: u64,
    /// See above.
    #[prost(uint64, tag = "10")]
    pub retained_spill_bytes: u64,
    /// `oom_score_adj` of processes, -1000 to 1000; they die before the guest does.
    #[prost(int32, tag = "11")]
    pub oom_score_adj: i32,
    /// Whether processes may have another user than the guest's own (needs a range of ids).
    #[prost(bool, tag = "12")]
    pub can_switch_user: bool,
}

/// How busy a sandbox is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Activity {
    /// Processes running now that were started through us.
    #[prost(uint32, tag = "1")]
    pub running: u32,
    /// Milliseconds since the last one ended, or since birth.
    #[prost(uint64, tag = "2")]
    pub idle_ms: u64,
}
