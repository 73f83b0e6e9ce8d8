//! From a process's output to its end, and what is kept after it.

use super::Supervisor;
use super::event_loop::{EventFlags, Key, Timer};
use hostel_guest_protocol::{Answer, Exit, MAX_DATA, Reply};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Between SIGTERM and SIGKILL of a process whose time is over.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// After the end of a process its output is over when nothing came for this long ...
const DRY: Duration = Duration::from_millis(50);
/// ... or when this long has passed, or so many bytes more than a pipe holds have come: others hold the pipe.
const DRAIN: Duration = Duration::from_secs(1);
const DRAIN_BYTES: usize = 2 << 20;
/// How long, and how many, ended processes are remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
const MOST_REMEMBERED: usize = 256;
/// Size of the pipe of a process that writes much, in bytes.
const LARGE_PIPE: usize = 1 << 20;
/// That much in it means that it writes much.
const BUSY_PIPE: usize = 60 << 10;
/// What a terminal gives at once, in bytes.
const TERMINAL_READ: usize = 4 << 10;

impl Supervisor {
    /// Takes what a process wrote and passes it on.
    pub(super) fn read_output(&mut self, serial: u64, index: usize) {
        if self.take_output(serial, index) {
            self.pump_attached(serial);
            self.close_if_enough(serial, index);
        }
    }

    /// Takes what a process wrote. → whether there was something.
    fn take_output(&mut self, serial: u64, index: usize) -> bool {
        let now = Instant::now();
        if self.spill.is_short() {
            self.shorten_spills(serial, index);
        }
        let Some(process) = self.processes.get_mut(&serial) else { return false };
        let ended = process.exit.is_some();
        let terminal = process.terminal;
        let output = &mut process.outputs[index];
        let Some(fd) = &output.fd else { return false };
        let waiting = if terminal { TERMINAL_READ } else { pipe_content(fd) };
        if waiting >= BUSY_PIPE && !output.enlarged {
            output.enlarged = true;
            let _ = fcntl_setpipe_size(fd, LARGE_PIPE);
        }
        let allowed = self.rate.available(now);
        let room = output.stream.prepare(waiting.clamp(1, MAX_DATA).min(allowed), &mut self.spill);
        if room == 0 {
            if output.polled {
                self.poll.remove(fd);
                (output.polled, output.hung_up) = (false, false);
            }
            if allowed == 0 && !self.rate_waiting {
                self.rate_waiting = true;
                self.timers.add(self.rate.next(now), Timer::Rate);
            }
            return false;
        }
        match rustix::io::readv(fd, &mut output.stream.ring_mut().space(room)) {
            Ok(count) if count > 0 => {
                output.stream.ring_mut().filled(count);
                if std::mem::take(&mut output.hung_up) {
                    let _ = self.poll.modify(fd, Key::Output(serial, index), EventFlags::IN);
                }
                output.last = now;
                output.left = output.left.saturating_sub(count);
                self.rate.take(count);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::IO) if terminal && !ended => {
                // Nobody has the terminal open now, but its owner lives and may open it again. Until then only
                // changes are waited for: that it is closed would be told without end.
                if output.polled && !output.hung_up {
                    let edges = EventFlags::IN | EventFlags::ET;
                    output.hung_up = self.poll.modify(fd, Key::Output(serial, index), edges).is_ok();
                }
            }
            _ => self.close_output(serial, index),
        }
        false
    }

    fn pump_attached(&mut self, serial: u64) {
        let attached = self.processes.get(&serial).map(|process| process.attached.clone());
        attached.into_iter().flatten().for_each(|connection| self.pump(connection));
    }

    fn close_if_enough(&mut self, serial: u64, index: usize) {
        if self.processes.get(&serial).is_some_and(|process| process.outputs[index].left == 0) {
            self.close_output(serial, index);
        }
    }

