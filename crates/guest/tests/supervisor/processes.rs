//! Starting, ending, waiting.

use crate::client::{Guest, Told, eventually, everything, pause, spec};
use hostel_guest_protocol::{
    Answer, Ask, Attach, Empty, ExitReason, FailureKind, GuestConfig, GuestEvent, HostEvent, ProcessSpec,
    Signal,
};
use std::time::{Duration, Instant};

#[test]
fn echo_says_what_it_was_told() {
    let guest = Guest::start();
    let finished = guest.shell("echo out; echo err >&2; exit 3");
    assert_eq!((finished.text().as_str(), &finished.stderr[..]), ("out\n", &b"err\n"[..]));
    assert_eq!((finished.exit.reason(), finished.exit.code), (ExitReason::Exited, Some(3)));
    assert!(finished.exit.max_rss_bytes > 0);
}

#[test]
fn a_connection_takes_requests_again_after_the_end() {
    let guest = Guest::start();
    let mut client = guest.connect();
    for round in 0..3 {
        let id = format!("p{round}");
        client.exec(spec(&id, &["echo", &id]), Attach { stdin: true, ..everything() }).unwrap();
        // What is said before the return is of the attachment, however late.
        assert_eq!(client.finish().text(), format!("{id}\n"));
        client.input(0, b"too late");
        client.tell(HostEvent::Return(Empty {}));
        assert_eq!(client.ask(Ask::Ping(Empty {})).unwrap(), Answer::Done(Empty {}));
    }
    client.exec(spec("early", &["true"]), Attach::default()).unwrap();
    client.finish();
    let mut other = guest.connect();
    for _ in 0..300 {
        let id = other.start(spec("", &["true"])).unwrap().id;
        other.wait(&id).unwrap();
    }
    assert_eq!(other.get("early").unwrap_err().kind(), FailureKind::NotFound);
    client.tell(HostEvent::Return(Empty {}));
    assert_eq!(client.ask(Ask::Ping(Empty {})).unwrap(), Answer::Done(Empty {}), "also when it is forgotten");
    client.exec(spec("long", &["sleep", "60"]), Attach::default()).unwrap();
    client.tell(HostEvent::Return(Empty {}));
    assert_eq!(client.told(), None, "before the end it is a farewell");
    assert!(guest.connect().get("long").unwrap().exit.is_none());
}

#[test]
fn a_process_has_its_own_session_and_nothing_of_ours() {
    let guest = Guest::with(GuestConfig {
        env: [("FROM_CONFIG".to_owned(), "yes".to_owned())].into(),
        open_files: 77,
        workdir: "/tmp".into(),
        ..GuestConfig::default()
    });
    let line = "ls /proc/self/fd | tr '\\n' ' '; ulimit -n; umask; echo $FROM_CONFIG $PWD $HOME; \
                grep -E 'Cap(Eff|Prm|Amb)|SigIgn|SigBlk' /proc/self/status; ps -o sid= -p $$ | tr -d ' '; echo $$";
    let text = guest.shell(line).text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("0 1 2 3 ") && lines[0].ends_with(" 77"), "{text}");
    assert_eq!(lines[1], "0022");
    assert!(lines[2].starts_with("yes /tmp /"), "{text}");
    for line in &lines[3..8] {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    assert_eq!(lines[8], lines[9], "a session of its own");
}

#[test]
fn failures_say_what_was_wrong() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let kind = |result: Result<_, hostel_guest_protocol::Failure>| {
        let failure = result.map(|_: hostel_guest_protocol::Process| ()).unwrap_err();
        (failure.kind(), failure.reason)
    };
    let of = |kind, reason: &str| (kind, reason.to_owned());
    assert_eq!(kind(client.start(spec("a", &["no-such-program"]))), of(FailureKind::NotFound, "program"));
    assert_eq!(kind(client.start(spec("a", &["/etc/passwd"]))), of(FailureKind::Invalid, "argv"));
    assert_eq!(kind(client.start(spec("a", &[]))), of(FailureKind::Invalid, "argv"));
    let bad = ProcessSpec { cwd: "/nowhere".into(), ..spec("a", &["true"]) };
    assert_eq!(kind(client.start(bad)), of(FailureKind::Invalid, "cwd"));
    let bad = ProcessSpec { user: "nobody-here".into(), ..spec("a", &["true"]) };
    assert_eq!(kind(client.start(bad)), of(FailureKind::Invalid, "user"));
    let bad = ProcessSpec { env: [("A=B".to_owned(), String::new())].into(), ..spec("a", &["true"]) };
    assert_eq!(kind(client.start(bad)), of(FailureKind::Invalid, "env"));
    let script = guest.path("script");
    std::fs::write(&script, "#!/no/interpreter\n").unwrap();
    std::process::Command::new("chmod").args(["+x", &script]).status().unwrap();
    assert_eq!(kind(client.start(spec("a", &[&script]))), of(FailureKind::NotFound, "program"));
    assert_eq!(kind(client.get("a")), of(FailureKind::NotFound, "process"));
    client.start(spec("a", &["true"])).unwrap();
    assert_eq!(kind(client.start(spec("a", &["true"]))), of(FailureKind::Exists, "process"));
}

