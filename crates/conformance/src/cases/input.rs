//! Standard input.

use super::output::check;
use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, command, eventually, script};
use crate::pattern;
use crate::session::{Session, patiently};
use hostel_sandbox::Error;
use hostel_sandbox::process::{AttachOptions, Input, Output, ProcessSpec};
use std::sync::Arc;

cases! { "input":
    standard_input_is_at_its_end_unless_asked_for,
    closing_gives_the_end_after_all_bytes,
    sixty_four_mebibytes_go_through,
    input_is_accepted_by_offset,
    bytes_sent_again_are_skipped,
    a_hole_is_refused_and_the_process_goes_on,
    only_one_attachment_may_write,
    writing_can_be_taken_over,
    detaching_is_no_end_of_input,
    a_second_attachment_continues_standard_input,
    a_process_that_never_reads_can_be_left,
    input_after_the_end_of_the_process_hangs_nobody,
    binary_input_arrives,
}

type H = Arc<Harness>;

/// A process with standard input, attached to in full.
async fn open(sandbox: &Sandbox, spec: ProcessSpec) -> Outcome<Session> {
    sandbox.open(ProcessSpec { stdin: true, ..spec }).await
}

async fn standard_input_is_at_its_end_unless_asked_for(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_eq!(sandbox.run(&["cat"]).await?.success()?.text(), "");
    ensure_eq!(sandbox.sh("cat; echo ended").await?, "ended\n");
    Ok(())
}

async fn closing_gives_the_end_after_all_bytes(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for text in ["", "x", "one\ntwo", "ends with a line\n"] {
        let finished = open(&sandbox, command(&["cat"])).await?.talk(text).await?.success()?;
        ensure_eq!(finished.text(), text);
    }
    Ok(())
}

async fn sixty_four_mebibytes_go_through(h: H) -> Outcome {
    const SIZE: usize = 64 << 20;
    let sandbox = h.sandbox().await?;
    let session = open(&sandbox, command(&["cat"])).await?;
    let Session { stdin, reader } = session;
    let mut received = 0_u64;
    let exit = {
        let mut reading = std::pin::pin!(reader.finish_with(|_, offset, data| {
            received += data.len() as u64;
            check(5, offset, data)
        }));
        tokio::select! {
            biased;
            finished = &mut reading => finished?.exit,
            () = stdin.send_all(pattern::bytes(5, 0, SIZE)) => reading.await?.exit,
        }
    };
    ensure_eq!(exit.code, Some(0));
    ensure_eq!(received, SIZE as u64);
    Ok(())
}

async fn input_is_accepted_by_offset(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, command(&["cat"])).await?;
    session.stdin.send("12345").await?;
    session.reader.until("12345").await?;
    while session.reader.accepted < 5 {
        session.reader.next().await?;
    }
    ensure_eq!(session.reader.accepted, 5);
    ensure_eq!(sandbox.inside()?.process(&session.reader.process.id).await?.stdin_offset, 5);
    session.stdin.close().await?;
    ensure_eq!(session.finish().await?.code(), Some(0));
    Ok(())
}

async fn bytes_sent_again_are_skipped(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, command(&["cat"])).await?;
    session.stdin.send("0123456789").await?;
    session.reader.until("0123456789").await?;
    let id = session.reader.process.id.clone();
    drop(session);
    // A client that does not know how much arrived begins earlier.
    let session = eventually(|| sandbox.attach_with(&id, AttachOptions::everything())).await?;
    for (offset, data) in [(4, "456789ab"), (0, "0123"), (8, "89abcdef")] {
        session.stdin.input(Input::Stdin { offset, data: data.into() }).await?;
    }
    session.stdin.close().await?;
    ensure_eq!(session.finish().await?.success()?.text(), "0123456789abcdef");
    Ok(())
}