    /// Lets a process go on that had to wait for its readers, if they had enough.
    pub(super) fn resume(&mut self, serial: u64) {
        let Some(process) = self.processes.get_mut(&serial) else { return };
        for index in 0..process.outputs.len() {
            let output = &mut process.outputs[index];
            let Some(fd) = output.fd.as_ref().filter(|_| !output.polled && output.stream.has_room()) else {
                continue;
            };
            output.polled = self.poll.add(fd, Key::Output(serial, index), EventFlags::IN).is_ok();
            if process.exit.is_some() {
                output.last = Instant::now();
                self.timers.add(output.last + DRY, Timer::Drain(serial));
            }
        }
    }

    pub(super) fn resume_all(&mut self) {
        let serials: Vec<u64> = self.processes.keys().copied().collect();
        serials.into_iter().for_each(|serial| self.resume(serial));
    }

    fn close_output(&mut self, serial: u64, index: usize) {
        let Some(process) = self.processes.get_mut(&serial) else { return };
        if let Some(fd) = process.outputs[index].fd.take() {
            self.poll.remove(&fd);
        }
        self.finish_if_over(serial);
    }

    /// The leader of a process's group ended.
    pub(super) fn ended(&mut self, serial: u64, exit: Exit) {
        let now = Instant::now();
        self.last_end = now;
        let Some(process) = self.processes.get_mut(&serial) else { return };
        process.exit = Some(exit);
        process.drain_until = Some(now + DRAIN);
        if let Some(at) = process.timeout_at.take() {
            self.timers.remove(at, Timer::Timeout(serial));
        }
        if let Some(fd) = process.input.fd.take() {
            self.poll.remove(&fd);
        }
        process.input.buffer = Vec::new();
        for output in &mut process.outputs {
            (output.last, output.left) = (now, DRAIN_BYTES);
        }
        let answer = Reply { answer: Some(Answer::Process(process.message())) };
        for waiting in std::mem::take(&mut process.waiting) {
            if let Some(connection) = self.connections.get_mut(&waiting) {
                connection.mode = super::connection::Mode::Idle;
                connection.send(&answer, None);
            }
            self.proceed(waiting);
        }
        for index in 0..2 {
            self.drain_now(serial, index);
        }
        // The end goes with the last output: as a rule there is one thing to send, once.
        self.finish_if_over(serial);
        if self.processes.get(&serial).is_some_and(|process| process.finished.is_none()) {
            self.pump_attached(serial);
            self.timers.add(now + DRY, Timer::Drain(serial));
        }
    }

    /// Takes as long as there is something, within reason. To pass it on is the caller's.
    fn drain_now(&mut self, serial: u64, index: usize) {
        for _ in 0..8 {
            if !self.take_output(serial, index) {
                return;
            }
            self.close_if_enough(serial, index);
        }
    }

    /// Whether the output of an ended process has dried up: then others who hold it open are not waited for.
    pub(super) fn check_drained(&mut self, serial: u64, now: Instant) {
        for index in 0..2 {
            let Some(process) = self.processes.get(&serial) else { return };
            let (output, until) = (&process.outputs[index], process.drain_until);
            if output.fd.is_none() || !output.polled {
                continue;
            }
            let dry = now.saturating_duration_since(output.last) >= DRY;
            if dry || until.is_some_and(|until| until <= now) {
                self.drain_now(serial, index);
                self.pump_attached(serial);
                let Some(process) = self.processes.get(&serial) else { return };
                // With readers in the way it is not dry after all.
                if process.outputs[index].polled {
                    self.close_output(serial, index);
                }
            } else {
                self.timers.add(now + DRY, Timer::Drain(serial));
            }
        }
    }

    /// Says that a process ended once it has and all its output came.
    fn finish_if_over(&mut self, serial: u64) {
        let Some(process) = self.processes.get_mut(&serial) else { return };
        let open = process.outputs.iter().any(|output| output.fd.is_some());
        if process.exit.is_none() || open || process.finished.is_some() {
            return;
        }
        let now = Instant::now();
        process.finished = Some(now);
        for output in &mut process.outputs {
            output.stream.settle(&mut self.spill);
        }
        process.expires = Some(now + REMEMBERED);
        self.timers.add(now + REMEMBERED, Timer::Expire(serial));
        self.pump_attached(serial);
        self.forget_unlisted(serial);
        self.trim();
    }

