//! How this process's allocator treats large buffers. Here because it is the daemon's matter, and only backends may be
//! unsafe.

/// Blocks up to this come from memory that is kept, in bytes: pieces of output and contents have at most 512 KiB.
#[cfg(target_env = "gnu")]
const LARGEST_KEPT: libc::c_int = 8 << 20;
/// Free memory at the end of an arena that is kept, in bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 8 << 20;
/// How far an arena grows at once, in bytes.
#[cfg(target_env = "gnu")]
const STEP: libc::c_int = 1 << 20;

/// Lets this process keep the memory of freed buffers: at most some mebibytes for each of its threads. A stream of
/// output needs new ones thousands of times a second, and as the C library comes it gives them back to the kernel and
/// takes them anew, page by page. For the daemon, once, at its start.
pub fn keep_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, LARGEST_KEPT), (libc::M_TRIM_THRESHOLD, KEPT), (libc::M_TOP_PAD, STEP)]
    {
        // SAFETY: mallopt(3) with constants. Where it refuses one, that costs speed only.
        unsafe { libc::mallopt(parameter, value) };
    }
}
