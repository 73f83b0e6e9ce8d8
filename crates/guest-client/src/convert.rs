//! Between the protocol's types and the domain's. Everything that comes in is checked here.

use crate::failure::broken;
use hostel_guest_protocol as wire;
use hostel_sandbox::error::{Error, Result};
use hostel_sandbox::file::{FileEvent, FileEventKind, FileInfo, FileKind, FilePage};
use hostel_sandbox::id::ProcessId;
use hostel_sandbox::process::{
    AttachOptions, ExitReason, ExitStatus, OutputStream, ProcessInfo, ProcessSpec, TerminalSize,
};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::Answer;

/// Longest path, in bytes, as the kernel has it.
const MOST_PATH: usize = 4096;

/// How busy a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Processes running now that were started through us.
    pub running: u32,
    /// Since the last one ended, or since birth.
    pub idle: Duration,
}

fn unexpected(answer: &Answer) -> Error {
    let kind = match answer {
        Answer::Done(_) => "done",
        Answer::Failed(_) => "a failure",
        Answer::Process(_) => "a process",
        Answer::Processes(_) => "processes",
        Answer::File(_) => "a file",
        Answer::Files(_) => "files",
        Answer::Imported(_) => "a number of entries",
        Answer::Activity(_) => "activity",
    };
    broken(format!("{kind} is not the answer to this"))
}

pub(crate) fn done(answer: Answer) -> Result<()> {
    if let Answer::Done(_) = answer { Ok(()) } else { Err(unexpected(&answer)) }
}

pub(crate) fn imported(answer: &Answer) -> Result<u64> {
    if let Answer::Imported(count) = answer { Ok(*count) } else { Err(unexpected(answer)) }
}

pub(crate) fn activity(answer: Answer) -> Result<Activity> {
    let Answer::Activity(activity) = answer else { return Err(unexpected(&answer)) };
    Ok(Activity { running: activity.running, idle: Duration::from_millis(activity.idle_ms) })
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn process(answer: Answer, id: &ProcessId) -> Result<ProcessInfo> {
    let Answer::Process(process) = answer else { return Err(unexpected(&answer)) };
    let info = process_info(process)?;
    if info.id != *id {
        return Err(broken(format!("it answers for process {} instead of {id}", info.id)));
    }
    Ok(info)
}

pub(crate) fn processes(answer: Answer) -> Result<Vec<ProcessInfo>> {
    let Answer::Processes(processes) = answer else { return Err(unexpected(&answer)) };
    processes.processes.into_iter().map(process_info).collect()
}

fn process_info(process: wire::Process) -> Result<ProcessInfo> {
    // Guests of earlier times tell neither user nor directory.
    if process.user.len() > wire::MAX_USER || process.user.contains(char::is_control) {
        return Err(broken("a user whose name cannot be"));
    }
    // Far beyond what anybody can have written, and far from where counting on would overflow.
    if i64::try_from(process.stdin_offset).is_err() {
        return Err(broken(format!("it took standard input up to {}", process.stdin_offset)));
    }
    let cwd = &process.cwd;
    if !(cwd.is_empty() || is_path(cwd, MOST_PATH)) {
        return Err(broken("a working directory that is no path"));
    }
    Ok(ProcessInfo {
        id: ProcessId::parse(process.id).map_err(|_| broken("a process without a valid id"))?,
        argv: process.argv,
        pid: process.pid,
        terminal: process.terminal,
        start_time: time(process.start_ns)?,
        exit: process.exit.map(exit).transpose()?,
        stdout: held(process.stdout_start, process.stdout_end)?,
        stderr: held(process.stderr_start, process.stderr_end)?,
        stdin_offset: process.stdin_offset,
        user: process.user,
        cwd: process.cwd,
    })
}

fn held(start: u64, end: u64) -> Result<Range<u64>> {
    if start > end { Err(broken(format!("it holds output from {start} to {end}"))) } else { Ok(start..end) }
}

fn time(ns: u64) -> Result<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_nanos(ns)).ok_or_else(|| broken("a time beyond all times"))
}

fn is_path(path: &str, most: usize) -> bool {
    path.starts_with('/') && !path.contains('\0') && path.len() <= most
}

/// How a process ended.
pub(crate) fn exit(exit: wire::Exit) -> Result<ExitStatus> {
    let reason = match wire::ExitReason::try_from(exit.reason) {
        Ok(wire::ExitReason::Exited) => ExitReason::Exited,
        Ok(wire::ExitReason::Signaled) => ExitReason::Signaled,
        Ok(wire::ExitReason::OutOfMemory) => ExitReason::OutOfMemory,
        Ok(wire::ExitReason::TimedOut) => ExitReason::TimedOut,
        Err(_) => return Err(broken(format!("there is no way {} to end", exit.reason))),
    };
    let valid_code = exit.code.is_none_or(|code| (0..=255).contains(&code));
    let valid_signal = exit.signal.is_none_or(|signal| (1..=64).contains(&signal));
    let complete = match reason {
        ExitReason::Exited => exit.code.is_some(),
        ExitReason::Signaled => exit.signal.is_some(),
        _ => true,
    };
    if !(valid_code && valid_signal && complete) {
        let (code, signal) = (exit.code, exit.signal);
        return Err(broken(format!("an end by {reason:?} with code {code:?} and signal {signal:?}")));
    }
    Ok(ExitStatus {
        reason,
        code: exit.code,
        signal: exit.signal,
        oom_kills: exit.oom_kills,
        cpu_time: Duration::from_micros(exit.cpu_us),
        max_rss_bytes: exit.max_rss_bytes,
        time: time(exit.time_ns)?,
    })
}

