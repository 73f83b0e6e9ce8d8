//! One request, one answer.

use super::script::*;
use crate::Guest;
use hostel_guest_protocol::{
    Answer, Ask, Empty, FailureKind, Files, HEADER_LEN, Process, Processes, StreamId, VERSION, Welcome,
};
use hostel_sandbox::process::ExitReason;
use hostel_sandbox::{Error, Files as _, Processes as _};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::join;
use tokio::sync::oneshot;

#[tokio::test]
async fn a_connection_is_kept_and_used_again() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        for _ in 0..3 {
            assert!(matches!(peer.ask().await, Ask::Ping(_)));
            peer.reply(Answer::Done(Empty {})).await;
        }
    };
    let ask = async {
        for _ in 0..3 {
            guest.ping(Duration::from_secs(1)).await.unwrap();
        }
    };
    join!(serve, ask);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply(Answer::Done(Empty {})).await;
        drop(peer);
        // This one dies only after the request was taken.
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply(Answer::Done(Empty {})).await;
        peer.ask().await;
        drop(peer);
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply(Answer::Done(Empty {})).await;
    };
    let ask = async {
        for _ in 0..3 {
            guest.ping(Duration::from_secs(1)).await.unwrap();
        }
    };
    join!(serve, ask);
}

#[tokio::test]
async fn a_call_that_was_dropped_leaves_no_answer_to_the_next() {
    let (guest, script) = guest();
    let serve = async {
        let mut first = script.accept().await;
        first.ask().await;
        first.closed().await;
        let mut second = script.accept().await;
        assert!(matches!(second.ask().await, Ask::Stat(_)));
        second.reply(Answer::File(file("/a"))).await;
    };
    let ask = async {
        let dropped = tokio::time::timeout(Duration::from_millis(50), guest.processes()).await;
        assert!(dropped.is_err());
        assert_eq!(guest.stat("/a", true).await.unwrap().path, "/a");
    };
    join!(serve, ask);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_after_half_a_minute() {
    let (guest, script) = guest();
    let start = tokio::time::Instant::now();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.closed().await;
    };
    let (error, ()) = join!(async { guest.stat("/a", true).await.unwrap_err() }, serve);
    assert!(is_gone(&error), "{error}");
    assert_eq!(start.elapsed().as_secs(), 30);
    // Not even a greeting.
    let (error, _peer) =
        join!(async { guest.ping(Duration::from_secs(2)).await.unwrap_err() }, script.accept_silently(),);
    assert!(is_gone(&error), "{error}");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_process_has_no_deadline() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        tokio::time::sleep(Duration::from_secs(1 << 20)).await;
        let process = hostel_guest_protocol::Process { exit: Some(exit(3)), ..process("p") };
        peer.reply(Answer::Process(process)).await;
    };
    let (p, ()) = (id("p"), ());
    let (ended, ()) = join!(guest.wait(&p), serve);
    let status = ended.unwrap().exit.unwrap();
    assert_eq!((status.reason, status.code), (ExitReason::Exited, Some(3)));
}

#[tokio::test]
async fn failures_become_errors() {
    let (guest, script) = guest();
    let cases = [
        (FailureKind::Invalid, "cwd", "INVALID_ARGUMENT"),
        (FailureKind::NotFound, "", "NOT_FOUND"),
        (FailureKind::Exists, "", "ALREADY_EXISTS"),
        (FailureKind::WrongState, "STDIN_HELD", "STDIN_HELD"),
        (FailureKind::WrongState, "MADE_UP", "GUEST_STATE"),
        (FailureKind::Limit, "disk", "LIMIT_REACHED"),
        (FailureKind::Denied, "", "PERMISSION_DENIED"),
        (FailureKind::Internal, "", "INTERNAL"),
    ];
    let serve = async {
        let mut peer = script.accept().await;
        for (kind, reason, _) in cases {
            peer.ask().await;
            peer.reply(failed(kind, reason)).await;
        }
        peer.ask().await;
        let failure = hostel_guest_protocol::Failure { kind: 77, ..Default::default() };
        peer.reply(Answer::Failed(failure)).await;
    };
    let ask = async {
        for (_, _, reason) in cases {
            let error = guest.start(spec(&["nope"])).await.unwrap_err();
            assert_eq!(error.reason(), reason);
            assert!(!error.to_string().contains('\n'));
            if let Error::NotFound { kind, id } = &error {
                assert_eq!((*kind, id.as_str()), ("program", "nope"));
            }
        }
        assert!(is_protocol(&guest.start(spec(&["nope"])).await.unwrap_err()));
    };
    join!(serve, ask);
}

