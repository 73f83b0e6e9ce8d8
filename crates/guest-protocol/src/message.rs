//! Messages between host and guest. Numbers of fields are never reused; what a side does not know it ignores.

use std::collections::BTreeMap;

/// Version of this protocol. A daemon speaks to guests of every earlier version.
pub const VERSION: u32 = 1;
/// Length of the token that proves a host to its guest, in bytes.
pub const TOKEN_LEN: usize = 32;
/// Longest name of a user that is told, in bytes.
pub const MAX_USER: usize = 256;
/// Most bytes of standard input that a host may have on the way: it sends none at or after the last
/// `StdinAccepted` (at first [`Process::stdin_offset`] as attached) plus this. A guest always reads that much,
/// so that acknowledgements behind it are heard; whoever sends more may wait for itself for ever.
pub const STDIN_WINDOW: u64 = 256 << 10;

/// First message on a connection, from the host.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The host's [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The sandbox's token; anything else ends the connection.
    #[prost(bytes = "vec", tag = "2")]
    pub token: Vec<u8>,
}

/// The guest's answer. On the connection that a guest is born with it is sent without a [`Hello`] and says
/// that the sandbox is ready, or why it never will be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// The guest's [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Why it cannot serve; empty where all is well.
    #[prost(string, tag = "2")]
    pub failure: String,
    /// What could not be set up as wanted, one sentence each.
    #[prost(string, repeated, tag = "3")]
    pub weaknesses: Vec<String>,
}

/// What a guest is told at birth, and again when it is claimed or its limits change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GuestConfig {
    /// See [`TOKEN_LEN`].
    #[prost(bytes = "vec", tag = "1")]
    pub token: Vec<u8>,
    /// Environment of every process.
    #[prost(btree_map = "string, string", tag = "2")]
    pub env: BTreeMap<String, String>,
    /// Default user: a name from `/etc/passwd` inside, `uid` or `uid:gid`; empty is root.
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

/// What the host asks. One reply each, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The question.
    #[prost(
        oneof = "Ask",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23"
    )]
    pub ask: Option<Ask>,
}

/// A question.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// Are you there? → `Done`.
    #[prost(message, tag = "1")]
    Ping(Empty),
    /// Start a process. → `Process`.
    #[prost(message, tag = "2")]
    Start(ProcessSpec),
    /// Attach to a process. → `Process`, then a stream: data frames, [`FromGuest`], [`ToGuest`].
    #[prost(message, tag = "3")]
    Attach(Attach),
    /// Both in one.
    #[prost(message, tag = "4")]
    Exec(Exec),
    /// → `Processes`, oldest first.
    #[prost(message, tag = "5")]
    ListProcesses(Empty),
    /// → `Process`.
    #[prost(message, tag = "6")]
    GetProcess(ProcessRef),
    /// A signal for the process group. → `Done`.
    #[prost(message, tag = "7")]
    Signal(Signal),
    /// A new terminal size. → `Done`.
    #[prost(message, tag = "8")]
    Resize(Resize),
    /// → `Process` with its exit, once it ended.
    #[prost(message, tag = "9")]
    Wait(ProcessRef),
    /// → `File`.
    #[prost(message, tag = "10")]
    Stat(Stat),
    /// → `Files`.
    #[prost(message, tag = "11")]
    List(List),
    /// Open a regular file for reading. → `File`, with a descriptor (`SCM_RIGHTS`).
    #[prost(message, tag = "12")]
    OpenRead(Path),
    /// Open a file for writing, a temporary one unless `in_place`. → `File`, with a descriptor. Closing the
    /// connection before `CommitWrite` removes the temporary file.
    #[prost(message, tag = "13")]
    OpenWrite(OpenWrite),
    /// The content is complete: put it in place. → `File`.
    #[prost(message, tag = "14")]
    CommitWrite(Empty),
    /// → `File`.
    #[prost(message, tag = "15")]
    MakeDirectory(MakeDirectory),
    /// → `File`.
    #[prost(message, tag = "16")]
    Rename(Rename),
    /// → `Done`.
    #[prost(message, tag = "17")]
    Remove(Remove),
    /// → `Done`, then [`FromGuest::FileEvent`] for as long as the connection lives.
    #[prost(message, tag = "18")]
    WatchFiles(WatchFiles),
    /// Unpack a tar archive. → `Done` with the writing end of a pipe; when that is closed and everything is
    /// unpacked → `Imported`.
    #[prost(message, tag = "19")]
    Import(Path),
    /// Pack a path as tar. → `Done` with the reading end of a pipe; when all was written → `Done`.
    #[prost(message, tag = "20")]
    Export(Path),
    /// Replace the configuration, token excepted. → `Done`.
    #[prost(message, tag = "21")]
    Configure(GuestConfig),
    /// End every process and exit. → `Done` first.
    #[prost(message, tag = "22")]
    Shutdown(Empty),
    /// When was the last process running or connection open? → `Activity`.
    #[prost(message, tag = "23")]
    GetActivity(Empty),
}

