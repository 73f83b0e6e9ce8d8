//! Output: kept, held, resumed, missing; and input.

use crate::client::{Guest, Told, eventually, everything, pause, spec};
use hostel_guest_protocol::{
    Attach, Empty, FailureKind, Gap, GuestConfig, GuestEvent, HostEvent, ProcessSpec, STDIN_WINDOW, StreamId,
};
use std::time::{Duration, Instant};

/// Numbers from 1, one a line.
fn numbers(count: u64) -> Vec<u8> {
    (1..=count).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

fn small() -> GuestConfig {
    GuestConfig { ring_bytes: 64 << 10, spill_bytes: 256 << 10, ..GuestConfig::default() }
}

#[test]
fn much_output_arrives_whole_and_in_order() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(spec("", &["seq", "1000000"]), everything()).unwrap();
    let finished = client.finish();
    assert!(finished.stdout == numbers(1_000_000), "{} bytes", finished.stdout.len());
    assert!(finished.gaps.is_empty());
}

#[test]
fn a_gigabyte_goes_through_fast() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let total: u64 = if cfg!(debug_assertions) { 64 << 20 } else { 2 << 30 };
    let before = Instant::now();
    let count = format!("count={}", total >> 20);
    client.exec(spec("", &["dd", "if=/dev/zero", "bs=1M", "status=none", &count]), everything()).unwrap();
    let mut seen = 0;
    loop {
        match client.told().unwrap() {
            Told::Data(_, offset, data) => {
                assert_eq!(offset, seen);
                seen += data.len() as u64;
                client.ack(StreamId::Stdout, seen);
            }
            Told::Event(GuestEvent::Exited(_)) => break,
            Told::Event(_) => {}
        }
    }
    assert_eq!(seen, total);
    let ours = std::fs::read_to_string(format!("/proc/{}/stat", guest.child.id())).unwrap();
    let ticks: Vec<&str> = ours.split(' ').collect();
    eprintln!(
        "{:.2} GB/s; the guest's ticks: {} + {}",
        total as f64 / 1e9 / before.elapsed().as_secs_f64(),
        ticks[13],
        ticks[14]
    );
}

#[test]
fn a_reader_that_does_not_acknowledge_stops_the_process_and_loses_nothing() {
    let guest = Guest::with(small());
    let mut client = guest.connect();
    client.exec(spec("slow", &["seq", "300000"]), everything()).unwrap();
    let mut observer = guest.connect();
    let end = |observer: &mut crate::client::Client| observer.get("slow").unwrap().stdout_end;
    eventually("the ring is full", || end(&mut observer) >= 60 << 10);
    pause(Duration::from_millis(100));
    assert!(end(&mut observer) <= 64 << 10, "held back");
    // The connection breaks without a word; a new one goes on where the old one was.
    let mut seen = Vec::new();
    while seen.len() < 10_000 {
        if let Some(Told::Data(_, _, data)) = client.told() {
            seen.extend(data);
        }
    }
    client.ack(StreamId::Stdout, 5_000);
    drop(client);
    pause(Duration::from_millis(100));
    assert!(observer.get("slow").unwrap().exit.is_none(), "still held");
    seen.truncate(5_000);
    let mut again = guest.connect();
    again.attach("slow", Attach { stdout_from: Some(5_000), ..everything() }).unwrap();
    let finished = again.finish();
    assert!(finished.gaps.is_empty());
    seen.extend(finished.stdout);
    assert!(seen == numbers(300_000));
}

#[test]
fn without_readers_the_newest_is_kept_and_the_rest_is_a_gap() {
    let guest = Guest::with(small());
    let mut client = guest.connect();
    let all = numbers(300_000);
    client.start(spec("g", &["seq", "300000"])).unwrap();
    client.wait("g").unwrap();
    eventually("everything was read", || client.get("g").unwrap().stdout_end == all.len() as u64);
    let start = client.get("g").unwrap().stdout_start;
    let kept = all.len() as u64 - start;
    assert!((256 << 10..=320 << 10).contains(&kept), "{kept} bytes kept");
    client.attach("g", everything()).unwrap();
    let finished = client.finish();
    assert_eq!(finished.gaps, [Gap { stream: 1, from: 0, to: start }]);
    assert!(finished.stdout == all[usize::try_from(start).unwrap()..]);
}