#[tokio::test]
async fn an_id_is_made_where_none_was_given() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        let Ask::Start(spec) = peer.ask().await else { panic!() };
        assert!(spec.id.starts_with("p-"));
        peer.reply(Answer::Process(process(&spec.id))).await;
    };
    let (info, ()) = join!(guest.start(spec(&["sh"])), serve);
    assert!(info_of(info).id.as_str().starts_with("p-"));
}

/// Answers a request for process `p` with those bytes, and expects to have broken the rules.
async fn refuses(bytes: Vec<u8>) {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.raw(&bytes).await;
        peer.closed().await;
    };
    let p = id("p");
    let ask = async {
        let result = guest.process(&p).await;
        guest.close().await;
        result.unwrap_err()
    };
    let (error, ()) = join!(ask, serve);
    assert!(is_protocol(&error), "{error}");
}

fn reply(answer: Answer) -> Vec<u8> {
    let reply = hostel_guest_protocol::Reply { answer: Some(answer) };
    hostel_guest_protocol::frame::encode_message(&reply)
}

#[tokio::test]
async fn lies_are_told_apart_from_answers() {
    use hostel_guest_protocol::Process;
    refuses(reply(Answer::Done(Empty {}))).await;
    refuses(reply(Answer::File(file("/")))).await;
    refuses(reply(Answer::Process(process("q")))).await;
    refuses(reply(Answer::Process(process("../q")))).await;
    refuses(reply(Answer::Process(Process { stdout_start: 2, stdout_end: 1, ..process("p") }))).await;
    let long = |length| "/".repeat(length);
    for liar in [
        Process { stdin_offset: u64::MAX, ..process("p") },
        Process { user: "a\u{1b}[31m".to_owned(), ..process("p") },
        Process { user: long(257), ..process("p") },
        Process { cwd: "relative".to_owned(), ..process("p") },
        Process { cwd: "/a\0b".to_owned(), ..process("p") },
        Process { cwd: long(4097), ..process("p") },
    ] {
        refuses(reply(Answer::Process(liar))).await;
    }
    let lies = [
        hostel_guest_protocol::Exit { reason: 9, ..exit(0) },
        hostel_guest_protocol::Exit { code: Some(256), ..exit(0) },
        hostel_guest_protocol::Exit { code: None, ..exit(0) },
        hostel_guest_protocol::Exit { reason: 1, signal: Some(65), ..exit(0) },
    ];
    for exit in lies {
        refuses(reply(Answer::Process(Process { exit: Some(exit), ..process("p") }))).await;
    }
    // Two answers to one question.
    refuses([reply(Answer::Process(process("p"))), reply(Answer::Done(Empty {}))].concat()).await;
    // Data, a message that is too long, one that is none, one in a text that is no UTF-8.
    refuses(data_frame(StreamId::Stdout, 0, b"x")).await;
    let mut header = vec![0; HEADER_LEN];
    header[0] = 1;
    header[4..8].copy_from_slice(&(5u32 << 20).to_le_bytes());
    refuses(header.clone()).await;
    header[4..8].copy_from_slice(&3u32.to_le_bytes());
    refuses([&header[..], &[0x1a, 9, 9]].concat()).await;
    header[4..8].copy_from_slice(&6u32.to_le_bytes());
    refuses([&header[..], &[0x1a, 4, 0x0a, 2, 0xff, 0xfe]].concat()).await;
    refuses(vec![7; 4096]).await;
}

#[tokio::test]
async fn too_many_parts_are_refused_before_memory_is_taken() {
    let files = Files { files: vec![hostel_guest_protocol::File::default(); 100_000], next: None };
    refuses(reply(Answer::Files(files))).await;
    let processes = Processes { processes: vec![hostel_guest_protocol::Process::default(); 100_000] };
    refuses(reply(Answer::Processes(processes))).await;
}

