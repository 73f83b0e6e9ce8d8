//! The supervisor inside a sandbox: process number 1 of a jail or container.
//!
//! One thread, one epoll. It starts processes and reaps everything, keeps their output, and serves files, all
//! over unix sockets whose peer is the host (see `hostel-guest-protocol`). It never waits for anything but
//! epoll: long work is done by forked workers.

mod archive;
mod attach;
mod calls;
mod connection;
mod connections;
mod event_loop;
mod failure;
mod files;
mod filters;
mod frames;
mod kill;
mod lifecycle;
mod listen;
mod netlink;
mod output;
mod process;
mod rate;
mod reaper;
mod ring;
mod serve;
mod spawn;
mod spill;
mod start;
mod terminal;
mod users;
mod watch;
mod worker;

use crate::zygote::confine::Confined;
use calls::Calls;
use connection::{Connection, Mode};
use event_loop::{EventFlags, Key, Poll, Timer, Timers};
use files::Root;
use hostel_guest_protocol::{GuestConfig, VERSION, Welcome};
use process::Process;
use rate::Rate;
use rustix::io::Errno;
use spill::SpillSpace;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Time that processes have to end by themselves when the sandbox ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
const DEFAULT_RING: u64 = 2 << 20;
const DEFAULT_RETAINED_RING: u64 = 16 << 20;
const DEFAULT_RETAINED_SPILL: u64 = 64 << 20;

/// What a supervisor is born with.
#[derive(Debug)]
pub struct Inherited {
    /// A unix stream socket that listens.
    pub listener: OwnedFd,
    /// Where spill files go (`O_TMPFILE`); without one output that does not fit in memory is lost.
    pub spill_directory: Option<OwnedFd>,
    /// A file with a line `oom_kill N`: `memory.oom_control` of cgroup v1 or `memory.events` of v2.
    pub oom_counter: Option<OwnedFd>,
    /// What the host wants.
    pub config: GuestConfig,
    /// What it gave up, and what it could not: every [`Welcome`] tells.
    pub confined: Confined,
}

/// Serves until it is told to stop, then ends this process. It takes the process over: signals, name, file
/// mode mask. `first` is a connection of the host that needs no [`Hello`](hostel_guest_protocol::Hello): it gets the
/// [`Welcome`] as soon as the supervisor serves.
pub fn run(first: OwnedFd, inherited: Inherited) -> ! {
    end(match Supervisor::new(inherited) {
        Ok(mut supervisor) => {
            supervisor.welcome_first(first);
            supervisor.serve()
        }
        Err(errno) => {
            let failure = format!("the supervisor cannot start: {errno}");
            let welcome = Welcome { version: VERSION, failure, ..Welcome::default() };
            let _ = rustix::io::write(&first, &hostel_guest_protocol::frame::encode_message(&welcome));
            1
        }
    })
}

/// The same without a first connection: as the first program of a container, or for tests below any process.
/// Every connection has to say hello. What it starts can gain no privileges; more confinement is the business of
/// whoever starts it.
pub fn run_listening(mut inherited: Inherited) -> ! {
    let unconfined = forbid_privileges().err();
    let weakness = unconfined.map(|errno| format!("programs may gain privileges: {errno}"));
    inherited.confined.weaknesses.extend(weakness);
    end(Supervisor::new(inherited).map_or(1, |mut supervisor| supervisor.serve()))
}

fn end(status: i32) -> ! {
    // SAFETY: ends this process without running what the zygote, of which it may be a copy, left to run.
    unsafe { libc::_exit(status) }
}

