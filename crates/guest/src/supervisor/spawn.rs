//! Starting a program the way posix_spawn does: the child borrows our memory until it executes, so that
//! nothing is copied and it can tell us what went wrong.
//!
//! Unlike with vfork(2) the wait has an end: the child may have the user of programs beside it, which could stop it.

use super::users::Identity;
use rustix::io::Errno;
use rustix::thread::futex;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of stack that a child has until it executes: it calls the system and nothing else. More would be mapped and
/// unmapped each time.
const STACK: usize = 16 << 10;
/// How long a child may take to execute: so many times a second. A sandbox that is frozen meanwhile, us included, loses
/// one of them and not all.
const PATIENCE: u32 = 10;
const TURN: futex::Timespec = futex::Timespec { tv_sec: 1, tv_nsec: 0 };
/// How often, and how long in between, a program that is open for writing is tried: 100 ms in all, in which we do nothing
/// else. Who has it open by accident may have to wait for a processor.
const BUSY_TURNS: u32 = 100;
const BUSY_TURN: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Everything a child needs, made before it exists: it must not allocate.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: CString,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) directory: CString,
    /// Standard input, output and error; each above 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// Standard input is a terminal, to be the controlling one.
    pub(crate) terminal: bool,
    /// Whom to become.
    pub(crate) user: Option<&'a Identity>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub(crate) open_files: [u64; 2],
}

/// Which step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Step {
    /// A process could not be made.
    Clone = 1,
    /// Session, streams, terminal, limits.
    Prepare,
    /// Another user.
    User,
    /// The working directory.
    Directory,
    /// The program itself.
    Execute,
}

/// What the child sees, and where it says how far it came.
struct Shared<'a> {
    launch: &'a Launch<'a>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    step: Step,
    errno: c_int,
}

/// Starts it. → its process number.
///
/// # Errors
/// The step and what the kernel said to it; there is no child then.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<i32, (Step, Errno)> {
    let mut shared = Shared {
        launch,
        argv: pointers(&launch.argv),
        env: pointers(&launch.env),
        step: Step::Prepare,
        errno: 0,
    };
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let argument = (&raw mut shared).cast::<c_void>();
    let borrowed = AtomicU32::new(1);
    let none = std::ptr::null_mut::<c_void>();
    // The kernel sets `borrowed` to zero and wakes us when the child has executed or exited.
    let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    // SAFETY: this only thread does nothing but wait until the child no longer has its memory, so `shared`, `stack` and
    // `borrowed` outlive its use of them and nobody else touches them, errno included; the stack is aligned and large
    // enough for `child`, which makes only system calls.
    let pid = unsafe { libc::clone(child, top, flags, argument, none, none, borrowed.as_ptr()) };
    if pid < 0 {
        return Err((Step::Clone, last_errno()));
    }
    let in_time = given_back(&borrowed, pid, PATIENCE);
    crate::zygote::confine::stay_closed_to_root();
    // SAFETY: `shared` is ours; volatile since the child wrote it behind the compiler's back.
    let (errno, step) =
        unsafe { ((&raw const shared.errno).read_volatile(), (&raw const shared.step).read_volatile()) };
    if !in_time {
        return Err((step, Errno::TIMEDOUT));
    }
    if errno == 0 {
        return Ok(pid);
    }
    // SAFETY: plain wait4(2) for our own child, which has exited.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    Err((step, Errno::from_raw_os_error(errno)))
}