    /// Forgets a process that nobody was to hear of, once it is over and nobody reads it.
    pub(super) fn forget_unlisted(&mut self, serial: u64) {
        let over = |process: &super::Process| {
            process.unlisted && process.finished.is_some() && process.attached.is_empty()
        };
        if self.processes.get(&serial).is_some_and(over) {
            self.forget(serial);
        }
    }

    /// Keeps what ended processes left within its limits, oldest first.
    pub(super) fn trim(&mut self) {
        let ended: Vec<u64> =
            self.processes.iter().filter(|(_, it)| it.finished.is_some()).map(|(at, _)| *at).collect();
        let mut surplus = ended.len().saturating_sub(MOST_REMEMBERED);
        for serial in &ended {
            if surplus == 0 {
                break;
            }
            if self.processes.get(serial).is_some_and(|process| process.attached.is_empty()) {
                self.forget(*serial);
                surplus -= 1;
            }
        }
        let limit = usize::try_from(self.config.retained_ring_bytes).unwrap_or(usize::MAX);
        let held = |process: &super::Process| if process.finished.is_some() { process.memory() } else { 0 };
        let mut memory: usize = self.processes.values().map(held).sum();
        for process in self.processes.values_mut() {
            if memory <= limit {
                break;
            }
            if process.finished.is_some() {
                memory -= process.memory();
                for output in &mut process.outputs {
                    if !output.stream.is_held() {
                        output.stream.release_memory(&mut self.spill);
                    }
                }
                memory += process.memory();
            }
        }
    }

    /// Where the space for spill files is short and a stream needs one, the oldest file of an ended process
    /// goes.
    fn shorten_spills(&mut self, serial: u64, index: usize) {
        if !self
            .processes
            .get(&serial)
            .is_some_and(|process| process.outputs[index].stream.is_about_to_spill())
        {
            return;
        }
        for process in self.processes.values_mut().filter(|process| process.finished.is_some()) {
            for output in &mut process.outputs {
                if output.stream.has_spill() && !output.stream.is_held() {
                    return output.stream.release_spill(&mut self.spill);
                }
            }
        }
    }

    /// An ended process has been remembered long enough.
    pub(super) fn forget_process(&mut self, serial: u64) {
        let Some(process) = self.processes.get(&serial) else { return };
        if process.attached.is_empty() {
            self.forget(serial);
        } else {
            self.timers.add(Instant::now() + REMEMBERED, Timer::Expire(serial));
        }
    }

    fn forget(&mut self, serial: u64) {
        if let Some(mut process) = self.processes.remove(&serial) {
            if let Some(at) = process.expires {
                self.timers.remove(at, Timer::Expire(serial));
            }
            for output in &mut process.outputs {
                output.stream.release_spill(&mut self.spill);
            }
        }
    }

    /// A process's timeout.
    pub(super) fn time_is_over(&mut self, serial: u64, now: Instant) {
        let Some(process) = self.processes.get_mut(&serial) else { return };
        if process.is_running() {
            process.timed_out = true;
            let _ = process.signal(Signal::TERM);
            // A stopped process would not notice.
            let _ = process.signal(Signal::CONT);
            self.timers.add(now + TIMEOUT_GRACE, Timer::Kill(serial));
        }
    }

    pub(super) fn kill_process(&mut self, serial: u64) {
        if let Some(process) = self.processes.get_mut(&serial) {
            let _ = process.signal(Signal::KILL);
        }
    }
}

/// Bytes in a pipe.
fn pipe_content(fd: &std::os::fd::OwnedFd) -> usize {
    rustix::io::ioctl_fionread(fd).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(TERMINAL_READ)
}
