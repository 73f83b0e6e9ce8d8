//! Archives in and out.

use crate::archive::{self, Archive};
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox};
use crate::pattern;
use hostel_sandbox::Error;
use hostel_sandbox::file::Compression;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

cases! { "import_export":
    a_tree_survives_the_round_trip,
    a_tree_survives_the_round_trip_compressed,
    a_tree_moves_to_another_sandbox,
    names_are_relative_to_the_parent,
    one_file_can_be_exported,
    what_is_missing_cannot_be_exported,
    an_import_counts_and_makes_its_directory,
    an_import_replaces_files,
    an_archive_that_is_cut_replaces_nothing_and_leaves_nothing,
    a_big_archive_arrives_whole,
    a_dropped_export_disturbs_nothing,
    special_files_do_not_stop_an_export,
}

type H = Arc<Harness>;

const TREE: &str = "mkdir -p /tmp/tree/sub/empty '/tmp/tree/with space'; cd /tmp/tree
    printf 'hello' > file; printf '#!/bin/sh\\n' > run; chmod 755 run; : > nothing; chmod 600 nothing
    ln -s file link; ln -s ../run sub/up; ln -s /nowhere dangling; printf x > 'with space/ünï'; chmod 700 sub
    printf x > \"$(printf 'l%.0s' $(seq 180))\"; touch -d @1600000000 file; head -c 300000 /dev/zero > zeros";

/// Kind, mode, link and sum of everything below, by name.
async fn describe(sandbox: &Sandbox, directory: &str) -> Outcome<String> {
    let text = format!(
        "cd {directory}; for f in * */* */*/*; do [ -e \"$f\" ] || [ -L \"$f\" ] || continue
         stat -c '%n %F %a %N' \"$f\"; [ -f \"$f\" ] && cksum < \"$f\"; done; stat -c %Y file"
    );
    sandbox.sh(&text).await
}

async fn round_trip(h: &Harness, compression: Compression) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh(TREE).await?;
    let before = describe(&sandbox, "/tmp/tree").await?;
    ensure!(before.lines().count() > 15, "no tree: {before}");
    let bytes = archive::collect(sandbox.inside()?.export("/tmp/tree", compression).await?).await?;
    let is_zstd = bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    ensure_eq!(is_zstd, compression == Compression::Zstd);
    sandbox.inside()?.import("/tmp/back", compression, archive::stream(bytes)).await?;
    ensure_eq!(describe(&sandbox, "/tmp/back/tree").await?, before);
    Ok(())
}

async fn a_tree_survives_the_round_trip(h: H) -> Outcome {
    round_trip(&h, Compression::None).await
}

async fn a_tree_survives_the_round_trip_compressed(h: H) -> Outcome {
    round_trip(&h, Compression::Zstd).await
}

async fn a_tree_moves_to_another_sandbox(h: H) -> Outcome {
    let (from, to) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    from.sh(TREE).await?;
    // The stream of one is the source of the other, with back-pressure all the way.
    let stream = from.inside()?.export("/tmp/tree", Compression::None).await?;
    to.inside()?.import("/tmp", Compression::None, stream).await?;
    ensure_eq!(describe(&to, "/tmp/tree").await?, describe(&from, "/tmp/tree").await?);
    Ok(())
}

/// Names and sizes in an archive.
fn contents(bytes: &[u8]) -> Outcome<BTreeMap<String, u64>> {
    let mut seen = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().trim_end_matches('/').to_owned();
        let size = std::io::copy(&mut entry.by_ref(), &mut std::io::sink())?;
        seen.insert(name, size);
    }
    Ok(seen)
}

async fn names_are_relative_to_the_parent(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/a/b/c; printf 123 > /tmp/a/b/c/f").await?;
    let bytes = archive::collect(sandbox.inside()?.export("/tmp/a/b", Compression::None).await?).await?;
    let expected = [("b", 0), ("b/c", 0), ("b/c/f", 3)].map(|(name, size)| (name.to_owned(), size));
    ensure_eq!(contents(&bytes)?, BTreeMap::from(expected));
    Ok(())
}

