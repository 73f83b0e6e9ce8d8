//! What the supervisor waits for: descriptors by epoll, moments by an ordered set.

use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, Result};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) use rustix::event::epoll::EventFlags;

/// Most events taken at once.
const BATCH: usize = 64;

/// Whose descriptor became ready. Serial numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The listening socket.
    Listener,
    /// The signal descriptor.
    Signals,
    /// A connection.
    Connection(u64),
    /// Standard output (0) or error (1) of a process.
    Output(u64, usize),
    /// Standard input of a process.
    Stdin(u64),
    /// The inotify descriptor of a connection.
    Watch(u64),
    /// The status pipe of a connection's worker.
    Worker(u64),
    /// Where the kernel asks about system calls.
    Calls,
}

const SERIAL_BITS: u32 = 56;

impl Key {
    fn encode(self) -> u64 {
        let (kind, serial) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Connection(serial) => (2, serial),
            Self::Output(serial, 0) => (3, serial),
            Self::Output(serial, _) => (4, serial),
            Self::Stdin(serial) => (5, serial),
            Self::Watch(serial) => (6, serial),
            Self::Worker(serial) => (7, serial),
            Self::Calls => (8, 0),
        };
        kind << SERIAL_BITS | serial
    }

    fn decode(data: u64) -> Self {
        let serial = data & ((1 << SERIAL_BITS) - 1);
        match data >> SERIAL_BITS {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Connection(serial),
            3 => Self::Output(serial, 0),
            4 => Self::Output(serial, 1),
            5 => Self::Stdin(serial),
            6 => Self::Watch(serial),
            7 => Self::Worker(serial),
            _ => Self::Calls,
        }
    }
}

/// Descriptors, level-triggered.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, fd: impl AsFd, key: Key, events: EventFlags) -> Result<()> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key.encode()), events)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, key: Key, events: EventFlags) -> Result<()> {
        epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key.encode()), events)
    }

    /// Stops watching. Needed before a close too: a copy in a forked worker would keep the watch alive.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready or the time has come.
    pub(crate) fn wait(&self, until: Option<Instant>, ready: &mut Vec<(Key, EventFlags)>) -> Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; BATCH];
        let timeout = until.map(round_up);
        ready.clear();
        let (events, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        ready.extend(events.iter().map(|event| (Key::decode(event.data.u64()), event.flags)));
        Ok(())
    }
}

/// Whole milliseconds, never too early: epoll knows no finer ones everywhere.
fn round_up(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now());
    let milliseconds = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
    let left = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
}

/// What is to happen at a moment. It may have become pointless by then: whoever handles it looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A connection must have said hello.
    Handshake(u64),
    /// A process may be readable now, so that its score can be raised; how often that was tried.
    Score(u64, u32),
    /// A process's time is over.
    Timeout(u64),
    /// It had time enough to die by itself.
    Kill(u64),
    /// A lost reader's claim on output ends.
    Hold(u64),
    /// Has the output of an ended process dried up?
    Drain(u64),
    /// An ended process is forgotten.
    Expire(u64),
    /// A connection has waited long enough for its process's first words.
    Release(u64),
    /// What the kernel asked has waited long enough.
    Calls,
    /// There may be descriptors for new connections again.
    Listen,
    /// The output rate allows more.
    Rate,
    /// The grace of a shutdown is over.
    Shutdown,
}

/// Moments in order.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(crate) fn add(&mut self, at: Instant, timer: Timer) {
        self.set.insert((at, timer));
    }

    /// What was set is not wanted any more.
    pub(crate) fn remove(&mut self, at: Instant, timer: Timer) {
        self.set.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first().map(|(at, _)| *at)
    }

    /// Takes the first one if its moment has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Timer> {
        self.set.first().filter(|(at, _)| *at <= now)?;
        self.set.pop_first().map(|(_, timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_kernel() {
        let serial = 0x12_3456_789a_bcde;
        for key in [
            Key::Listener,
            Key::Signals,
            Key::Connection(serial),
            Key::Output(serial, 0),
            Key::Output(serial, 1),
            Key::Stdin(serial),
            Key::Watch(serial),
            Key::Worker(serial),
            Key::Calls,
        ] {
            assert_eq!(Key::decode(key.encode()), key);
        }
    }

    #[test]
    fn timers_come_in_order_and_not_early() {
        let (now, mut timers) = (Instant::now(), Timers::default());
        timers.add(now + Duration::from_secs(2), Timer::Rate);
        timers.add(now, Timer::Timeout(1));
        assert_eq!(timers.due(now), Some(Timer::Timeout(1)));
        assert_eq!(timers.due(now), None);
        assert_eq!(timers.due(now + Duration::from_secs(3)), Some(Timer::Rate));
    }
}
