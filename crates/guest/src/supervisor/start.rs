//! Starting a process: everything is checked before, so that a failure says what was wrong.

use super::Supervisor;
use super::event_loop::{EventFlags, Key, Timer};
use super::failure::{Outcome, failure, invalid, refused, wrong_state};
use super::files::Root;
use super::process::{Input, Output, Process, now_ns, printable, shortened};
use super::spawn::{self, Launch, Step};
use super::terminal;
use super::users::Identity;
use hostel_guest_protocol::{FailureKind, ProcessSpec, REQUEST_LEN, REQUEST_REUSED};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest name of a process, in bytes.
const MOST_ID: usize = 128;

/// How long it is waited before a process's score is tried to be raised again, at first; and how often, each time after
/// twice as long: some two seconds in all.
const SCORE_PAUSE: Duration = Duration::from_micros(100);
const SCORE_TRIES: u32 = 14;

/// Both ends of a process's streams.
struct Streams {
    theirs: [Rc<OwnedFd>; 3],
    outputs: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
}

impl Supervisor {
    /// Starts a process, or finds the one that the same request started. → its serial number.
    pub(super) fn start(&mut self, spec: &ProcessSpec) -> Outcome<u64> {
        if self.stopping {
            return Err(wrong_state("STOPPING", "the sandbox is stopping"));
        }
        check(spec)?;
        if let Some(started) = self.started_before(&spec.request)? {
            return Ok(started);
        }
        if self.processes.values().any(|process| process.id == spec.id) {
            let message = format!("there is a process {:?} already", spec.id);
            return Err(failure(FailureKind::Exists, message, "process"));
        }
        let user = if spec.user.is_empty() { &self.config.user } else { &spec.user };
        let user = self.users.borrow_mut().find(&self.root, user, self.config.can_switch_user)?;
        let directory = [&spec.cwd, &self.config.workdir].into_iter().find(|path| !path.is_empty());
        let directory = directory.map_or("/", String::as_str).to_owned();
        let env = environment(&self.config.env, spec, &user, &directory);
        let path = env.get("PATH").map_or("", String::as_str);
        let program = find_program(&self.root, &spec.argv[0], path, &directory)
            .map_err(|failure| no_directory(&self.root, &directory).unwrap_or(failure))?;
        let oom_before = self.oom_kills();
        let streams = streams(spec, &user, &mut self.null)
            .map_err(|errno| refused(errno, "make the process's streams"))?;
        let env = env.into_iter().map(|(name, value)| format!("{name}={value}"));
        let pid = spawn::launch(&Launch {
            program: c_string(&program)?,
            argv: spec.argv.iter().map(|argument| c_string(argument)).collect::<Outcome<_>>()?,
            env: env.map(|variable| c_string(&variable)).collect::<Outcome<_>>()?,
            directory: c_string(&directory)?,
            streams: [0, 1, 2].map(|index| streams.theirs[index].as_fd()),
            terminal: spec.terminal.is_some(),
            user: self.config.can_switch_user.then_some(&user),
            open_files: match u64::from(self.config.open_files) {
                0 => self.open_files,
                limit => [limit; 2],
            },
        })
        .map_err(|(step, errno)| not_launched(step, errno, &program, &directory))?;
        let serial = self.register(spec, pid, streams, oom_before, (printable(&user.name), directory))?;
        self.raise_oom_score(serial, 0);
        Ok(serial)
    }

    /// Has the kernel choose a process before the guest where memory is short. That is refused as long as its memory is
    /// not readable for its owner: for a moment after it has memory of its own, when we go on already, and for good
    /// where nobody may read its program. So it is tried again a little later, some times.
    pub(super) fn raise_oom_score(&mut self, serial: u64, tries: u32) {
        let running = self.processes.get(&serial).filter(|process| process.exit.is_none());
        let (Some(process), score) = (running, self.config.oom_score_adj) else { return };
        if score == 0 {
            return;
        }
        let file = format!("/proc/{}/oom_score_adj", process.pid.as_raw_nonzero());
        let refused = std::fs::write(file, score.to_string())
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
        if refused && tries < SCORE_TRIES {
            self.timers.add(Instant::now() + SCORE_PAUSE * (1 << tries), Timer::Score(serial, tries + 1));
        }
    }

    /// The process that a request with the same name started.
    fn started_before(&self, request: &[u8]) -> Outcome<Option<u64>> {
        let (name, _) = request.split_at(request.len() / 2);
        let same = |process: &&Process| !name.is_empty() && process.request.starts_with(name);
        match self.processes.iter().find(|(_, process)| same(process)) {
            None => Ok(None),
            Some((serial, process)) if process.request == request => Ok(Some(*serial)),
            Some(_) => {
                let message = "the same request asked for something else before";
                Err(failure(FailureKind::Exists, message, REQUEST_REUSED))
            }
        }
    }