pub(crate) fn spec(spec: ProcessSpec, id: &ProcessId) -> wire::ProcessSpec {
    // A timeout of less than a millisecond is not none.
    let timeout = spec.timeout.map_or(0, |timeout| timeout.as_nanos().div_ceil(1_000_000));
    wire::ProcessSpec {
        id: id.to_string(),
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd.unwrap_or_default(),
        user: spec.user.unwrap_or_default(),
        terminal: spec.terminal.map(size),
        stdin: spec.stdin,
        timeout_ms: u64::try_from(timeout).unwrap_or(u64::MAX),
        kill_on_disconnect: spec.kill_on_disconnect,
        request: spec.request.map_or_else(Vec::new, |request| [request.key, request.body].concat()),
        unlisted: false,
    }
}

pub(crate) fn size(size: TerminalSize) -> wire::TerminalSize {
    wire::TerminalSize { rows: size.rows.into(), columns: size.columns.into() }
}

pub(crate) fn attach(id: &ProcessId, options: &AttachOptions) -> wire::Attach {
    wire::Attach {
        id: id.to_string(),
        stdout_from: options.stdout_from,
        stderr_from: options.stderr_from,
        stdin: options.stdin,
        takeover: options.takeover,
    }
}

pub(crate) fn stream_number(stream: OutputStream) -> u32 {
    match stream {
        OutputStream::Stdout => wire::StreamId::Stdout as u32,
        OutputStream::Stderr => wire::StreamId::Stderr as u32,
    }
}

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

/// A file that was asked for by `path`.
pub(crate) fn file(answer: Answer, path: &str) -> Result<FileInfo> {
    let Answer::File(file) = answer else { return Err(unexpected(&answer)) };
    file_info(file, path.to_owned())
}

fn file_info(file: wire::File, path: String) -> Result<FileInfo> {
    let kind = match wire::FileKind::try_from(file.kind) {
        Ok(wire::FileKind::File) => FileKind::File,
        Ok(wire::FileKind::Directory) => FileKind::Directory,
        Ok(wire::FileKind::Symlink) => FileKind::Symlink,
        Ok(wire::FileKind::Other) => FileKind::Other,
        Err(_) => return Err(broken(format!("there is no kind of file {}", file.kind))),
    };
    if file.mode > 0o7777 {
        return Err(broken(format!("{:o} are no permissions", file.mode)));
    }
    if file
        .link_target
        .as_ref()
        .is_some_and(|target| kind != FileKind::Symlink || target.len() > 4 * MOST_PATH)
    {
        return Err(broken("a link that cannot be"));
    }
    let since = Duration::from_nanos(file.modified_ns.unsigned_abs());
    let modified =
        if file.modified_ns < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    Ok(FileInfo {
        path,
        kind,
        size: file.size,
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        modified: modified.ok_or_else(|| broken("a time beyond all times"))?,
        link_target: file.link_target,
    })
}

/// A page of the directory that was asked for, after a name or from the start.
pub(crate) fn files(answer: Answer, directory: &str, after: &[u8], limit: usize) -> Result<FilePage> {
    let Answer::Files(page) = answer else { return Err(unexpected(&answer)) };
    if page.files.len() > limit {
        return Err(broken(format!("{} entries where at most {limit} were asked for", page.files.len())));
    }
    let mut last = std::str::from_utf8(after).ok().filter(|after| !after.is_empty()).map(str::to_owned);
    let mut entries = Vec::with_capacity(page.files.len());
    for file in page.files {
        let name = file.path.rsplit('/').next().unwrap_or_default().to_owned();
        if matches!(name.as_str(), "" | "." | "..") || name.len() > MOST_PATH || name.contains('\0') {
            return Err(broken("an entry without a name"));
        }
        // Names that are no UTF-8 are sorted before they are made readable.
        let readable = |name: &str| !name.contains(char::REPLACEMENT_CHARACTER);
        if last.as_ref().is_some_and(|last| name <= *last && readable(&name) && readable(last)) {
            return Err(broken("entries out of order"));
        }
        entries.push(file_info(file, format!("{}/{name}", directory.trim_end_matches('/')))?);
        last = Some(name);
    }
    let next = page.next.unwrap_or_else(|| {
        // Guests of earlier times do not say; after a full page there may be more.
        last.filter(|_| entries.len() == limit).unwrap_or_default().into_bytes()
    });
    if !next.is_empty() && (next.as_slice() <= after || next.len() > MOST_PATH) {
        return Err(broken("a page that leads nowhere"));
    }
    Ok(FilePage { files: entries, next: Some(next).filter(|next| !next.is_empty()) })
}

/// A change of a watched file.
pub(crate) fn file_event(event: wire::FileEvent) -> Result<FileEvent> {
    let kind = match wire::FileEventKind::try_from(event.kind) {
        Ok(wire::FileEventKind::Overflow) => FileEventKind::Overflow,
        Ok(wire::FileEventKind::Created) => FileEventKind::Created,
        Ok(wire::FileEventKind::Modified) => FileEventKind::Modified,
        Ok(wire::FileEventKind::Attributes) => FileEventKind::Attributes,
        Ok(wire::FileEventKind::Removed) => FileEventKind::Removed,
        Err(_) => return Err(broken(format!("there is no kind of change {}", event.kind))),
    };
    if kind == FileEventKind::Overflow {
        return Ok(FileEvent { kind, path: String::new() });
    }
    if !is_path(&event.path, 4 * MOST_PATH) {
        return Err(broken("a change of something that is no path"));
    }
    Ok(FileEvent { kind, path: event.path })
}