/// Waits until a child has given our memory back; kills and reaps it where that takes too long. Makes bare system
/// calls only: errno is the child's for now.
fn given_back(borrowed: &AtomicU32, pid: i32, turns: u32) -> bool {
    let mut left = turns;
    while borrowed.load(Ordering::Acquire) != 0 {
        if left == 0 {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            // Also one that was stopped dies, and with it goes its use of our memory.
            let reaped = || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            while reaped().is_err_and(|errno| errno == Errno::INTR) {}
            return false;
        }
        // Not a private one: the kernel wakes it as a shared one.
        if futex::wait(borrowed, futex::Flags::empty(), 1, Some(&TURN)) == Err(Errno::TIMEDOUT) {
            left -= 1;
        }
    }
    true
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The child's life until it executes.
extern "C" fn child(argument: *mut c_void) -> c_int {
    let shared = argument.cast::<Shared<'_>>();
    // SAFETY: see `launch`: the parent waits, so this is the only reference.
    let shared = unsafe { &mut *shared };
    // SAFETY: errno is the calling thread's own; the parent, whose it also is, leaves it alone.
    let failed = |step: Step| (step, unsafe { *libc::__errno_location() });
    let (step, errno) = match become_program(shared.launch, &shared.argv, &shared.env) {
        Ok(never) => match never {},
        Err(step) => failed(step),
    };
    shared.step = step;
    shared.errno = if errno == 0 { libc::EIO } else { errno };
    // SAFETY: ends this process only, running nothing of the parent's.
    unsafe { libc::_exit(127) }
}

enum Never {}

/// Returns the step that failed; `errno` says how.
fn become_program(launch: &Launch<'_>, argv: &[*const c_char], env: &[*const c_char]) -> Result<Never, Step> {
    let ok = |result: i64, step: Step| if result < 0 { Err(step) } else { Ok(()) };
    // SAFETY: system calls on this process alone, with pointers into memory that outlives them. None of
    // these libc functions allocates or takes a lock; ids are set by bare system calls because libc's own
    // would signal threads.
    unsafe {
        ok(libc::setsid().into(), Step::Prepare)?;
        for (number, stream) in (0..).zip(&launch.streams) {
            ok(libc::dup2(stream.as_raw_fd(), number).into(), Step::Prepare)?;
        }
        if launch.terminal {
            ok(libc::ioctl(0, libc::TIOCSCTTY, 0).into(), Step::Prepare)?;
        }
        let limit = libc::rlimit { rlim_cur: launch.open_files[0], rlim_max: launch.open_files[1] };
        // A limit that may not be raised stays what it is.
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        libc::umask(0o022);
        ok(libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0), Step::Prepare)?;
        if let Some(user) = launch.user {
            let (uid, gid) = (user.uid, user.gid);
            ok(libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()), Step::User)?;
            ok(libc::syscall(libc::SYS_setresgid, gid, gid, gid), Step::User)?;
            ok(libc::syscall(libc::SYS_setresuid, uid, uid, uid), Step::User)?;
        }
        ok(libc::chdir(launch.directory.as_ptr()).into(), Step::Directory)?;
        ok(drop_capabilities(), Step::Prepare)?;
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        execute(launch.program.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    Err(Step::Execute)
}

/// Executes a program; returns where that cannot be, and `errno` says why.
///
/// A program that was just written may be open for writing still: a process that another started at that instant has
/// the writer's descriptor until it executes something itself. That is over within a moment.
///
/// # Safety
/// As of execve(2): all pointers are valid, both lists end with null.
unsafe fn execute(program: *const c_char, argv: *const *const c_char, env: *const *const c_char) {
    for _ in 0..BUSY_TURNS {
        // SAFETY: the caller's; errno is this thread's own, and the kernel only reads the time.
        unsafe {
            libc::execve(program, argv, env);
            if *libc::__errno_location() != libc::ETXTBSY {
                return;
            }
            libc::nanosleep(&BUSY_TURN, std::ptr::null_mut());
            *libc::__errno_location() = libc::ETXTBSY;
        }
    }
}

/// # Safety
/// Only in a process of one thread.
unsafe fn drop_capabilities() -> i64 {
    let header = [CAPABILITY_VERSION_3, 0];
    let sets = [0u32; 6];
    // SAFETY: both arrays have the layout of capset(2), version 3.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_child_that_is_stopped_before_it_executes_is_killed() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::STOP,
        )
        .unwrap();
        assert!(!given_back(&AtomicU32::new(1), pid, 1));
        // It was reaped.
        assert!(child.try_wait().map_or(true, |status| status.is_some_and(|it| it.signal() == Some(9))));
        assert!(given_back(&AtomicU32::new(0), pid, 0));
    }
}
