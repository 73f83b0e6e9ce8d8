//! Things die, at any moment: the daemon, its zygote, a guest. What was answered stays, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Caller, Outcome, TestDaemon, children, eventually, signal};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 10;
/// Longest time that a daemon lives, in microseconds.
const LONGEST_LIFE: u64 = 300_000;
/// Sandboxes, and templates, that are enough.
const MANY: usize = 10;
/// Lines that the counting process writes each round, at least.
const LINES: u64 = 2000;

/// Numbers that look random, from a seed that a failure shows (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

fn seed() -> u64 {
    let given = std::env::var("HOSTEL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or_else(|| u64::try_from(clock.as_nanos() & 0xffff_ffff).unwrap() | 1);
    eprintln!("seed: run with HOSTEL_TEST_SEED={seed} for the same");
    seed
}

/// What clients were told, so that it must be so.
#[derive(Debug, Default, Clone)]
struct Promises {
    created: Vec<String>,
    deleted: Vec<String>,
    written: BTreeSet<String>,
    templates: Vec<String>,
}

/// Lets clients end, also where the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One thing that a client does, again and again until the daemon is gone.
fn client(daemon: &Caller, kind: usize, home: &str, serial: &AtomicU64, promises: &Mutex<Promises>) {
    let number = serial.fetch_add(1, Ordering::Relaxed);
    let (many_sandboxes, many_templates) = {
        let promises = promises.lock().unwrap();
        (promises.created.len() >= MANY, promises.templates.len() >= MANY)
    };
    let succeeds = |arguments: &[&str]| daemon.hostel(arguments).code == Some(0);
    match kind {
        0 if !many_sandboxes => {
            let id = format!("made-{number}");
            if succeeds(&["sandbox", "create", "-q", "--id", &id]) {
                promises.lock().unwrap().created.push(id);
            }
        }
        1 => {
            let id = promises.lock().unwrap().created.pop();
            match id {
                // Without an answer it may or may not be there, so nothing is promised.
                Some(id) if succeeds(&["sandbox", "rm", &id]) => promises.lock().unwrap().deleted.push(id),
                Some(_) => {}
                None => drop(daemon.hostel(&["run", "--", "true"])),
            }
        }
        2 => {
            // The same again, so that whole files replace whole ones.
            let path = format!("/workspace/file-{}", number % 10);
            let write = format!("{home}:{path}");
            let local = daemon.home().join(format!("local-{number}"));
            std::fs::write(&local, format!("{path}\n").repeat(1000)).unwrap();
            let named = number.is_multiple_of(2);
            let mut command =
                daemon.command(&["cp", if named { local.to_str().unwrap() } else { "-" }, &write]);
            command.stdin(std::fs::File::open(&local).unwrap());
            if Outcome::of(command).code == Some(0) {
                promises.lock().unwrap().written.insert(path);
            }
        }
        3 if !many_templates => {
            let name = format!("shot-{number}");
            if succeeds(&["sandbox", "snapshot", "-q", home, &name]) {
                promises.lock().unwrap().templates.push(name);
            }
        }
        _ => {
            let _ = daemon.hostel(&["exec", home, "--", "true"]);
        }
    }
}

/// Looks that all that was promised is so, while clients make and remove more.
fn look(daemon: &TestDaemon, home: &str, shared: &Mutex<Promises>) {
    let promises = shared.lock().unwrap().clone();
    let list = daemon.hostel(&["--json", "sandbox", "list"]);
    let list: serde_json::Value = serde_json::from_str(list.success()).unwrap();
    let list = list["sandboxes"].as_array().unwrap();
    let there = |id: &str| list.iter().any(|sandbox| sandbox["id"] == id);
    // What a client took meanwhile it may have removed.
    let still = shared.lock().unwrap().created.clone();
    for id in promises.created.iter().filter(|id| still.contains(id)) {
        assert!(there(id), "{id} was created and is not there: {list:?}");
    }
    for id in &promises.deleted {
        assert!(!there(id), "{id} was deleted and is there");
    }
    let templates = daemon.hostel(&["template", "list", "-q"]).success().to_owned();
    for name in &promises.templates {
        assert!(templates.lines().any(|line| line == name), "{name} was made and is not among {templates}");
    }
    let whole = "cd /workspace; for f in file-*; do [ $(sort -u $f | wc -l) = 1 ] && [ $(wc -l < $f) = 1000 ] || echo torn $f; done; ls";
    let files = daemon.shell(home, whole);
    assert!(!files.contains("torn"), "{files}");
    for path in &promises.written {
        assert!(
            files.lines().any(|line| path.ends_with(line)),
            "{path} was written and is not among {files}"
        );
    }
}

/// Starts to count, as fast as the reader reads, for as long as `go` is not there.
fn count(daemon: &TestDaemon, home: &str) -> Child {
    let script = "i=0; while [ ! -e /tmp/enough ]; do echo line $i; i=$((i+1)); done; echo end $i";
    daemon.command(&["exec", home, "--", "sh", "-c", script]).stderr(Stdio::inherit()).spawn().unwrap()
}

#[test]
fn killed_at_random_moments_it_keeps_what_it_promised_and_leaves_nothing() {
    let mut dice = Dice(seed());
    let mut daemon = TestDaemon::start();
    let home = daemon.sandbox(&["--id", "home"]);
    let _ = daemon.shell(&home, "touch /workspace/file-x; yes x | head -1000 > /workspace/file-x");
    let can_snapshot = daemon.hostel(&["node", "info"]).success().contains("snapshot,");
    let mut counting = count(&daemon, &home);
    let mut output = counting.stdout.take().unwrap();
    let counted = AtomicU64::new(0);
    let caller = daemon.caller();
    let (serial, promises) = (AtomicU64::new(0), Mutex::new(Promises::default()));
    let (over, up) = (AtomicBool::new(false), AtomicBool::new(true));
    std::thread::scope(|scope| {
        let ends = EndOnDrop(&over);
        scope.spawn(|| check_lines(&mut output, &counted));
        eventually("it counts", || counted.load(Ordering::Relaxed) > 0);
        for kind in [0, 1, 2, if can_snapshot { 3 } else { 2 }, 4] {
            let (caller, over, home, serial, promises) = (&caller, &over, &home, &serial, &promises);
            let up = &up;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if up.load(Ordering::Relaxed) {
                        client(caller, kind, home, serial, promises);
                    } else {
                        // Nobody to talk to; what is under way is enough to begin with.
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            let reached = counted.load(Ordering::Relaxed);
            let life = Duration::from_micros(dice.below(LONGEST_LIFE));
            // The moment is what is random here; nothing is waited for.
            let begin = Instant::now();
            while begin.elapsed() < life {
                std::thread::yield_now();
            }
            daemon.kill();
            up.store(false, Ordering::Relaxed);
            daemon.restart();
            up.store(true, Ordering::Relaxed);
            look(&daemon, &home, &promises);
            eventually("output goes on", || counted.load(Ordering::Relaxed) > reached + LINES);
            let took = begin.elapsed();
            eprintln!("round {round}: {took:?}, lived {life:?}, {} lines", counted.load(Ordering::Relaxed));
        }
        let _ = daemon.shell(&home, "touch /tmp/enough");
        drop(ends);
    });
    look(&daemon, &home, &promises);
    let list = daemon.hostel(&["sandbox", "list", "-q", "--state", "ready"]).success().to_owned();
    let all = daemon.hostel(&["sandbox", "list", "-q"]).success().to_owned();
    assert_eq!(list, all, "something is neither made nor gone");
    for id in &promises.lock().unwrap().created {
        assert_eq!(daemon.shell(id, "echo alive"), "alive");
    }
    assert!(counting.wait().unwrap().success());
    eprintln!("{:?}", promises.lock().unwrap());
    daemon.finish();
}

/// Reads what the counting process writes: every line once and in order.
fn check_lines(output: &mut impl std::io::Read, counted: &AtomicU64) {
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = output.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..length]);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let (line, number) = (String::from_utf8(line).unwrap(), counted.load(Ordering::Relaxed));
            if line == format!("end {number}\n") {
                return;
            }
            assert_eq!(line, format!("line {number}\n"));
            counted.store(number + 1, Ordering::Relaxed);
        }
        assert!(length > 0, "the output ended early");
    }
}