#[tokio::test]
async fn what_was_not_asked_for_ends_a_kept_connection() {
    let (guest, script) = guest();
    let (answered, is_answered) = oneshot::channel();
    let (said, is_said) = oneshot::channel();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply(Answer::Done(Empty {})).await;
        is_answered.await.unwrap();
        peer.reply(Answer::Done(Empty {})).await;
        said.send(()).unwrap();
        let mut peer = script.accept().await;
        assert!(matches!(peer.ask().await, Ask::Stat(_)));
        peer.reply(Answer::File(file("/a"))).await;
    };
    let ask = async {
        guest.ping(Duration::from_secs(10)).await.unwrap();
        answered.send(()).unwrap();
        is_said.await.unwrap();
        guest.idle_has_heard().await;
        guest.stat("/a", false).await.unwrap();
    };
    join!(serve, ask);
}

/// Answers a question with more descriptors than belong to an answer.
async fn answer_with_two(script: &Script, null: &std::fs::File) -> Peer {
    let mut peer = script.accept().await;
    peer.ask().await;
    peer.reply_with(Answer::File(file("/a")), &[null.as_fd(), null.as_fd()]).await;
    peer
}

#[tokio::test]
async fn more_descriptors_than_one_break_the_rules() {
    let (guest, script) = guest();
    let null = std::fs::File::open("/dev/null").unwrap();
    let serve = async {
        answer_with_two(&script, &null).await.closed().await;
        // One is closed, and the answer is good.
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply_with(Answer::File(file("/a")), &[null.as_fd()]).await;
    };
    let ask = async {
        let error = guest.stat("/a", true).await.unwrap_err();
        assert!(is_protocol(&error), "{error}");
        guest.stat("/a", true).await.unwrap();
    };
    join!(serve, ask);
}

#[tokio::test]
async fn listings_are_checked() {
    let (guest, script) = guest();
    let page = |names: &[&str], next: Option<&[u8]>| {
        let files = names.iter().map(|name| file(&format!("/dir/{name}"))).collect();
        Answer::Files(Files { files, next: next.map(<[u8]>::to_vec) })
    };
    let listing = |names: &[&str]| page(names, None);
    let answers = [
        (listing(&["b", "c"]), Some(None)),
        // A guest of earlier times does not say that there may be more.
        (listing(&["b", "c", "d"]), Some(Some(&b"d"[..]))),
        // A name that had to be made readable is not compared.
        (page(&["b", "a\u{fffd}", "a\u{fffd}"], Some(b"")), Some(None)),
        (page(&["b", "\u{fffd}"], Some(b"\xff")), Some(Some(&b"\xff"[..]))),
        (page(&["b"], Some(b"a")), None),
        (page(&["b"], Some(&[b'b'; 5000])), None),
        (listing(&["c", "b"]), None),
        (listing(&["c", "c"]), None),
        (listing(&["a"]), None),
        (listing(&[".."]), None),
        (listing(&["b", "c", "d", "e"]), None),
    ];
    for (answer, next) in answers {
        let serve = async {
            let mut peer = script.accept().await;
            peer.ask().await;
            peer.reply(answer).await;
        };
        let (result, ()) = join!(guest.list("/dir/", Some(b"a"), 3), serve);
        let page = result.ok();
        assert_eq!(page.as_ref().map(|page| page.next.as_deref()), next, "{page:?}");
        assert!(page.is_none_or(|page| page.files[0].path == "/dir/b"));
    }
}