#[test]
fn a_signal_ends_the_whole_group() {
    let guest = Guest::start();
    let (mut client, mut other) = (guest.connect(), guest.connect());
    client.exec(spec("s", &["/bin/sh", "-c", "sleep 100 & echo $!; wait"]), everything()).unwrap();
    let Some(Told::Data(_, 0, pid)) = client.told() else { panic!("a number") };
    other.ask(Ask::Signal(Signal { id: "s".into(), signal: libc::SIGTERM })).unwrap();
    let finished = client.finish();
    assert_eq!((finished.exit.reason(), finished.exit.signal), (ExitReason::Signaled, Some(libc::SIGTERM)));
    let child = format!("/proc/{}", String::from_utf8(pid).unwrap().trim());
    eventually("the child is gone", || !std::path::Path::new(&child).exists());
    let late = other.ask(Ask::Signal(Signal { id: "s".into(), signal: 15 })).unwrap_err();
    assert_eq!((late.kind(), late.reason.as_str()), (FailureKind::WrongState, "PROCESS_ENDED"));
    let wrong = other.ask(Ask::Signal(Signal { id: "s".into(), signal: 99 })).unwrap_err();
    assert_eq!(wrong.kind(), FailureKind::Invalid);
}

#[test]
fn a_timeout_ends_it_and_says_so() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let timed = ProcessSpec { timeout_ms: 100, ..spec("", &["sleep", "100"]) };
    let before = Instant::now();
    client.exec(timed, everything()).unwrap();
    let exit = client.finish().exit;
    assert_eq!((exit.reason(), exit.signal), (ExitReason::TimedOut, Some(libc::SIGTERM)));
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[test]
fn one_that_ignores_the_timeout_is_killed() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let line = "trap '' TERM; while :; do sleep 0.1; done";
    let timed = ProcessSpec { timeout_ms: 50, ..spec("", &["/bin/sh", "-c", line]) };
    client.exec(timed, everything()).unwrap();
    let exit = client.finish().exit;
    assert_eq!((exit.reason(), exit.signal), (ExitReason::TimedOut, Some(libc::SIGKILL)));
}

#[test]
fn a_child_that_keeps_the_pipe_open_does_not_delay_the_end() {
    let guest = Guest::start();
    let before = Instant::now();
    let finished = guest.shell("echo before; sleep 30 & exit 0");
    assert_eq!(finished.text(), "before\n");
    assert!(before.elapsed() < Duration::from_secs(2));
    // Nor does one that writes all the time.
    let finished = guest.shell("yes & exit 0");
    assert_eq!(finished.exit.code, Some(0));
    assert!(before.elapsed() < Duration::from_secs(8));
}

#[test]
fn wait_answers_at_the_end_and_only_then() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.start(spec("w", &["/bin/sh", "-c", "sleep 0.2; exit 9"])).unwrap();
    assert!(client.get("w").unwrap().exit.is_none());
    assert_eq!(client.wait("w").unwrap().exit.unwrap().code, Some(9));
    assert_eq!(client.wait("w").unwrap().exit.unwrap().code, Some(9));
    let Answer::Activity(activity) = client.ask(Ask::GetActivity(Empty {})).unwrap() else { panic!() };
    assert_eq!(activity.running, 0);
}

#[test]
fn a_disconnect_kills_only_where_that_was_asked_for() {
    let guest = Guest::start();
    let mut observer = guest.connect();
    for (id, kill) in [("kill", true), ("keep", false)] {
        let mut client = guest.connect();
        client
            .exec(ProcessSpec { kill_on_disconnect: kill, ..spec(id, &["sleep", "60"]) }, everything())
            .unwrap();
    }
    let exit = observer.wait("kill").unwrap().exit.unwrap();
    assert_eq!((exit.reason(), exit.signal), (ExitReason::Signaled, Some(libc::SIGKILL)));
    pause(Duration::from_millis(50));
    assert!(observer.get("keep").unwrap().exit.is_none());
}

#[test]
fn a_thousand_quick_processes_in_a_row_and_many_at_once() {
    let guest = Guest::start();
    let before = Instant::now();
    for number in 0..1000 {
        let mut client = guest.connect();
        client.exec(spec(&format!("q-{number}"), &["/bin/echo", &number.to_string()]), everything()).unwrap();
        let finished = client.finish();
        assert_eq!(finished.text(), format!("{number}\n"));
    }
    let ours = before.elapsed() / 1000;
    let before = Instant::now();
    for _ in 0..200 {
        assert!(std::process::Command::new("/bin/echo").arg("x").output().unwrap().status.success());
    }
    eprintln!("{ours:?} each with a connection, {:?} without any guest", before.elapsed() / 200);
    let mut clients: Vec<_> = (0..100).map(|_| guest.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let line = format!("sleep 0.0{}; echo {number}", number % 10);
        client.exec(spec(&format!("m-{number}"), &["/bin/sh", "-c", &line]), everything()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.finish().text(), format!("{number}\n"));
    }
    let Answer::Processes(all) = guest.connect().ask(Ask::ListProcesses(Empty {})).unwrap() else { panic!() };
    assert_eq!(all.processes.len(), 256, "the newest are remembered");
}