#[test]
fn a_zygote_that_dies_is_replaced_and_its_jails_live_on() {
    let mut daemon = TestDaemon::start();
    let before = daemon.sandbox(&[]);
    let _ = daemon.hostel(&["exec", "-d", &before, "--", "sleep", "1000"]).success();
    for _ in 0..3 {
        let zygotes = children(daemon.pid());
        assert!(!zygotes.is_empty());
        zygotes.into_iter().for_each(|zygote| signal(zygote, Signal::KILL));
        // The creation that it died over may fail, and says that it may be tried again.
        let mut made = None;
        eventually("sandboxes are made again", || {
            let outcome = daemon.hostel(&["sandbox", "create", "-q"]);
            assert!(
                outcome.code == Some(0) || outcome.stderr.contains("zygote is unavailable"),
                "{outcome:?}"
            );
            made = (outcome.code == Some(0)).then(|| outcome.stdout.trim().to_owned());
            made.is_some()
        });
        let made = made.unwrap();
        assert_eq!(daemon.shell(&made, "echo made; cat /proc/net/dev | wc -l"), "made\n3");
        assert_eq!(daemon.shell(&before, "echo still here"), "still here");
    }
    assert!(daemon.hostel(&["ps", &before]).success().contains("running"));
    daemon.finish();
}

/// The first process of a sandbox, as the host numbers it: the parent of a process that has a name of its own.
fn guest_of(daemon: &TestDaemon, id: &str) -> u32 {
    let name = format!("guest-of-{id}");
    let script = format!("exec -a {name} sleep 1000");
    let _ = daemon.hostel(&["exec", "-d", id, "--", "bash", "-c", &script]).success();
    let mut guest = None;
    eventually("it runs", || {
        let found = Command::new("pgrep").args(["-f", &format!("^{name} ")]).output().unwrap();
        let pid: Option<u32> = String::from_utf8(found.stdout).unwrap().trim().parse().ok();
        guest = pid.and_then(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
        });
        guest.is_some()
    });
    guest.unwrap()
}