    fn register(
        &mut self,
        spec: &ProcessSpec,
        pid: i32,
        streams: Streams,
        oom_before: u64,
        (user, cwd): (String, String),
    ) -> Outcome<u64> {
        let Streams { outputs, input, theirs } = streams;
        drop(theirs);
        let serial = self.next_serial();
        let ring = usize::try_from(self.config.ring_bytes).unwrap_or(1 << 20);
        let mut outputs = outputs.map(|fd| Output::new(fd, ring));
        for (index, output) in outputs.iter_mut().enumerate() {
            if let Some(fd) = &output.fd {
                output.polled = self.poll.add(fd, Key::Output(serial, index), EventFlags::IN).is_ok();
            }
        }
        let timeout = Duration::from_millis(spec.timeout_ms);
        let timeout_at = Instant::now().checked_add(timeout).filter(|_| spec.timeout_ms > 0);
        let process = Process {
            id: spec.id.clone(),
            argv: shortened(&spec.argv),
            request: spec.request.clone(),
            unlisted: spec.unlisted,
            pid: Pid::from_raw(pid).ok_or_else(|| failure(FailureKind::Internal, "no process number", ""))?,
            terminal: spec.terminal.is_some(),
            start_ns: now_ns(),
            user,
            cwd,
            outputs,
            input: Input { fd: input, ..Input::default() },
            exit: None,
            finished: None,
            timeout_at,
            expires: None,
            drain_until: None,
            oom_before,
            killed: false,
            timed_out: false,
            attached: Vec::new(),
            waiting: Vec::new(),
        };
        self.processes.insert(serial, process);
        self.running.insert(pid, serial);
        if let Some(at) = timeout_at {
            self.timers.add(at, Timer::Timeout(serial));
        }
        Ok(serial)
    }
}

/// What does not depend on the sandbox. The host has checked it too; a guest takes nobody's word.
fn check(spec: &ProcessSpec) -> Outcome<()> {
    if spec.id.is_empty() || spec.id.len() > MOST_ID {
        return Err(invalid("id", format!("a process's id has 1 to {MOST_ID} bytes")));
    }
    if !matches!(spec.request.len(), 0 | REQUEST_LEN) {
        return Err(invalid("request", format!("a request has {REQUEST_LEN} bytes")));
    }
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(invalid("argv", "give at least a program"));
    }
    if spec.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid("argv", "an argument has no NUL"));
    }
    if spec
        .env
        .iter()
        .any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        return Err(invalid("env", "a name is not empty and has no =, and neither has a NUL"));
    }
    if !spec.cwd.is_empty() && (!spec.cwd.starts_with('/') || spec.cwd.contains('\0')) {
        return Err(invalid("cwd", "a working directory begins with / and has no NUL"));
    }
    Ok(())
}

