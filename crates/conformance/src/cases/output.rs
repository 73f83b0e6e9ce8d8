//! Standard output and standard error.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq};
use crate::harness::{Harness, command, script};
use crate::pattern;
use hostel_sandbox::process::{AttachOptions, OutputStream};
use std::sync::Arc;

cases! { "output":
    both_streams_are_kept_apart,
    every_byte_value_arrives,
    text_that_is_no_text_arrives,
    an_endless_line_arrives,
    two_hundred_and_fifty_six_mebibytes_arrive,
    a_slow_reader_gets_every_byte,
    a_reader_that_stops_disturbs_nobody,
    much_on_both_streams_arrives,
    single_bytes_arrive_in_order,
    the_last_words_before_an_end_arrive,
    output_closed_early_is_no_end,
}

type H = Arc<Harness>;

/// Fails at the first byte that is not the pattern's.
pub(super) fn check(seed: u64, offset: u64, data: &[u8]) -> Outcome {
    match pattern::first_difference(seed, offset, data) {
        None => Ok(()),
        Some(place) => Err(Failure::new(format!("the output is wrong at {place}"))),
    }
}

async fn both_streams_are_kept_apart(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished =
        sandbox.finish(script("echo one; echo two >&2; echo three; printf four >&2")).await?.success()?;
    ensure_eq!((finished.text().as_str(), finished.complaint().as_str()), ("one\nthree\n", "two\nfour"));
    Ok(())
}

async fn every_byte_value_arrives(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished = sandbox.run_probe(&["bytes"]).await?.success()?;
    ensure_eq!(finished.stdout, (0..=u8::MAX).collect::<Vec<u8>>());
    Ok(())
}

async fn text_that_is_no_text_arrives(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished =
        sandbox.finish(script(r"printf '\377\376\000\303\050\000'; printf '\355\240\200' >&2")).await?;
    ensure_eq!(finished.stdout, b"\xff\xfe\x00\xc3\x28\x00");
    ensure_eq!(finished.stderr, b"\xed\xa0\x80");
    Ok(())
}

async fn an_endless_line_arrives(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let finished = sandbox.finish(script("head -c 16777216 /dev/zero | tr '\\000' x")).await?.success()?;
    ensure_eq!(finished.stdout.len(), 16 << 20);
    ensure!(finished.stdout.iter().all(|byte| *byte == b'x'), "something else than x");
    Ok(())
}

async fn two_hundred_and_fifty_six_mebibytes_arrive(h: H) -> Outcome {
    const SIZE: u64 = 256 << 20;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let session = sandbox.open(command(&[probe, "pattern", &SIZE.to_string(), "1"])).await?;
    let mut count = 0;
    let finished = session
        .reader
        .finish_with(|_, offset, data| {
            count += data.len() as u64;
            check(1, offset, data)
        })
        .await?
        .success()?;
    ensure_eq!(count, SIZE);
    ensure_eq!(sandbox.inside()?.process(&finished.process.id).await?.stdout.end, SIZE);
    Ok(())
}

async fn a_slow_reader_gets_every_byte(h: H) -> Outcome {
    const SIZE: u64 = 64 << 20;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let mut session = sandbox.open(command(&[probe, "pattern", &SIZE.to_string(), "2"])).await?;
    // Between one piece and the next, something else happens in the sandbox: the writer waits, whatever the
    // sizes of the buffers between.
    for turn in 0..20 {
        session.reader.next().await?;
        ensure_eq!(sandbox.sh(&format!("echo {turn}")).await?, format!("{turn}\n"));
        ensure!(
            sandbox.inside()?.process(&session.reader.process.id).await?.exit.is_none(),
            "it wrote all without a reader"
        );
    }
    let mut last = 0;
    let finished = session
        .reader
        .finish_with(|_, offset, data| {
            last = offset + data.len() as u64;
            check(2, offset, data)
        })
        .await?
        .success()?;
    ensure_eq!((last, finished.gaps.len()), (SIZE, 0));
    Ok(())
}

async fn a_reader_that_stops_disturbs_nobody(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let mut stuck = Vec::new();
    for seed in 0..8 {
        stuck.push(sandbox.open(command(&[probe, "pattern", "1000000000", &seed.to_string()])).await?);
    }
    for turn in 0..50 {
        ensure_eq!(sandbox.sh(&format!("echo {turn}")).await?, format!("{turn}\n"));
    }
    ensure_eq!(sandbox.put("/tmp/file", "written").await?.size, 7);
    for session in &stuck {
        sandbox.inside()?.signal(&session.reader.process.id, 9).await?;
    }
    for (seed, session) in (0..).zip(stuck) {
        let finished = session.reader.finish_with(|_, offset, data| check(seed, offset, data)).await?;
        ensure_eq!((finished.exit.signal, finished.gaps.len()), (Some(9), 0));
    }
    Ok(())
}

async fn much_on_both_streams_arrives(h: H) -> Outcome {
    const SIZE: u64 = 8 << 20;
    let sandbox = h.sandbox().await?;
    let probe = sandbox.probe().await?;
    let text = format!("{probe} pattern {SIZE} 3 & {probe} pattern {SIZE} 4 >&2 & wait");
    let session = sandbox.open(script(&text)).await?;
    let mut counts = [0, 0];
    let finished = session.reader.finish_with(|stream, offset, data| match stream {
        OutputStream::Stdout => {
            counts[0] += data.len() as u64;
            check(3, offset, data)
        }
        OutputStream::Stderr => {
            counts[1] += data.len() as u64;
            check(4, offset, data)
        }
    });
    finished.await?.success()?;
    ensure_eq!(counts, [SIZE, SIZE]);
    Ok(())
}

async fn single_bytes_arrive_in_order(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "i=0; while [ $i -lt 5000 ]; do printf $((i % 10)); i=$((i + 1)); done";
    let expected: String = (0..5000).map(|number| char::from(b'0' + (number % 10) as u8)).collect();
    ensure!(sandbox.sh(text).await? == expected, "out of order");
    Ok(())
}

async fn the_last_words_before_an_end_arrive(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for size in [1, 4096, 65_536, 65_537, 300_000] {
        let probe = sandbox.probe().await?;
        let text = format!("{probe} pattern {size} 6; kill -9 $$");
        let finished = sandbox.finish(script(&text)).await?;
        ensure_eq!((finished.exit.signal, finished.stdout.len()), (Some(9), size));
        check(6, 0, &finished.stdout)?;
    }
    Ok(())
}

async fn output_closed_early_is_no_end(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "echo said; exec >&- 2>&-; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 11";
    let mut session = sandbox.open(script(text)).await?;
    session.reader.until("said").await?;
    ensure!(sandbox.inside()?.process(&session.reader.process.id).await?.exit.is_none(), "it has not ended");
    sandbox.sh("touch /tmp/go").await?;
    let finished = session.finish().await?;
    ensure_eq!((finished.text().as_str(), finished.code()), ("said\n", Some(11)));
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    ensure_eq!(sandbox.attach_with(&finished.process.id, options).await?.finish().await?.text(), "said\n");
    Ok(())
}