async fn a_hole_is_refused_and_the_process_goes_on(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, command(&["cat"])).await?;
    session.stdin.send("abc").await?;
    session.reader.until("abc").await?;
    let id = session.reader.process.id.clone();
    session.stdin.input(Input::Stdin { offset: 10, data: "later".into() }).await?;
    let broken = loop {
        match session.reader.next().await {
            Ok(Output::Exited(exit)) => return Err(Failure::new(format!("the hole ended it: {exit:?}"))),
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    ensure!(!broken.to_string().contains("without an exit and without an error"), "{broken}");
    drop(session);
    let session = eventually(|| sandbox.attach_with(&id, AttachOptions::everything())).await?;
    session.stdin.input(Input::Stdin { offset: 3, data: "def".into() }).await?;
    session.stdin.close().await?;
    ensure_eq!(session.finish().await?.success()?.text(), "abcdef");
    Ok(())
}

async fn only_one_attachment_may_write(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let session = open(&sandbox, command(&["cat"])).await?;
    let id = session.reader.process.id.clone();
    let second =
        match patiently("attaching", sandbox.inside()?.attach(&id, AttachOptions::everything())).await? {
            // The refusal may come as the first event as well.
            Ok(attachment) => Session::open(attachment, &AttachOptions::everything()).await.map(|_| ()),
            Err(error) => {
                ensure_err!(Err::<(), _>(error), Error::WrongState { reason: "STDIN_HELD", .. });
                Err(Failure::new("refused"))
            }
        };
    ensure!(second.is_err(), "two attachments write");
    // Reading is for everybody.
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    let mut listener = sandbox.attach_with(&id, options).await?;
    let mut session = session;
    session.stdin.send("still mine\n").await?;
    listener.reader.until("still mine").await?;
    session.stdin.close().await?;
    ensure_eq!(session.finish().await?.success()?.text(), "still mine\n");
    Ok(())
}

async fn writing_can_be_taken_over(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut first = open(&sandbox, command(&["cat"])).await?;
    first.stdin.send("first ").await?;
    first.reader.until("first ").await?;
    let id = first.reader.process.id.clone();
    let options = AttachOptions { takeover: true, ..AttachOptions::everything() };
    let second = sandbox.attach_with(&id, options).await?;
    // Whatever the first one still says is not heard.
    let _ = first.stdin.input(Input::Stdin { offset: 6, data: "IGNORED".into() }).await;
    second.stdin.input(Input::Stdin { offset: 6, data: "second".into() }).await?;
    second.stdin.close().await?;
    ensure_eq!(second.finish().await?.success()?.text(), "first second");
    Ok(())
}

async fn detaching_is_no_end_of_input(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = open(&sandbox, script("read one; echo got $one; read two; echo got $two")).await?;
    session.stdin.send("first\n").await?;
    session.reader.until("got first").await?;
    let id = session.reader.process.id.clone();
    drop(session);
    let mut session = eventually(|| sandbox.attach_with(&id, AttachOptions::everything())).await?;
    session.stdin.offset = 6;
    session.stdin.send("second\n").await?;
    ensure_eq!(session.finish().await?.success()?.text(), "got first\ngot second\n");
    Ok(())
}

async fn a_second_attachment_continues_standard_input(h: H) -> Outcome {
    const SIZE: usize = 200_000;
    let sandbox = h.sandbox().await?;
    // More than a pipe holds, and nobody reads it yet: what was taken is told, not what the process has read.
    let all = bytes::Bytes::from(pattern::bytes(6, 0, SIZE));
    let text = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec cat";
    let mut first = open(&sandbox, script(text)).await?;
    ensure_eq!(first.reader.process.stdin_offset, 0);
    first.stdin.send(all.slice(..SIZE / 2)).await?;
    let id = first.reader.process.id.clone();
    eventually(|| async {
        ensure_eq!(sandbox.inside()?.process(&id).await?.stdin_offset, (SIZE / 2) as u64);
        Ok(())
    })
    .await?;
    drop(first);
    let mut second = eventually(|| sandbox.attach_with(&id, AttachOptions::everything())).await?;
    ensure_eq!(second.reader.process.stdin_offset, (SIZE / 2) as u64);
    second.stdin.offset = second.reader.process.stdin_offset;
    sandbox.sh("touch /tmp/go").await?;
    second.stdin.send(all.slice(SIZE / 2..)).await?;
    second.stdin.close().await?;
    ensure!(second.finish().await?.success()?.stdout == all, "standard input came back changed");
    Ok(())
}

async fn a_process_that_never_reads_can_be_left(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let session = open(&sandbox, script("echo on; exec sleep 1000")).await?;
    let Session { mut stdin, mut reader } = session;
    reader.until("on").await?;
    // Far more than any pipe takes. It is enough that this waits instead of failing.
    let endless = async {
        loop {
            if stdin.send(vec![b'x'; 1 << 20]).await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), endless).await;
    ensure_eq!(sandbox.sh("echo others are fine").await?, "others are fine\n");
    sandbox.inside()?.signal(&reader.process.id, 9).await?;
    ensure_eq!(reader.finish().await?.exit.signal, Some(9));
    Ok(())
}

async fn input_after_the_end_of_the_process_hangs_nobody(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for _ in 0..10 {
        // More than pipes and buffers hold; a shell reads it byte by byte.
        let finished =
            open(&sandbox, script("read line; echo $line")).await?.talk(vec![b'y'; 1 << 20]).await?;
        ensure!(finished.code().is_some(), "{:?}", finished.exit);
        let finished = open(&sandbox, command(&["true"])).await?.talk(vec![b'z'; 1 << 20]).await?;
        ensure_eq!(finished.code(), Some(0));
    }
    Ok(())
}

async fn binary_input_arrives(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
    let finished = open(&sandbox, command(&["cat"])).await?.talk(all.clone()).await?.success()?;
    ensure!(finished.stdout == all, "{} bytes came back changed", finished.stdout.len());
    Ok(())
}