fn environment(
    configured: &BTreeMap<String, String>,
    spec: &ProcessSpec,
    user: &Identity,
    directory: &str,
) -> BTreeMap<String, String> {
    let shell = if user.shell.is_empty() { "/bin/sh" } else { &user.shell };
    let terminal = spec.terminal.map(|_| ("TERM", "xterm-256color"));
    let defaults = [
        ("PATH", DEFAULT_PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", shell),
    ];
    let mut env: BTreeMap<String, String> = defaults
        .into_iter()
        .chain(terminal)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let chosen = configured.iter().chain(&spec.env).map(|(name, value)| (name.clone(), value.clone()));
    env.extend(chosen);
    env.insert("PWD".to_owned(), directory.to_owned());
    env
}

/// Finds the program as a shell would, but from outside of the process.
fn find_program(root: &Root, program: &str, path: &str, directory: &str) -> Outcome<String> {
    let absolute =
        |from: &str| if from.starts_with('/') { from.to_owned() } else { format!("{directory}/{from}") };
    if program.contains('/') {
        let program = absolute(program);
        return match is_executable(root, &program) {
            Ok(true) => Ok(program),
            Ok(false) => Err(invalid("argv", format!("{program} is not executable"))),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(missing(&program)),
            Err(errno) => Err(invalid("argv", format!("{program}: {errno}"))),
        };
    }
    let mut refused = None;
    for from in path.split(':') {
        let candidate = format!("{}/{program}", absolute(from));
        match is_executable(root, &candidate) {
            Ok(true) => return Ok(candidate),
            Ok(false) => refused = refused.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(refused
        .map_or_else(|| missing(program), |found| invalid("argv", format!("{found} is not executable"))))
}

fn is_executable(root: &Root, path: &str) -> Result<bool, Errno> {
    let stat = fstat(root.open(path, OFlags::PATH, Mode::empty())?)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0)
}

/// What is wrong with the directory, which explains why a program is not found. Where one is found the child says so.
fn no_directory(root: &Root, directory: &str) -> Option<hostel_guest_protocol::Failure> {
    let opened = root.open_directory(directory, OFlags::PATH);
    opened.err().map(|errno| invalid("cwd", format!("{directory}: {errno}")))
}

fn missing(program: &str) -> hostel_guest_protocol::Failure {
    failure(FailureKind::NotFound, format!("there is no program {program:?}"), "program")
}

fn not_launched(step: Step, errno: Errno, program: &str, directory: &str) -> hostel_guest_protocol::Failure {
    match (step, errno) {
        (Step::Clone, Errno::AGAIN) => failure(FailureKind::Limit, "no more processes", "processes"),
        (Step::Clone | Step::Prepare, errno) => refused(errno, "start a process"),
        (Step::User, errno) => invalid("user", format!("become the user: {errno}")),
        (Step::Directory, errno) => invalid("cwd", format!("{directory}: {errno}")),
        (Step::Execute, Errno::NOENT) => {
            failure(FailureKind::NotFound, format!("{program}: its interpreter does not exist"), "program")
        }
        (Step::Execute, Errno::AGAIN) => failure(FailureKind::Limit, "no more processes", "processes"),
        (Step::Execute, Errno::TOOBIG) => invalid("argv", "arguments and environment are too long"),
        (Step::Execute, errno) => invalid("argv", format!("{program}: {errno}")),
    }
}

fn c_string(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| invalid("argv", "there is a NUL in it"))
}

/// `null` is where whoever gets no standard input reads: opened by the first, and the same for all.
fn streams(spec: &ProcessSpec, user: &Identity, null: &mut Option<Rc<OwnedFd>>) -> Result<Streams, Errno> {
    if let Some(size) = spec.terminal {
        let (ours, theirs) = terminal::new(size)?;
        terminal::give(&theirs, user.uid, user.gid);
        let copy = || rustix::io::fcntl_dupfd_cloexec(&theirs, 3);
        let input = if spec.stdin { Some(rustix::io::fcntl_dupfd_cloexec(&ours, 3)?) } else { None };
        let theirs = [copy()?.into(), copy()?.into(), theirs.into()];
        return Ok(Streams { theirs, outputs: [Some(ours), None], input });
    }
    let ([out_ours, out_theirs], [err_ours, err_theirs]) = (pipe()?, pipe()?);
    rustix::io::ioctl_fionbio(&out_ours, true)?;
    rustix::io::ioctl_fionbio(&err_ours, true)?;
    let (input_theirs, input) = if spec.stdin {
        let [theirs, ours] = pipe()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        (theirs.into(), Some(ours))
    } else if let Some(null) = null {
        (Rc::clone(null), None)
    } else {
        let opened = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        (Rc::clone(null.insert(opened.into())), None)
    };
    debug_assert!(input_theirs.as_raw_fd() > 2, "standard descriptors are taken");
    let outputs = [Some(out_ours), Some(err_ours)];
    Ok(Streams { theirs: [input_theirs, out_theirs.into(), err_theirs.into()], outputs, input })
}

/// The reading end and the writing end.
fn pipe() -> Result<[OwnedFd; 2], Errno> {
    pipe_with(PipeFlags::CLOEXEC).map(|(reading, writing)| [reading, writing])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_and_nowhere_else() {
        let root = Root::new().unwrap();
        assert_eq!(find_program(&root, "sh", "/nowhere:/bin", "/").unwrap(), "/bin/sh");
        assert_eq!(find_program(&root, "./sh", "", "/bin").unwrap(), "/bin/./sh");
        let kind = |program: &str, path: &str| find_program(&root, program, path, "/").unwrap_err().kind();
        assert_eq!(kind("sh", "/nowhere"), FailureKind::NotFound);
        assert_eq!(kind("passwd", "/etc"), FailureKind::Invalid);
        assert_eq!(kind("/etc", ""), FailureKind::Invalid);
    }

    #[test]
    fn the_callers_environment_wins() {
        let user = Identity {
            uid: 1,
            gid: 1,
            groups: Vec::new(),
            name: "agent".into(),
            home: "/home/agent".into(),
            shell: String::new(),
        };
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let spec = ProcessSpec { env: pairs(&[("B", "spec"), ("PWD", "x")]), ..ProcessSpec::default() };
        let env =
            environment(&pairs(&[("A", "config"), ("B", "config"), ("HOME", "/h")]), &spec, &user, "/work");
        let get = |name: &str| env.get(name).map(String::as_str);
        assert_eq!((get("A"), get("B"), get("HOME")), (Some("config"), Some("spec"), Some("/h")));
        assert_eq!((get("PWD"), get("USER"), get("TERM")), (Some("/work"), Some("agent"), None));
    }
}
