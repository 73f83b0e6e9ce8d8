//! `hostel` on a terminal behaves as ssh does.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Terminal, TestDaemon, eventually, signal};
use rustix::process::Signal;
use std::process::Stdio;

const INTERRUPT: &str = "\x03";
const END: &str = "\x04";

fn shell(daemon: &TestDaemon, id: &str) -> Terminal {
    let command = daemon.command(&["exec", "-it", "-e", "PS1=ready> ", id, "--", "sh", "-i"]);
    let mut terminal = Terminal::start(&command, 33, 101);
    terminal.expect("ready> ");
    terminal
}

#[test]
fn keys_sizes_and_signals_go_in_and_the_screen_comes_out() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    let mut terminal = shell(&daemon, &id);
    assert!(terminal.is_raw());
    terminal.keys("echo $((40 + 2))x\r");
    terminal.expect("echo $((40 + 2))x");
    terminal.expect("42x");
    terminal.expect("ready> ");
    terminal.keys("stty size\r");
    terminal.expect("33 101");

    // Quotes, so that what is typed does not look like what is printed.
    terminal.keys("sh -c 'trap \"stty size; exit\" WINCH; echo ar\"\"med; while :; do sleep 0.05; done'\r");
    terminal.expect("armed");
    terminal.resize(44, 121);
    terminal.expect("44 121");
    terminal.expect("ready> ");

    terminal.keys("cat\r");
    terminal.keys("marker\r");
    terminal.expect("marker");
    terminal.expect("marker");
    terminal.keys(INTERRUPT);
    terminal.expect("^C");
    terminal.expect("ready> ");
    terminal.keys("echo code $?\r");
    terminal.expect("code 130");
    terminal.expect("ready> ");
    terminal.keys(END);
    terminal.ends_with(0);
    daemon.finish();
}

#[test]
fn every_end_has_its_code_and_restores_the_terminal() {
    let mut daemon = TestDaemon::start();
    let run = |options: &[&str], command: &[&str]| {
        let arguments: Vec<&str> =
            ["run", "-it"].iter().chain(options).chain(&["--"]).chain(command).copied().collect();
        Terminal::start(&daemon.command(&arguments), 24, 80)
    };
    run(&[], &["sh", "-c", "exit 7"]).ends_with(7);
    run(&[], &["sh", "-c", "kill -TERM $$"]).ends_with(143);
    run(&["--timeout", "300ms"], &["sleep", "1000"]).ends_with(124);
    run(&[], &["there-is-no-such-program"]).ends_with(127);
    let mut eater = run(&["--memory", "64M"], &["tail", "/dev/zero"]);
    if daemon.hostel(&["node", "info"]).success().contains("no memory_limit") {
        eprintln!("skipped: this host cannot limit memory");
    } else {
        eater.expect("out of memory");
        eater.ends_with(137);
    }
    drop(eater);
    daemon.finish();
}

#[test]
fn the_terminal_is_restored_however_the_session_breaks_off() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    for signal_number in [Signal::TERM, Signal::HUP] {
        let mut terminal = shell(&daemon, &id);
        signal(terminal.command_pid(), signal_number);
        // To what is inside it is as if its terminal were closed.
        terminal.ends_with(129);
    }
    let mut terminal = shell(&daemon, &id);
    let _ = daemon.hostel(&["sandbox", "rm", &id]).success();
    terminal.ends_with(137);
    daemon.finish();
}

#[test]
fn a_session_goes_on_with_the_next_daemon_and_says_so_once() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    let mut terminal = shell(&daemon, &id);
    daemon.kill();
    terminal.expect("hostel: reconnecting to the daemon…\r\n");
    daemon.restart();
    terminal.expect("hostel: connected to the daemon again\r\n");
    terminal.keys("echo $((6 * 7))y\r");
    terminal.expect("42y");
    terminal.keys("exit 5\r");
    terminal.ends_with(5);

    for (options, told) in [(&["-v"][..], 1), (&[], 0), (&["-v", "--json"], 0)] {
        let wait = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done";
        let arguments: Vec<&str> =
            options.iter().chain(&["exec", &id, "--", "sh", "-c", wait]).copied().collect();
        let child = daemon.command(&arguments).stdin(Stdio::null()).spawn().unwrap();
        eventually("it runs", || daemon.hostel(&["ps", &id]).stdout.matches("running").count() == 1);
        daemon.kill();
        daemon.restart();
        let _ = daemon.shell(&id, "touch /tmp/go");
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert_eq!(errors.matches("reconnecting to the daemon…").count(), told, "{errors}");
        assert_eq!(errors.matches("connected to the daemon again").count(), told, "{errors}");
        let _ = daemon.shell(&id, "rm /tmp/go");
    }
    daemon.finish();
}

#[test]
fn whoever_only_looks_on_changes_no_size() {
    let mut daemon = TestDaemon::start();
    let id = daemon.sandbox(&[]);
    let mut terminal = shell(&daemon, &id);
    let process = daemon.hostel(&["ps", "-q", &id]).success().to_owned();
    let mut other = Terminal::start(&daemon.command(&["attach", &id, &process]), 11, 22);
    other.expect("ready> ");
    terminal.keys("stty size\r");
    terminal.expect("33 101");
    other.expect("33 101");
    other.keys(INTERRUPT);
    other.expect("goes on");
    terminal.keys("exit 0\r");
    terminal.ends_with(0);
    daemon.finish();
}

#[test]
fn a_secret_that_is_typed_is_not_shown() {
    let mut daemon = TestDaemon::start();
    let put = || Terminal::start(&daemon.command(&["secret", "put", "token"]), 24, 80);
    let mut given_up = put();
    given_up.expect("value of token");
    given_up.keys(INTERRUPT);
    given_up.ends_with(130);
    assert_eq!(daemon.hostel(&["--json", "secret", "list"]).success(), r#"{"secrets":[]}"#);
    let mut terminal = put();
    terminal.expect("value of token");
    terminal.keys("hunter2 and more\r");
    terminal.ends_with(0);
    assert!(!terminal.screen().contains("hunter2"), "{}", terminal.screen());
    assert!(daemon.hostel(&["secret", "list"]).success().contains("token"));
    drop((given_up, terminal));
    daemon.finish();
}
