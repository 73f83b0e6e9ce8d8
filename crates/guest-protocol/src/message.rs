//! Messages between host and guest. Numbers of fields are never reused; what a side does not know it ignores.

mod attach;
mod config;
mod file;
mod listen;
mod process;

pub use attach::*;
pub use config::*;
pub use file::*;
pub use listen::*;
pub use process::*;

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
    /// Whether it knows [`HostEvent::Return`]. Guests of earlier daemons do not.
    #[prost(bool, tag = "4")]
    pub returns: bool,
}

/// What the host asks. One reply each, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The question.
    #[prost(
        oneof = "Ask",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 30, 31, 32, 33"
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
    /// → `Done`, then [`GuestEvent::FileEvent`] for as long as the connection lives.
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
    /// → `Done`, with the descriptor of a stream socket that listens there, nonblocking. The guest keeps it: asked
    /// again it is the same one.
    #[prost(message, tag = "24")]
    Listen(Listen),
    /// Kill every process of the sandbox, those that nobody asked for included. → `Done`; their ends are told as those
    /// of all others.
    #[prost(message, tag = "25")]
    KillAll(Empty),
    /// A regular file's content, without descriptors. → `File`, then data frames of [`crate::StreamId::Stdout`] from
    /// offset 0 on, wherever in the file that is; at the end → `Done`, or `Failed` where it broke off.
    #[prost(message, tag = "30")]
    ReadFile(ReadFile),
    /// As `OpenWrite`, without descriptors. → `File`; then the host sends the content as data frames of
    /// [`crate::StreamId::Stdin`] from offset 0 on, and an empty one at its end → `Done`, then `CommitWrite`.
    /// `Failed` before that end closes the connection.
    #[prost(message, tag = "31")]
    WriteFile(WriteFile),
    /// As `Import`, with the archive as in `WriteFile`. → `Done`; at the end → `Imported`, or `Failed` as there.
    #[prost(message, tag = "32")]
    ImportFrames(Path),
    /// As `Export`, with the archive as in `ReadFile`. → `Done`; at the end → `Done`, or `Failed`.
    #[prost(message, tag = "33")]
    ExportFrames(Path),
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