/// Everything.
struct Supervisor {
    poll: Poll,
    timers: Timers,
    listener: OwnedFd,
    signals: OwnedFd,
    oom_counter: Option<OwnedFd>,
    config: GuestConfig,
    weaknesses: Vec<String>,
    /// Where the kernel counts on us.
    calls: Option<Calls>,
    root: Root,
    users: RefCell<users::Users>,
    /// `/dev/null`, once somebody needed it.
    null: Option<Rc<OwnedFd>>,
    connections: BTreeMap<u64, Connection>,
    /// Workers whose host left, while they remove what they have half done.
    tidying: Vec<worker::Worker>,
    /// By serial number, so oldest first.
    processes: BTreeMap<u64, Process>,
    /// Serial numbers of running processes by process number.
    running: BTreeMap<i32, u64>,
    spill: SpillSpace,
    listeners: Vec<listen::Listener>,
    rate: Rate,
    /// Whether [`Timer::Rate`] is set.
    rate_waiting: bool,
    last_serial: u64,
    /// `RLIMIT_NOFILE` of processes where the configuration has none: what it was before we raised our own.
    open_files: [u64; 2],
    /// When the last process ended, or birth.
    last_end: Instant,
    stopping: bool,
}

impl Supervisor {
    fn new(born: Inherited) -> Result<Self, Errno> {
        take_over_process();
        let open_files = raise_open_files();
        let signals = reaper::signals()?;
        let poll = Poll::new()?;
        rustix::io::ioctl_fionbio(&born.listener, true)?;
        poll.add(&born.listener, Key::Listener, EventFlags::IN)?;
        poll.add(&signals, Key::Signals, EventFlags::IN)?;
        if let Some(calls) = &born.confined.calls {
            poll.add(calls, Key::Calls, EventFlags::IN)?;
        }
        let mut supervisor = Self {
            poll,
            timers: Timers::default(),
            listener: born.listener,
            signals,
            oom_counter: born.oom_counter,
            config: GuestConfig::default(),
            weaknesses: born.confined.weaknesses,
            calls: born.confined.calls.map(Calls::new),
            root: Root::new()?,
            users: RefCell::default(),
            null: None,
            connections: BTreeMap::new(),
            tidying: Vec::new(),
            processes: BTreeMap::new(),
            running: BTreeMap::new(),
            spill: SpillSpace::new(born.spill_directory),
            listeners: Vec::new(),
            rate: Rate::new(0, Instant::now()),
            rate_waiting: false,
            last_serial: 0,
            open_files,
            last_end: Instant::now(),
            stopping: false,
        };
        supervisor.configure(born.config);
        Ok(supervisor)
    }

    /// Takes a new configuration.
    fn configure(&mut self, mut config: GuestConfig) {
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        config.ring_bytes = or(config.ring_bytes, DEFAULT_RING).min(1 << 30);
        config.retained_ring_bytes = or(config.retained_ring_bytes, DEFAULT_RETAINED_RING);
        config.retained_spill_bytes = or(config.retained_spill_bytes, DEFAULT_RETAINED_SPILL);
        (self.spill.per_stream, self.spill.total) = (config.spill_bytes, config.retained_spill_bytes);
        self.rate = Rate::new(config.output_bytes_per_second, Instant::now());
        self.config = config;
        if !self.config.workdir.is_empty() {
            // Where it cannot be made, starting a process in it will say so.
            let mode = rustix::fs::Mode::from_raw_mode(0o755);
            let _ = self.root.make_directories(&self.config.workdir, mode, self.owner());
        }
        self.resume_all();
    }

    /// Whose the files are that the host makes.
    fn owner(&self) -> files::Owner {
        let user =
            self.users.borrow_mut().find(&self.root, &self.config.user, self.config.can_switch_user).ok()?;
        self.config.can_switch_user.then_some((user.uid, user.gid))
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    fn welcome_first(&mut self, socket: OwnedFd) {
        if let Some(serial) = self.add_connection(socket, Mode::Idle) {
            self.welcome(serial);
            self.pump(serial);
        }
    }

    /// The loop. → exit status.
    fn serve(&mut self) -> i32 {
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            while let Some(timer) = self.timers.due(now) {
                if self.expired(timer, now) {
                    return 0;
                }
            }
            if self.stopping && self.is_over() {
                reaper::kill_everything();
                return 0;
            }
            if self.poll.wait(self.timers.next(), &mut ready).is_err() {
                return 1;
            }
            for (key, events) in ready.drain(..) {
                self.is_ready(key, events);
            }
        }
    }