#[tokio::test]
async fn a_guest_is_born_ready_or_says_why_not() {
    let born = |welcome: Option<Welcome>| async move {
        let (_, script) = guest();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let endpoint = crate::Endpoint::open(script.directory.path(), "none", TOKEN).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut peer = Peer::new(tokio::net::UnixStream::from_std(theirs).unwrap());
        let say = async {
            if let Some(welcome) = welcome {
                peer.send(&welcome).await;
                Some(peer)
            } else {
                drop(peer);
                None
            }
        };
        join!(Guest::born(endpoint, ours, Duration::from_secs(1)), say)
    };
    let good = Welcome { version: VERSION, weaknesses: vec!["no seccomp".to_owned()], ..Welcome::default() };
    let (result, peer) = born(Some(good.clone())).await;
    let ((guest, weaknesses), mut peer) = (result.unwrap(), peer.unwrap());
    assert_eq!(weaknesses, ["no seccomp"]);
    let serve = async {
        peer.ask().await;
        peer.reply(Answer::Done(Empty {})).await;
    };
    let (pinged, ()) = join!(guest.ping(Duration::from_secs(1)), serve);
    pinged.unwrap();
    let failure = Welcome { failure: "no room".to_owned(), ..good.clone() };
    let error = born(Some(failure)).await.0.unwrap_err();
    assert!(matches!(&error, Error::Internal { operation, detail }
        if operation == "set up the jail" && detail == "no room"));
    assert!(is_gone(&born(None).await.0.unwrap_err()));
    let future = Welcome { version: VERSION + 1, ..good };
    assert!(is_protocol(&born(Some(future)).await.0.unwrap_err()));
}

#[tokio::test]
async fn closing_ends_every_call() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        guest.close().await;
        peer.closed().await;
    };
    let (p, clone) = (id("p"), guest.clone());
    let (error, ()) = join!(async { clone.wait(&p).await.unwrap_err() }, serve);
    assert!(matches!(error, Error::Unavailable { what: "daemon", .. }), "{error}");
    assert!(guest.stat("/", true).await.is_err());
}

#[tokio::test]
async fn links_in_place_of_the_socket_lead_nowhere() {
    let (_, script) = guest();
    let deep = std::fs::read_dir(script.directory.path()).unwrap().next().unwrap().unwrap().path();
    std::os::unix::fs::symlink(deep.join("guest.sock"), script.directory.path().join("link")).unwrap();
    let endpoint = crate::Endpoint::open(script.directory.path(), "link", TOKEN).unwrap();
    let error = Guest::new(endpoint).ping(Duration::from_secs(1)).await.unwrap_err();
    assert!(is_protocol(&error), "{error}");
}

/// Has everything killed by a guest that does not know how, and that has no room for its shell the first times.
/// → whether it said that all is over, and who was killed.
async fn kill_all_in_an_earlier_guest(mut full: usize) -> (hostel_sandbox::Result<()>, Vec<(String, i32)>) {
    let (guest, script) = guest();
    let mut killed = Vec::new();
    let serve = async {
        let mut peer = script.accept().await;
        loop {
            match peer.ask().await {
                Ask::KillAll(_) => peer.reply(failed(FailureKind::Invalid, "ask")).await,
                Ask::Exec(exec) => {
                    let spec = exec.spec.unwrap();
                    assert!(spec.unlisted && spec.argv.concat().contains("kill -9 -1"), "{spec:?}");
                    if full > 0 {
                        full -= 1;
                        peer.reply(failed(FailureKind::Limit, "processes")).await;
                    } else {
                        // It has no shell either.
                        peer.reply(failed(FailureKind::NotFound, "program")).await;
                    }
                }
                Ask::ListProcesses(_) => {
                    let over = Process { exit: Some(exit(0)), ..process("over") };
                    let processes = vec![process("one"), over, process("two")];
                    peer.reply(Answer::Processes(Processes { processes })).await;
                }
                Ask::Signal(signal) => {
                    killed.push((signal.id, signal.signal));
                    peer.reply(Answer::Done(Empty {})).await;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let done = tokio::select! {
        () = serve => unreachable!(),
        done = guest.kill_all() => done,
    };
    (done, killed)
}

#[tokio::test]
async fn an_earlier_guest_kills_as_it_can() {
    for full in [0, 1, 7] {
        let (done, killed) = kill_all_in_an_earlier_guest(full).await;
        done.unwrap();
        let killed: Vec<_> = killed.iter().map(|(id, signal)| (id.as_str(), *signal)).collect();
        assert_eq!(killed, [("one", 9), ("two", 9)].repeat(full + 1));
    }
    // Somebody who is not listed keeps it full, and lives.
    let (done, _) = kill_all_in_an_earlier_guest(usize::MAX).await;
    assert!(matches!(done, Err(Error::LimitReached { .. })), "{done:?}");
}
