//! What the daemon asks of the zygote, over a `SOCK_SEQPACKET` pair: one packet a request, one a reply, in
//! order, descriptors beside them (`SCM_RIGHTS`).

use crate::message::GuestConfig;

/// Longest packet, in bytes.
pub const MAX_PACKET: usize = 512 << 10;

/// First packet, from the daemon: how the zygote prepares its own mount namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Setup {
    /// Directory of the host with one directory per template, each with `rootfs`.
    #[prost(string, tag = "1")]
    pub templates: String,
    /// Directory of the host with one directory per cell: the disk of jails. Ignored with `pool_device`.
    #[prost(string, tag = "2")]
    pub cells: String,
    /// Block device with the btrfs pool that is mounted as the cells' directory; empty is none.
    #[prost(string, tag = "3")]
    pub pool_device: String,
    /// Started without root: everything happens below a user namespace of the zygote's own.
    #[prost(bool, tag = "4")]
    pub rootless: bool,
}

/// The zygote's answer to [`Setup`]. With a pool, its root directory comes along as a descriptor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetupReply {
    /// Why it cannot work at all; empty where it can.
    #[prost(string, tag = "1")]
    pub failure: String,
    /// Layers can be given each jail's own ids (`mount_setattr(2)`).
    #[prost(bool, tag = "2")]
    pub idmap: bool,
    /// What is weaker than it should be.
    #[prost(string, repeated, tag = "3")]
    pub weaknesses: Vec<String>,
    /// ABI of landlock here; 0 is none.
    #[prost(uint32, tag = "4")]
    pub landlock_abi: u32,
}

/// A request to the zygote.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ZygoteRequest {
    /// What.
    #[prost(oneof = "Order", tags = "1, 2, 3")]
    pub order: Option<Order>,
}

/// See [`ZygoteRequest`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Order {
    /// Prepare the namespaces of a cell ahead of time. → `ZygoteReply`.
    #[prost(message, tag = "1")]
    Prepare(Prepare),
    /// Clone a jail into a cell. → `ZygoteReply` with its pidfd.
    #[prost(message, tag = "2")]
    Clone(Box<CloneJail>),
    /// Let go of what was prepared for a cell. → `ZygoteReply`.
    #[prost(message, tag = "3")]
    Discard(Discard),
}

/// Namespaces ahead of time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Prepare {
    /// The cell.
    #[prost(string, tag = "1")]
    pub cell: String,
    /// First of its 65,536 user and group ids on the host.
    #[prost(uint32, tag = "2")]
    pub uid_base: u32,
}

/// Let go.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Discard {
    /// The cell.
    #[prost(string, tag = "1")]
    pub cell: String,
}

/// A jail to be cloned: what it is made of, not whose it is. The clone builds its root and waits for a [`Birth`].
///
/// Descriptors in this order: the guest's first connection; its listening socket; the directory for spill files; the
/// cgroup v2 directory where there is one (`has_cgroup2`); where there is one (`has_oom_file`) the file that counts
/// out-of-memory kills; then `join_files` `tasks` files of cgroup v1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CloneJail {
    /// The cell.
    #[prost(string, tag = "1")]
    pub cell: String,
    /// First of its ids on the host.
    #[prost(uint32, tag = "2")]
    pub uid_base: u32,
    /// Layers of its root, uppermost first, as paths in the zygote's world: `templates/ID/rootfs` or
    /// `cells/template-ID/upper`.
    #[prost(string, repeated, tag = "3")]
    pub layers: Vec<String>,
    /// Mount the host's `/usr` read-only over the layers.
    #[prost(bool, tag = "4")]
    pub host_usr: bool,
    /// Its files are in a tmpfs of its own rather than in the directory of the cell.
    #[prost(bool, tag = "5")]
    pub in_memory: bool,
    /// A cgroup v2 directory is among the descriptors.
    #[prost(bool, tag = "6")]
    pub has_cgroup2: bool,
    /// An out-of-memory counter is among the descriptors.
    #[prost(bool, tag = "7")]
    pub has_oom_file: bool,
    /// Number of cgroup v1 `tasks` files among the descriptors.
    #[prost(uint32, tag = "8")]
    pub join_files: u32,
}

/// What a cloned jail waits for on its first connection, as a message of [`frame`](crate::frame): whose it is. It then
/// gives up its rights and answers with a [`Welcome`](crate::Welcome). Where the connection ends instead, it exits.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Birth {
    /// Host name inside.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// Size of the tmpfs with its files, bytes; unused where they are on disk.
    #[prost(uint64, tag = "2")]
    pub tmpfs_bytes: u64,
    /// Most files in that tmpfs; 0 is no limit of its own.
    #[prost(uint64, tag = "3")]
    pub tmpfs_inodes: u64,
    /// Size of `/dev/shm`, bytes.
    #[prost(uint64, tag = "4")]
    pub shm_bytes: u64,
    /// `RLIMIT_NPROC` where there is no pids cgroup; 0 is none.
    #[prost(uint32, tag = "5")]
    pub max_processes: u32,
    /// What the guest is told.
    #[prost(message, optional, tag = "6")]
    pub guest: Option<GuestConfig>,
    /// Most System V shared memory, bytes; 0 is the kernel's own limit. Where it cannot be set, a weakness that begins
    /// with [`SYSTEM_V_UNBOUNDED`] says so.
    #[prost(uint64, tag = "7")]
    pub system_v_bytes: u64,
}

/// Begins what the [`Welcome`](crate::Welcome) says of a jail whose [`Birth::system_v_bytes`] do not hold.
pub const SYSTEM_V_UNBOUNDED: &str = "System V shared memory has no bound of its own";

/// The zygote's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ZygoteReply {
    /// Why not; empty where it worked.
    #[prost(string, tag = "1")]
    pub failure: String,
    /// Process number of the jail's guest on the host.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Always true: an empty packet would look like the end of the socket.
    #[prost(bool, tag = "3")]
    pub answered: bool,
}