    /// Nothing runs and everything was said.
    fn is_over(&self) -> bool {
        self.processes.values().all(|process| process.finished.is_some())
            && self.everything_sent()
            && !reaper::has_children()
    }

    fn is_ready(&mut self, key: Key, events: EventFlags) {
        match key {
            Key::Listener => self.accept(),
            Key::Signals => self.signalled(),
            Key::Connection(serial) => self.connection_ready(serial, events),
            Key::Output(serial, index) => self.read_output(serial, index),
            Key::Stdin(serial) => self.write_input(serial),
            Key::Watch(serial) => self.watch_ready(serial),
            Key::Worker(serial) => self.worker_ready(serial),
            Key::Calls => self.asked(),
        }
    }

    /// The kernel has a question about a system call.
    fn asked(&mut self) {
        if let Some(calls) = &mut self.calls
            && !calls.answer()
        {
            self.poll.remove(calls);
            self.timers.add(Instant::now() + calls::PAUSE, Timer::Calls);
        }
    }

    fn answer_late(&mut self) {
        if let Some(calls) = &mut self.calls {
            calls.answer_late();
            // Nobody shall wait for an answer that does not come: without a listener the kernel refuses.
            if self.poll.add(calls, Key::Calls, EventFlags::IN).is_err() {
                self.calls = None;
            }
        }
    }

    /// → whether it is time to exit.
    fn expired(&mut self, timer: Timer, now: Instant) -> bool {
        match timer {
            Timer::Handshake(serial) => self.handshake_expired(serial),
            Timer::Score(serial, tries) => self.raise_oom_score(serial, tries),
            Timer::Timeout(serial) => self.time_is_over(serial, now),
            Timer::Kill(serial) => self.kill_process(serial),
            Timer::Hold(serial) => self.forget_lost(serial),
            Timer::Drain(serial) => self.check_drained(serial, now),
            Timer::Expire(serial) => self.forget_process(serial),
            Timer::Release(serial) => self.release(serial),
            Timer::Calls => self.answer_late(),
            Timer::Listen => drop(self.poll.add(&self.listener, Key::Listener, EventFlags::IN)),
            Timer::Rate => {
                self.rate_waiting = false;
                self.resume_all();
            }
            Timer::Shutdown => {
                reaper::kill_everything();
                return true;
            }
        }
        false
    }

    /// Ends every process, then us.
    fn shut_down(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        reaper::terminate_everything(self.processes.values_mut());
        self.timers.add(Instant::now() + SHUTDOWN_GRACE, Timer::Shutdown);
    }
}

/// Nothing that is executed from here gains privileges, not even as root.
fn forbid_privileges() -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    for capability in 0..64 {
        // SAFETY: prctl(2) with numbers. Where we may not, or there is no such capability, what follows and
        // what came before are enough: without new privileges a program has only what its parent kept.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    Ok(())
}

/// Takes as many descriptors as we may. → the limits before.
fn raise_open_files() -> [u64; 2] {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    [before.current, before.maximum].map(|limit| limit.unwrap_or(u64::MAX))
}

/// Makes this process what a supervisor has to be, wherever it comes from.
fn take_over_process() {
    // SAFETY: prctl(2), signal(2) and mallopt(3) with constants, in a process of one thread.
    unsafe {
        if libc::geteuid() != crate::zygote::confine::GUEST_ID {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        }
        libc::prctl(libc::PR_SET_NAME, c"hostel-guest".as_ptr());
        if libc::getpid() != 1 {
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        }
        // What we ignore every program we start would ignore. By the bare call (handler, flags, restorer,
        // mask), since libc keeps two signals to itself.
        for signal in 1..=64 {
            let default = [0u64; 4];
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        // Large buffers get pages of their own and give them back when freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
    }
    // Descriptors 0 to 2 are for children: ours must be others.
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    while let Ok(null) = rustix::fs::open(c"/dev/null", flags, rustix::fs::Mode::empty()) {
        if null.as_fd().as_raw_fd() > 2 {
            break;
        }
        std::mem::forget(null);
    }
}