/// Nothing.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Empty {}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The answer.
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub answer: Option<Answer>,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// Done.
    #[prost(message, tag = "1")]
    Done(Empty),
    /// It did not work.
    #[prost(message, tag = "2")]
    Failed(Failure),
    /// A process.
    #[prost(message, tag = "3")]
    Process(Process),
    /// Processes.
    #[prost(message, tag = "4")]
    Processes(Processes),
    /// A file.
    #[prost(message, tag = "5")]
    File(File),
    /// Files.
    #[prost(message, tag = "6")]
    Files(Files),
    /// Entries unpacked.
    #[prost(uint64, tag = "7")]
    Imported(u64),
    /// Activity.
    #[prost(message, tag = "8")]
    Activity(Activity),
}

/// Kinds of failure, for the host to turn into its own errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum FailureKind {
    /// A fault of the guest.
    Internal = 0,
    /// The request is wrong.
    Invalid = 1,
    /// No such process, file or program.
    NotFound = 2,
    /// It exists already.
    Exists = 3,
    /// The state forbids it; `reason` says which rule.
    WrongState = 4,
    /// Some limit: disk full, too many processes.
    Limit = 5,
    /// Not allowed, by the permissions inside.
    Denied = 6,
}

/// Why something did not work.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failure {
    /// What kind.
    #[prost(enumeration = "FailureKind", tag = "1")]
    pub kind: i32,
    /// In words, with what was tried on what.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The field at fault with `Invalid`; the rule (`STDIN_HELD`, `PROCESS_ENDED`, `NO_TERMINAL`,
    /// `DIRECTORY_NOT_EMPTY`) with `WrongState`; which limit with `Limit`.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// What to run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessSpec {
    /// Its id, chosen by the host.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Program and arguments.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// Added to the configured environment.
    #[prost(btree_map = "string, string", tag = "3")]
    pub env: BTreeMap<String, String>,
    /// Working directory; empty is the configured one.
    #[prost(string, tag = "4")]
    pub cwd: String,
    /// User; empty is the configured one.
    #[prost(string, tag = "5")]
    pub user: String,
    /// A terminal of that size instead of pipes.
    #[prost(message, optional, tag = "6")]
    pub terminal: Option<TerminalSize>,
    /// Keep standard input open for writing.
    #[prost(bool, tag = "7")]
    pub stdin: bool,
    /// Milliseconds until SIGTERM (SIGKILL 5 s later); 0 is never.
    #[prost(uint64, tag = "8")]
    pub timeout_ms: u64,
    /// Kill it when the connection of its `Exec` closes.
    #[prost(bool, tag = "9")]
    pub kill_on_disconnect: bool,
}

/// Size of a terminal.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TerminalSize {
    /// Lines.
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    /// Characters in a line.
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

/// A process by id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessRef {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
}

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

/// Start and attach.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exec {
    /// What to run.
    #[prost(message, optional, tag = "1")]
    pub spec: Option<ProcessSpec>,
    /// How to attach; its `id` is ignored.
    #[prost(message, optional, tag = "2")]
    pub attach: Option<Attach>,
}

/// A process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Process {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Program and arguments.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// Number inside the sandbox.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Whether it has a terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// Start, nanoseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub start_ns: u64,
    /// How it ended.
    #[prost(message, optional, tag = "6")]
    pub exit: Option<Exit>,
    /// Held offsets of standard output: first held, and end of what was written.
    #[prost(uint64, tag = "7")]
    pub stdout_start: u64,
    /// See above.
    #[prost(uint64, tag = "8")]
    pub stdout_end: u64,
    /// The same of standard error.
    #[prost(uint64, tag = "9")]
    pub stderr_start: u64,
    /// See above.
    #[prost(uint64, tag = "10")]
    pub stderr_end: u64,
    /// Offset of the next byte of standard input wanted.
    #[prost(uint64, tag = "11")]
    pub stdin_offset: u64,
    /// Whom it runs as: the user's name inside, or its number where it has none; without control characters and
    /// of at most [`MAX_USER`] bytes.
    #[prost(string, tag = "12")]
    pub user: String,
    /// The directory that it was started in.
    #[prost(string, tag = "13")]
    pub cwd: String,
}