#[test]
fn a_guest_that_is_silent_while_the_daemon_starts_keeps_its_sandbox() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    let guest = guest_of(&daemon, &id);
    daemon.kill();
    // As on a host that is so busy that it gets no turn.
    signal(guest, Signal::STOP);
    daemon.restart();
    let state = daemon.hostel(&["--json", "sandbox", "get", &id]);
    assert!(state.success().contains("\"ready\""), "{state:?}");
    signal(guest, Signal::CONT);
    assert!(daemon.hostel(&["ps", &id]).success().contains("running"), "what ran before runs still");
    assert_eq!(daemon.shell(&id, "echo fine"), "fine");
    eventually("the log tells", || daemon.log().contains("answers again"));
    daemon.finish();
}

#[test]
fn a_guest_that_dies_long_after_a_process_was_ended_for_memory_has_not_run_out_of_it() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&["--memory", "64M"]);
    let ended = daemon.hostel(&["exec", &id, "--", "tail", "/dev/zero"]);
    assert_eq!(ended.code, Some(137), "{ended:?}");
    let guest = guest_of(&daemon, &id);
    daemon.kill();
    // What was so before a daemon began is over.
    daemon.restart();
    signal(guest, Signal::KILL);
    let mut state = serde_json::Value::Null;
    eventually("it failed", || {
        let got = daemon.hostel(&["--json", "sandbox", "get", &id]);
        state = serde_json::from_str(got.success()).unwrap();
        state["state"] == "failed"
    });
    assert_eq!(state["last_transition"]["reason"], "guest_died", "{state}");
    daemon.finish();
}

#[test]
fn a_sandbox_whose_guest_dies_fails_with_a_reason_and_its_processes_with_it() {
    let mut daemon = TestDaemon::start();
    let (id, other) = (daemon.sandbox(&[]), daemon.sandbox(&[]));
    for away in [false, true] {
        let id = if away { daemon.sandbox(&[]) } else { id.clone() };
        let guest = guest_of(&daemon, &id);
        let attached =
            daemon.command(&["exec", &id, "--", "sh", "-c", "echo attached; sleep 1000"]).spawn().unwrap();
        eventually("it is attached", || daemon.hostel(&["ps", &id]).stdout.matches("running").count() == 2);
        if away {
            daemon.kill();
        }
        signal(guest, Signal::KILL);
        if away {
            daemon.restart();
        }
        let output = attached.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if away {
            // Nobody saw how it ended.
            assert_eq!(output.status.code(), Some(125), "{said}");
        } else {
            assert_eq!(output.status.code(), Some(137), "{said}");
            assert!(said.contains("the sandbox ended before the command did"), "{said}");
        }
        let mut state = serde_json::Value::Null;
        eventually("it failed", || {
            let got = daemon.hostel(&["--json", "sandbox", "get", &id]);
            state = serde_json::from_str(got.success()).unwrap();
            state["state"] == "failed"
        });
        let reason = state["last_transition"]["reason"].as_str().unwrap_or_default().to_owned();
        assert!(["guest_died", "lost_on_restart"].contains(&reason.as_str()), "{state}");
        let refused = daemon.hostel(&["--json", "exec", &id, "--", "true"]);
        assert!(refused.failure(125).contains("SANDBOX_STATE"), "{refused:?}");
        assert_eq!(daemon.shell(&other, "echo undisturbed"), "undisturbed");
        let _ = daemon.hostel(&["sandbox", "rm", &id]).success();
    }
    daemon.finish();
}

#[test]
fn idleness_and_lifetimes_end_sandboxes_across_a_restart() {
    let mut daemon = TestDaemon::start();
    let short = daemon.sandbox(&["--lifetime", "1500ms"]);
    let idle = daemon.sandbox(&["--idle-timeout", "1s"]);
    let busy = daemon.sandbox(&["--idle-timeout", "1s"]);
    let _ = daemon.hostel(&["exec", "-d", &short, "--", "sleep", "1000"]).success();
    let _ = daemon.hostel(&["exec", "-d", &busy, "--", "sleep", "1000"]).success();
    daemon.kill();
    daemon.restart();
    let reason = |id: &str| -> Option<String> {
        let got = daemon.hostel(&["--json", "sandbox", "get", id]);
        let state: serde_json::Value = serde_json::from_str(got.success()).unwrap();
        (state["state"] == "stopped").then(|| state["last_transition"]["reason"].as_str().unwrap().to_owned())
    };
    for (id, why) in [(&short, "deadline"), (&idle, "idle_timeout")] {
        let mut seen = None;
        eventually("it is stopped", || {
            seen = reason(id);
            seen.is_some()
        });
        assert_eq!(seen.as_deref(), Some(why));
    }
    assert!(daemon.hostel(&["ps", &busy]).success().contains("running"), "what runs is not idle");
    daemon.finish();
}