async fn one_file_can_be_exported(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/one", "12345").await?;
    let bytes = archive::collect(sandbox.inside()?.export("/tmp/one", Compression::None).await?).await?;
    ensure_eq!(contents(&bytes)?, BTreeMap::from([("one".to_owned(), 5)]));
    Ok(())
}

async fn what_is_missing_cannot_be_exported(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_err!(
        sandbox.inside()?.export("/tmp/nothing", Compression::None).await.map(|_| ()),
        Error::NotFound { .. }
    );
    Ok(())
}

async fn an_import_counts_and_makes_its_directory(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let tar = Archive::new().directory("d/")?.file("d/f", 0o640, b"abc")?.symlink("d/l", "f")?.bytes()?;
    let count = sandbox.inside()?.import("/tmp/new/place", Compression::None, archive::stream(tar)).await?;
    ensure!(count == 3, "{count} entries of 3");
    ensure_eq!(sandbox.sh("cd /tmp/new/place/d; cat l; stat -c %a f").await?, "abc640\n");
    let nothing = Archive::new().bytes()?;
    ensure_eq!(sandbox.inside()?.import("/tmp/new", Compression::None, archive::stream(nothing)).await?, 0);
    Ok(())
}

async fn an_import_replaces_files(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d; echo old > /tmp/d/f; echo kept > /tmp/d/g; ln -s g /tmp/d/l").await?;
    let tar = Archive::new().file("f", 0o644, b"new")?.file("l", 0o644, b"no link")?.bytes()?;
    sandbox.inside()?.import("/tmp/d", Compression::None, archive::stream(tar)).await?;
    ensure_eq!(sandbox.sh("cd /tmp/d; cat f; echo; cat g; cat l").await?, "new\nkept\nno link");
    Ok(())
}

async fn an_archive_that_is_cut_replaces_nothing_and_leaves_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d; echo whole > /tmp/d/f").await?;
    let mut tar = Archive::new().file("f", 0o644, &pattern::bytes(5, 0, 3 << 20))?.bytes()?;
    tar.truncate(1 << 20);
    for cut in [archive::stream(tar.clone()), archive::broken_stream(tar)] {
        let imported = sandbox.inside()?.import("/tmp/d", Compression::None, cut).await;
        ensure!(imported.is_err(), "half an archive is imported: {imported:?}");
        // What broke off is cleaned up by who wrote it, once it sees that.
        sandbox.sh("until [ \"$(ls -A /tmp/d)\" = f ]; do sleep 0.02; done").await?;
        ensure_eq!(sandbox.sh("cat /tmp/d/f").await?, "whole\n");
    }
    Ok(())
}

async fn a_big_archive_arrives_whole(h: H) -> Outcome {
    const SIZE: usize = 64 << 20;
    let sandbox = h.sandbox().await?;
    let tar = Archive::new().file("big", 0o644, &pattern::bytes(8, 0, SIZE))?.bytes()?;
    sandbox.inside()?.import("/tmp/in", Compression::None, archive::stream(tar)).await?;
    let probe = sandbox.probe().await?;
    ensure_eq!(sandbox.sh(&format!("{probe} verify 8 < /tmp/in/big")).await?, format!("ok {SIZE}\n"));
    let bytes = archive::collect(sandbox.inside()?.export("/tmp/in/big", Compression::None).await?).await?;
    ensure_eq!(contents(&bytes)?, BTreeMap::from([("big".to_owned(), SIZE as u64)]));
    Ok(())
}

async fn a_dropped_export_disturbs_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d; head -c 20000000 /dev/zero > /tmp/d/f").await?;
    for _ in 0..20 {
        let mut stream = sandbox.inside()?.export("/tmp/d", Compression::None).await?;
        ensure!(stream.recv().await.is_some_and(|piece| piece.is_ok()), "nothing to read");
    }
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn special_files_do_not_stop_an_export(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d; mkfifo /tmp/d/pipe; printf abc > /tmp/d/real; chmod 0 /tmp/d/real").await?;
    let bytes = archive::collect(sandbox.inside()?.export("/tmp/d", Compression::None).await?).await?;
    ensure_eq!(contents(&bytes)?.get("d/real"), Some(&3));
    Ok(())
}
