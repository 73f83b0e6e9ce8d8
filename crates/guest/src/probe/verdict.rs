//! What came of a probe, and how it is run where it can do no harm to the next one.

use crate::sys::{self, Outcome, sys};
use std::io::Read;
use std::os::fd::FromRawFd;

/// What came of a probe.
pub(crate) enum Verdict {
    /// The sandbox held.
    Refused(String),
    /// It got through.
    Escaped(String),
    /// It could not be tried here.
    Skipped(String),
}

impl Verdict {
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self::Refused(detail.into())
    }

    pub(crate) fn escaped(detail: impl Into<String>) -> Self {
        Self::Escaped(detail.into())
    }

    pub(crate) fn skipped(detail: impl Into<String>) -> Self {
        Self::Skipped(detail.into())
    }

    /// The word of the output line and its detail.
    pub(crate) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Refused(detail) => ("refused", detail),
            Self::Escaped(detail) => ("ESCAPED", detail),
            Self::Skipped(detail) => ("skipped", detail),
        }
    }

    fn from_parts(word: &str, detail: &str) -> Self {
        match word {
            "refused" => Self::refused(detail),
            "ESCAPED" => Self::escaped(detail),
            _ => Self::skipped(detail),
        }
    }
}

/// Any failure is a refusal.
pub(crate) fn must_fail(what: &str, outcome: Outcome) -> Verdict {
    match outcome {
        Ok(value) => Verdict::escaped(format!("{what} succeeded with {value}")),
        Err(errno) => Verdict::refused(format!("{what}: {errno}")),
    }
}

/// Only a denial is a refusal; another error means that the permission check was passed.
pub(crate) fn must_be_denied(what: &str, outcome: Outcome) -> Verdict {
    match outcome {
        Ok(value) => Verdict::escaped(format!("{what} succeeded with {value}")),
        Err(errno) if errno.is_denial() => Verdict::refused(format!("{what}: {errno}")),
        Err(errno) => Verdict::escaped(format!("{what} passed the permission check: {errno}")),
    }
}

/// Only this error is a refusal: others come from further in.
pub(crate) fn must_fail_with(errno: i32, what: &str, outcome: Outcome) -> Verdict {
    match outcome {
        Err(seen) if seen.0 != errno => Verdict::escaped(format!("{what} reached the kernel: {seen}")),
        outcome => must_fail(what, outcome),
    }
}

/// One verdict of several attempts: escaped if one escaped, skipped if none could be tried.
pub(crate) fn all(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    let (mut refused, mut escaped, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for verdict in verdicts {
        match verdict {
            Verdict::Refused(detail) => refused.push(detail),
            Verdict::Escaped(detail) => escaped.push(detail),
            Verdict::Skipped(detail) => skipped.push(detail),
        }
    }
    if !escaped.is_empty() {
        Verdict::Escaped(escaped.join("; "))
    } else if refused.is_empty() {
        Verdict::Skipped(skipped.join("; "))
    } else {
        Verdict::Refused(refused.join("; "))
    }
}

/// Longest that a probe may take, in seconds; then SIGALRM ends it.
const PATIENCE_SECONDS: u32 = 20;

/// Runs a probe in a child, so that being killed counts as a refusal and nothing it changed stays.
pub(crate) fn in_child(probe: impl FnOnce() -> Verdict) -> Verdict {
    let mut ends = [0_i32; 2];
    // SAFETY: room for the two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Verdict::skipped(format!("pipe: {}", sys::last_error()));
    }
    let pid = match sys::fork() {
        Ok(0) => {
            // SAFETY: plain number; no handler is installed, so the alarm ends this child.
            unsafe { libc::alarm(PATIENCE_SECONDS) };
            let verdict = probe();
            let (word, detail) = verdict.parts();
            let line = format!("{word}\t{detail}");
            // SAFETY: the descriptor and the bytes are valid.
            unsafe { libc::write(ends[1], line.as_ptr().cast(), line.len()) };
            sys::leave(0);
        }
        Ok(pid) => pid,
        Err(errno) => return Verdict::skipped(format!("fork: {errno}")),
    };
    sys::close(i64::from(ends[1]));
    // SAFETY: nobody else owns the reading end.
    let mut reader = unsafe { std::fs::File::from_raw_fd(ends[0]) };
    let mut line = Vec::new();
    let _ = reader.read_to_end(&mut line);
    let status = sys::wait(pid);
    let line = String::from_utf8_lossy(&line);
    if let Some((word, detail)) = line.split_once('\t') {
        return Verdict::from_parts(word, detail);
    }
    match status {
        Ok(status) if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM => {
            Verdict::escaped(format!("hung for {PATIENCE_SECONDS} s"))
        }
        Ok(status) if libc::WIFSIGNALED(status) => {
            Verdict::refused(format!("killed by signal {}", libc::WTERMSIG(status)))
        }
        Ok(status) => Verdict::skipped(format!("ended without a verdict, status {status}")),
        Err(errno) => Verdict::skipped(format!("wait: {errno}")),
    }
}

/// A directory of this process's own to try mounts on.
pub(crate) fn own_directory() -> std::ffi::CString {
    let path = format!("/tmp/hostel-probe-{}", std::process::id());
    let path = std::ffi::CString::new(path).unwrap_or_default();
    let _ = sys!(SYS_mkdirat, libc::AT_FDCWD, path.as_c_str(), 0o755);
    path
}