#[test]
fn orphans_are_reaped() {
    let guest = Guest::start();
    guest.shell("(sleep 0.05 & ) ; (sleep 0.05 & ) ; exit 0");
    let children = format!("/proc/{0}/task/{0}/children", guest.child.id());
    eventually("no child is left", || std::fs::read_to_string(&children).unwrap().trim().is_empty());
}

#[test]
fn shutdown_ends_everything() {
    let mut guest = Guest::start();
    let mut client = guest.connect();
    client.start(spec("a", &["sleep", "1000"])).unwrap();
    client.start(spec("b", &["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])).unwrap();
    let pid = client.get("b").unwrap().pid;
    client.ask(Ask::Shutdown(Empty {})).unwrap();
    assert_eq!(client.start(spec("c", &["true"])).unwrap_err().kind(), FailureKind::WrongState);
    assert!(guest.child.wait().unwrap().success());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_terminated_guest_lets_the_reader_know_how_it_ended() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(spec("", &["sleep", "1000"]), Attach::default()).unwrap();
    // SAFETY: plain kill(2) on our own child.
    unsafe { libc::kill(guest.child.id().cast_signed(), libc::SIGTERM) };
    let told = client.told();
    assert!(matches!(told, Some(Told::Event(GuestEvent::Exited(_)))), "{told:?}");
}

#[test]
fn root_can_let_others_run_and_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let guest = Guest::with(GuestConfig {
        can_switch_user: true,
        user: "1234:2345".into(),
        workdir: "/tmp".into(),
        ..GuestConfig::default()
    });
    std::fs::set_permissions(guest.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    let text = guest.shell("id -u; id -g; id -G; grep CapEff /proc/self/status; echo $HOME $USER").text();
    assert_eq!(text, "1234\n2345\n2345\nCapEff:\t0000000000000000\n/ 1234\n");
    let mut client = guest.connect();
    let as_root =
        ProcessSpec { user: "root".into(), ..spec("", &["/bin/sh", "-c", "id -u; echo $HOME; id -G"]) };
    let process = client.exec(as_root, everything()).unwrap();
    assert_eq!((process.user.as_str(), process.cwd.as_str()), ("root", "/tmp"));
    assert!(client.finish().text().starts_with("0\n/root\n0"));
    let mut client = guest.connect();
    let make = hostel_guest_protocol::MakeDirectory { path: guest.path("d"), parents: false, mode: None };
    let Answer::File(made) = client.ask(Ask::MakeDirectory(make)).unwrap() else { panic!() };
    assert_eq!((made.uid, made.gid, made.mode), (1234, 2345, 0o755));
    let no_switch = Guest::start();
    let other = ProcessSpec { user: "1234".into(), ..spec("", &["true"]) };
    assert_eq!(no_switch.connect().start(other).unwrap_err().kind(), FailureKind::Invalid);
}

#[test]
fn more_processes_than_descriptors_used_to_be() {
    let guest = Guest::start();
    let mut client = guest.connect();
    for number in 0..400 {
        client.start(spec(&format!("n-{number}"), &["sleep", "30"])).unwrap();
    }
    assert_eq!(guest.shell("ulimit -n").text().trim().parse::<u64>().unwrap(), {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap()
    });
}

#[test]
fn as_process_number_one_it_cannot_be_killed_from_inside_and_takes_all_with_it() {
    let Some(mut guest) = Guest::as_init() else { return };
    let text = guest
        .shell("for s in TERM INT KILL HUP USR1 SEGV; do kill -$s 1; done; kill -KILL -1; echo alive")
        .text();
    // The last one kills the shell itself, but nothing else.
    assert!(text.is_empty() || text == "alive\n");
    let mut client = guest.connect();
    assert_eq!(guest.shell("cat /proc/1/comm").text(), "hostel-guest\n");
    for door in ["cat /proc/1/mem", "cat /proc/1/environ", "cat /proc/1/exe", "ls /proc/1/root/"] {
        assert_ne!(guest.shell(door).exit.code, Some(0), "{door}");
    }
    // A double-forked daemon is reaped and dies with the rest.
    guest.shell("setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' >/dev/null 2>&1 & exit 0");
    eventually("the daemon is ours", || {
        guest.shell("ps -eo ppid=,args= | grep -c '^ *1 sh -c trap'").text() == "1\n"
    });
    let before = Instant::now();
    client.ask(Ask::Shutdown(Empty {})).unwrap();
    assert!(guest.child.wait().unwrap().success());
    assert!(before.elapsed() >= Duration::from_millis(1900), "it had its grace");
}