#[test]
fn what_was_read_once_can_be_read_again() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(spec("r", &["seq", "1000"]), everything()).unwrap();
    assert_eq!(client.finish().stdout, numbers(1000));
    let mut again = guest.connect();
    again.attach("r", Attach { stdout_from: Some(100), ..Attach::default() }).unwrap();
    let finished = again.finish();
    assert_eq!(finished.stdout, numbers(1000)[100..]);
    assert_eq!(finished.exit.code, Some(0));
    let mut late = guest.connect();
    late.attach("r", Attach::default()).unwrap();
    assert!(late.finish().stdout.is_empty(), "from now on");
}

#[test]
fn the_rate_holds() {
    let guest = Guest::with(GuestConfig { output_bytes_per_second: 1 << 20, ..GuestConfig::default() });
    let before = Instant::now();
    let finished = guest.shell("head -c 2500000 /dev/zero");
    assert_eq!(finished.stdout.len(), 2_500_000);
    let took = before.elapsed().as_secs_f64();
    assert!((1.2..4.0).contains(&took), "one second's worth at once, the rest at the rate: {took}");
}

#[test]
fn input_goes_in_and_ends() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(ProcessSpec { stdin: true, ..spec("", &["cat"]) }, everything()).unwrap();
    client.input(0, b"hello ");
    client.input(3, b"lo world");
    client.input(0, b"hel");
    client.close_input();
    let finished = client.finish();
    assert_eq!(finished.text(), "hello world");
}

#[test]
fn without_input_it_is_at_its_end() {
    let guest = Guest::start();
    assert_eq!(guest.shell("cat; echo over").text(), "over\n");
}

#[test]
fn input_larger_than_any_buffer_comes_back() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(ProcessSpec { stdin: true, ..spec("", &["cat"]) }, everything()).unwrap();
    let all = numbers(1_000_000);
    let (mut seen, mut sent, mut accepted) = (Vec::new(), 0, 0);
    while seen.len() < all.len() {
        let window = usize::try_from(accepted + STDIN_WINDOW).unwrap().min(all.len());
        if sent < window {
            client.input(sent as u64, &all[sent..window]);
            sent = window;
        }
        match client.told().unwrap() {
            Told::Event(GuestEvent::StdinAccepted(offset)) => accepted = offset,
            Told::Data(_, _, data) => {
                seen.extend(data);
                client.ack(StreamId::Stdout, seen.len() as u64);
            }
            Told::Event(other) => panic!("{other:?}"),
        }
    }
    client.close_input();
    assert_eq!(client.finish().exit.code, Some(0));
    assert!(seen == all);
}

#[test]
fn one_writer_at_a_time() {
    let guest = Guest::start();
    let (mut first, mut second) = (guest.connect(), guest.connect());
    first.exec(ProcessSpec { stdin: true, ..spec("one", &["cat"]) }, everything()).unwrap();
    first.input(0, b"first ");
    let held = second.attach("one", everything()).unwrap_err();
    assert_eq!((held.kind(), held.reason.as_str()), (FailureKind::WrongState, "STDIN_HELD"));
    eventually("it was taken", || guest.connect().get("one").unwrap().stdin_offset == 6);
    let process = second.attach("one", Attach { takeover: true, ..everything() }).unwrap();
    assert_eq!(process.stdin_offset, 6);
    loop {
        match first.told() {
            Some(Told::Event(GuestEvent::StdinTaken(Empty {}))) => break,
            Some(_) => {}
            None => panic!("the first is not told"),
        }
    }
    first.input(6, b"ignored");
    second.input(6, b"second");
    second.close_input();
    assert_eq!(second.finish().text(), "first second");
}

#[test]
fn a_hole_in_the_input_ends_the_connection_and_nothing_else() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.exec(ProcessSpec { stdin: true, ..spec("h", &["cat"]) }, everything()).unwrap();
    client.input(10, b"late");
    let Some(Told::Event(GuestEvent::Failed(failure))) = client.told() else { panic!("a failure") };
    assert_eq!(failure.kind(), FailureKind::Invalid);
    assert_eq!(client.told(), None);
    let mut again = guest.connect();
    again.attach("h", everything()).unwrap();
    again.input(0, b"whole");
    again.close_input();
    assert_eq!(again.finish().text(), "whole");
}

#[test]
fn a_detached_reader_holds_nothing() {
    let guest = Guest::with(small());
    let mut client = guest.connect();
    client.exec(spec("d", &["seq", "300000"]), everything()).unwrap();
    client.tell(HostEvent::Detach(Empty {}));
    let mut observer = guest.connect();
    let exit = observer.wait("d").unwrap().exit.unwrap();
    assert_eq!(exit.code, Some(0));
}
