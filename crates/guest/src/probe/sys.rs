//! System calls by number, past every library that would check or soften them.

use std::ffi::CStr;
use std::fmt;

/// The error number of a failed call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// Whether the kernel said that this is not allowed, or that there is no such call.
    pub(crate) fn is_denial(self) -> bool {
        matches!(self.0, libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EROFS)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

pub(crate) type Outcome = Result<i64, Errno>;

/// One argument. What is a pointer to the kernel is a borrow here, so that it is valid during the call.
pub(crate) enum Arg<'a> {
    Number(i64),
    Text(&'a CStr),
    /// Must be as long as what the call reads or writes there.
    Memory(&'a mut [u8]),
}

impl From<i32> for Arg<'_> {
    fn from(value: i32) -> Self {
        Self::Number(i64::from(value))
    }
}

impl From<u32> for Arg<'_> {
    fn from(value: u32) -> Self {
        Self::Number(i64::from(value))
    }
}

impl From<i64> for Arg<'_> {
    fn from(value: i64) -> Self {
        Self::Number(value)
    }
}

impl From<usize> for Arg<'_> {
    fn from(value: usize) -> Self {
        Self::Number(value.cast_signed() as i64)
    }
}

impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(value: &'a CStr) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a mut [u8]> for Arg<'a> {
    fn from(value: &'a mut [u8]) -> Self {
        Self::Memory(value)
    }
}

/// Makes a system call with up to six arguments.
pub(crate) fn call<const N: usize>(number: i64, arguments: [Arg<'_>; N]) -> Outcome {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::Number(value) => value,
            Arg::Text(text) => text.as_ptr().addr().cast_signed() as i64,
            Arg::Memory(memory) => memory.as_mut_ptr().expose_provenance().cast_signed() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: pointers among the words come from borrows that live until this returns; callers give memory of
    // the size that the call works on, and make no call that changes this process's own memory map.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(last_error()) } else { Ok(result) }
}

/// The calling thread's error number.
pub(crate) fn last_error() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// `sys!(SYS_name, arguments…)`: [`call`] with each argument converted.
macro_rules! sys {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        $crate::sys::call(libc::$number, [$($crate::sys::Arg::from($argument)),*])
    };
}
pub(crate) use sys;

/// Closes what a call opened. A failed close has no consequence here.
pub(crate) fn close(descriptor: i64) {
    let _ = sys!(SYS_close, descriptor);
}

/// Opens a path without waiting for what is behind it and without making it the terminal of this process.
pub(crate) fn open(path: &CStr, flags: i32) -> Outcome {
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    sys!(SYS_openat, libc::AT_FDCWD, path, flags, 0)
}

/// Forks. The child must end with [`leave`].
pub(crate) fn fork() -> Result<i32, Errno> {
    // SAFETY: this process has one thread, so the child may do everything the parent may.
    let pid = unsafe { libc::fork() };
    if pid == -1 { Err(last_error()) } else { Ok(pid) }
}

/// Ends this process at once.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: takes a plain number and does not return.
    unsafe { libc::_exit(code) }
}

/// Waits for a child and gives its raw status.
pub(crate) fn wait(pid: i32) -> Result<i32, Errno> {
    let mut status = 0;
    // SAFETY: status lives until the call returns.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 { Err(last_error()) } else { Ok(status) }
}

/// Sleeps until a signal ends this process.
pub(crate) fn sleep_for_good() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}