/// Processes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Processes {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<Process>,
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ExitReason {
    /// It returned.
    Exited = 0,
    /// A signal.
    Signaled = 1,
    /// The kernel, because of the memory limit.
    OutOfMemory = 2,
    /// Its timeout.
    TimedOut = 3,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Exit {
    /// Why.
    #[prost(enumeration = "ExitReason", tag = "1")]
    pub reason: i32,
    /// Exit code where it returned.
    #[prost(int32, optional, tag = "2")]
    pub code: Option<i32>,
    /// Signal where one ended it.
    #[prost(int32, optional, tag = "3")]
    pub signal: Option<i32>,
    /// Out-of-memory kills in the sandbox while it ran.
    #[prost(uint64, tag = "4")]
    pub oom_kills: u64,
    /// Processor time, microseconds.
    #[prost(uint64, tag = "5")]
    pub cpu_us: u64,
    /// Largest resident memory, bytes.
    #[prost(uint64, tag = "6")]
    pub max_rss_bytes: u64,
    /// When, nanoseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub time_ns: u64,
}

/// A signal for a process group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Signal {
    /// Which process.
    #[prost(string, tag = "1")]
    pub id: String,
    /// 1 to 64.
    #[prost(int32, tag = "2")]
    pub signal: i32,
}

/// A new terminal size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resize {
    /// Which process.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The size.
    #[prost(message, optional, tag = "2")]
    pub size: Option<TerminalSize>,
}

/// From the host on an attached connection. Standard input itself comes as data frames.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToGuest {
    /// What.
    #[prost(oneof = "HostEvent", tags = "1, 2, 3, 4, 5")]
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
    /// [`STDIN_WINDOW`].
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

/// A path.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Path {
    /// Absolute, inside.
    #[prost(string, tag = "1")]
    pub path: String,
}

/// A question about a path.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Absolute, inside.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Of what a link points at.
    #[prost(bool, tag = "2")]
    pub follow: bool,
}

/// A part of a directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct List {
    /// The directory.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Names after this one; empty is from the start.
    #[prost(string, tag = "2")]
    pub after: String,
    /// At most so many; 1 to 10,000.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// How to write.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenWrite {
    /// The file.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Permission bits of a new file.
    #[prost(uint32, optional, tag = "2")]
    pub mode: Option<u32>,
    /// Make missing parents.
    #[prost(bool, tag = "3")]
    pub create_parents: bool,
    /// Open the file itself and keep its content; it is made where absent.
    #[prost(bool, tag = "4")]
    pub in_place: bool,
    /// Refuse where something is there.
    #[prost(bool, tag = "5")]
    pub must_not_exist: bool,
}

/// A new directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MakeDirectory {
    /// The directory.
    #[prost(string, tag = "1")]
    pub path: String,
    /// With missing parents, and no error where it is there.
    #[prost(bool, tag = "2")]
    pub parents: bool,
    /// Permission bits; 0o755 where absent.
    #[prost(uint32, optional, tag = "3")]
    pub mode: Option<u32>,
}

/// A move.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rename {
    /// From.
    #[prost(string, tag = "1")]
    pub from: String,
    /// To.
    #[prost(string, tag = "2")]
    pub to: String,
    /// Replace what is there.
    #[prost(bool, tag = "3")]
    pub overwrite: bool,
}

/// A removal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Remove {
    /// What.
    #[prost(string, tag = "1")]
    pub path: String,
    /// With everything below.
    #[prost(bool, tag = "2")]
    pub recursive: bool,
}

/// A watch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchFiles {
    /// Where.
    #[prost(string, tag = "1")]
    pub path: String,
    /// With everything below, also what is made later.
    #[prost(bool, tag = "2")]
    pub recursive: bool,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum FileKind {
    /// Pipe, socket, device.
    Other = 0,
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
}

/// A file's metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub struct File {
    /// Absolute, as asked or of the entry.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Kind.
    #[prost(enumeration = "FileKind", tag = "2")]
    pub kind: i32,
    /// Bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Permission bits.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// Owner inside.
    #[prost(uint32, tag = "5")]
    pub uid: u32,
    /// Group inside.
    #[prost(uint32, tag = "6")]
    pub gid: u32,
    /// Last change, nanoseconds since 1970.
    #[prost(int64, tag = "7")]
    pub modified_ns: i64,
    /// Where a link points.
    #[prost(string, optional, tag = "8")]
    pub link_target: Option<String>,
}

/// Files.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Files {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<File>,
}

/// Kinds of change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum FileEventKind {
    /// Changes were lost.
    Overflow = 0,
    /// New, or moved here.
    Created = 1,
    /// Written and closed.
    Modified = 2,
    /// Mode, owner or times.
    Attributes = 3,
    /// Gone, or moved away.
    Removed = 4,
}

/// A change of a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileEvent {
    /// Kind.
    #[prost(enumeration = "FileEventKind", tag = "1")]
    pub kind: i32,
    /// Absolute path.
    #[prost(string, tag = "2")]
    pub path: String,
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
