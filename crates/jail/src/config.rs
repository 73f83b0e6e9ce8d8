//! What the backend is told when the daemon starts.

use std::path::PathBuf;

/// Where the backend keeps its things and how it is tuned.
#[derive(Debug, Clone)]
pub struct Config {
    /// Survives reboots: templates and the pool. Mode 0700, ours alone.
    pub state_directory: PathBuf,
    /// Does not survive reboots: sockets. Mode 0700, ours alone.
    pub runtime_directory: PathBuf,
    /// The static guest executable.
    pub guest: &'static [u8],
    /// Where jails' files live.
    pub storage: Storage,
    /// Cells kept prepared for the next creations, 0 to 256. Each costs about 0.3 MiB of kernel memory.
    pub spare_cells: usize,
    /// Jails that are made ahead, in the shapes that were asked for last, and wait for the next creations: 0 to 16.
    /// Each costs about 0.5 MiB, most of it the kernel's; 0.3 MiB of that is its cell's.
    pub spare_jails: usize,
}

/// Where jails' files live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// The pool where the host can have one, memory otherwise.
    Auto,
    /// The pool, of that many bytes (sparse); starting fails without it.
    Pool(Option<u64>),
    /// Memory.
    Memory,
}

impl Config {
    /// The usual tuning for two directories.
    #[must_use]
    pub fn new(state_directory: PathBuf, runtime_directory: PathBuf, guest: &'static [u8]) -> Self {
        let storage = Storage::Auto;
        Self { state_directory, runtime_directory, guest, storage, spare_cells: 8, spare_jails: 4 }
    }
}
