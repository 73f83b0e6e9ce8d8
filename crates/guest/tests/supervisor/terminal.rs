//! Terminals.

use crate::client::{Client, Guest, Told, everything, spec};
use hostel_guest_protocol::{
    Ask, Empty, ExitReason, FailureKind, HostEvent, ProcessSpec, Resize, TerminalSize,
};

fn on_terminal(id: &str, argv: &[&str]) -> ProcessSpec {
    let terminal = Some(TerminalSize { rows: 30, columns: 100 });
    ProcessSpec { terminal, stdin: true, ..spec(id, argv) }
}

fn read_until(client: &mut Client, wanted: &str) -> String {
    let mut seen = Vec::new();
    loop {
        if String::from_utf8_lossy(&seen).contains(wanted) {
            return String::from_utf8_lossy(&seen).into_owned();
        }
        match client.told() {
            Some(Told::Data(stream, offset, data)) => {
                seen.extend(&data);
                client.ack(stream, offset + data.len() as u64);
            }
            Some(Told::Event(hostel_guest_protocol::GuestEvent::Exited(_))) | None => {
                panic!("{:?}", String::from_utf8_lossy(&seen))
            }
            Some(Told::Event(_)) => {}
        }
    }
}

#[test]
fn a_terminal_is_one_and_has_its_size() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let line = "tty; stty size; echo $TERM; read word; stty size; echo got $word; echo err >&2; exit 4";
    client.exec(on_terminal("t", &["/bin/sh", "-c", line]), everything()).unwrap();
    let text = read_until(&mut client, "xterm-256color");
    assert!(text.contains("/dev/pts/") && text.contains("30 100"), "{text}");
    let size = TerminalSize { rows: 50, columns: 70 };
    client.tell(HostEvent::Resize(size));
    client.input(0, b"word\n");
    let finished = client.finish();
    let text = finished.text();
    assert!(text.contains("50 70") && text.contains("got word") && text.contains("err"), "{text}");
    assert!(finished.stderr.is_empty());
    assert_eq!(finished.exit.code, Some(4));
}

#[test]
fn control_c_interrupts_the_foreground() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(on_terminal("c", &["/bin/sh", "-c", "echo ready; exec sleep 100"]), everything()).unwrap();
    read_until(&mut client, "ready");
    client.input(0, b"\x03");
    let exit = client.finish().exit;
    assert_eq!((exit.reason(), exit.signal), (ExitReason::Signaled, Some(libc::SIGINT)));
}

#[test]
fn the_end_of_input_reaches_a_terminal() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client
        .exec(on_terminal("e", &["/bin/sh", "-c", "stty -echo; echo ready; cat; echo over"]), everything())
        .unwrap();
    read_until(&mut client, "ready");
    client.input(0, b"half a line");
    client.close_input();
    let text = client.finish().text();
    assert!(text.contains("half a line") && text.contains("over"), "{text}");
}

#[test]
fn a_resize_needs_a_terminal() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.start(spec("p", &["sleep", "10"])).unwrap();
    client.start(on_terminal("t", &["sleep", "10"])).unwrap();
    let size = Some(TerminalSize { rows: 1, columns: 1 });
    let failure = client.ask(Ask::Resize(Resize { id: "p".into(), size })).unwrap_err();
    assert_eq!((failure.kind(), failure.reason.as_str()), (FailureKind::WrongState, "NO_TERMINAL"));
    client.ask(Ask::Resize(Resize { id: "t".into(), size })).unwrap();
}

#[test]
fn a_terminal_that_is_opened_again_is_shown() {
    let guest = Guest::start();
    let [closed, open, over] = ["closed", "open", "over"].map(|name| guest.path(name));
    let made = std::process::Command::new("mkfifo").args([&closed, &open, &over]).status().unwrap();
    assert!(made.success());
    let line = format!(
        "tty=$(tty); echo ready; exec < /dev/null > /dev/null 2>&1; read word < {closed}; \
         read word < {open}; echo once > $tty; echo more > $tty; read word < {over}"
    );
    let mut client = guest.connect();
    client.exec(on_terminal("t", &["/bin/sh", "-c", &line]), everything()).unwrap();
    read_until(&mut client, "ready");
    // Whoever opens the other end has closed the terminal, and who answers has seen that.
    std::fs::write(&closed, "go\n").unwrap();
    let mut other = guest.connect();
    other.ask(Ask::Ping(Empty {})).unwrap();
    other.ask(Ask::Ping(Empty {})).unwrap();
    std::fs::write(&open, "go\n").unwrap();
    let text = read_until(&mut client, "more");
    assert!(text.contains("once"), "{text}");
    std::fs::write(&over, "go\n").unwrap();
    assert_eq!(client.finish().exit.code, Some(0));
}
