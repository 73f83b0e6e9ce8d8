//! Files: what is asked about them, and what is answered.

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
    /// Names after this one, by their bytes; empty is from the start.
    #[prost(bytes = "vec", tag = "2")]
    pub after: Vec<u8>,
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

/// What to read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadFile {
    /// The file.
    #[prost(string, tag = "1")]
    pub path: String,
    /// First byte wanted.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// At most so many; without it all.
    #[prost(uint64, optional, tag = "3")]
    pub length: Option<u64>,
}

/// What to write.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteFile {
    /// How.
    #[prost(message, optional, tag = "1")]
    pub open: Option<OpenWrite>,
    /// Where in the file the content goes.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
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
    /// Sorted by the bytes of their names. Fewer than asked for where some vanished or they take too much room.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<File>,
    /// The name after which there is more, as it is: names need not be UTF-8. Empty where there is none; guests of
    /// earlier times do not say.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub next: Option<Vec<u8>>,
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
