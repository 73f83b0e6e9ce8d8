//! Files: reading, writing, listing, moving, removing.

use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, script};
use crate::session::patiently;
use crate::{archive, pattern};
use futures::future::try_join_all;
use hostel_sandbox::file::{FileInfo, FileKind, FilePage, WriteOptions};
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{Capability, Error};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

cases! { "files":
    what_is_written_is_read,
    ranges_are_read,
    a_big_file_arrives_whole,
    many_transfers_at_once,
    replacing_is_all_or_nothing,
    a_broken_source_leaves_the_old_content,
    a_dropped_write_leaves_the_old_content,
    writing_in_place_keeps_the_rest,
    what_is_there_can_be_protected,
    a_missing_parent_is_made_only_if_asked,
    modes_are_set_and_kept,
    metadata_is_told [OtherUsers],
    links_are_followed_or_not,
    a_directory_is_listed_in_pages,
    names_that_are_no_text_are_listed_once,
    directories_are_made,
    moving,
    removing,
    a_read_that_is_dropped_disturbs_nothing,
    names_of_every_kind,
}

type H = Arc<Harness>;

async fn what_is_written_is_read(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for content in [Vec::new(), b"x".to_vec(), all, pattern::bytes(1, 0, 1_000_003)] {
        let info = sandbox.put("/tmp/file", content.clone()).await?;
        ensure_eq!((info.size, info.kind), (content.len() as u64, FileKind::File));
        ensure!(sandbox.get("/tmp/file").await? == content, "{} bytes came back changed", content.len());
    }
    ensure_eq!(sandbox.sh("wc -c < /tmp/file").await?.trim(), "1000003");
    Ok(())
}

async fn ranges_are_read(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/file", "0123456789").await?;
    for (offset, length, expected) in [
        (0, None, "0123456789"),
        (3, None, "3456789"),
        (3, Some(4), "3456"),
        (0, Some(0), ""),
        (8, Some(100), "89"),
        (10, None, ""),
        (1000, Some(5), ""),
        (0, Some(u64::MAX), "0123456789"),
        (u64::MAX >> 1, None, ""),
    ] {
        let read = sandbox.get_range("/tmp/file", offset, length).await?;
        ensure_eq!(String::from_utf8_lossy(&read), expected, "{offset} {length:?}");
    }
    Ok(())
}

async fn a_big_file_arrives_whole(h: H) -> Outcome {
    const SIZE: usize = 256 << 20;
    let sandbox =
        h.sandbox_with(|spec| spec.limits.memory_bytes = spec.limits.memory_bytes.map(|_| 2 << 30)).await?;
    let info = sandbox.put("/tmp/big", pattern::bytes(9, 0, SIZE)).await?;
    ensure_eq!(info.size, SIZE as u64);
    let probe = sandbox.probe().await?;
    ensure_eq!(sandbox.sh(&format!("{probe} verify 9 < /tmp/big")).await?, format!("ok {SIZE}\n"));
    let (info, mut stream) = sandbox.inside()?.read("/tmp/big", 0, None).await?;
    ensure_eq!(info.size, SIZE as u64);
    let mut offset = 0;
    while let Some(piece) = stream.recv().await {
        let piece = piece?;
        super::output::check(9, offset, &piece)?;
        offset += piece.len() as u64;
    }
    ensure_eq!(offset, SIZE as u64);
    Ok(())
}

async fn many_transfers_at_once(h: H) -> Outcome {
    let sandbox = &h.sandbox().await?;
    try_join_all((0..32_u64).map(|number| async move {
        let path = format!("/tmp/many/{number}");
        let content = pattern::bytes(number, 0, 500_000);
        let options = WriteOptions { create_parents: true, ..WriteOptions::default() };
        sandbox.put_with(&path, options, content.clone()).await?;
        ensure!(sandbox.get(&path).await? == content, "file {number} came back changed");
        Ok(())
    }))
    .await?;
    Ok(())
}

async fn replacing_is_all_or_nothing(h: H) -> Outcome {
    const SIZE: usize = 2 << 20;
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/file", vec![b'a'; SIZE]).await?;
    // A reader inside looks all the time: it must never see two contents or a part of one.
    let text = format!(
        "while [ ! -e /tmp/stop ]; do
            cp /tmp/file /tmp/seen || exit 1
            [ $(wc -c < /tmp/seen) = {SIZE} ] || {{ echo part; exit 1; }}
            [ $(tr -d a < /tmp/seen | wc -c) = 0 ] || [ $(tr -d b < /tmp/seen | wc -c) = 0 ] || {{ echo mixed; exit 1; }}
        done; echo whole"
    );
    let looking = sandbox.open(script(&text)).await?;
    for turn in 0..20 {
        sandbox.put("/tmp/file", vec![if turn % 2 == 0 { b'b' } else { b'a' }; SIZE]).await?;
    }
    sandbox.put("/tmp/stop", "").await?;
    ensure_eq!(looking.finish().await?.text(), "whole\n");
    let names = sandbox.sh("ls -A /tmp").await?;
    ensure_eq!(names, "file\nseen\nstop\n", "what is left beside the file");
    Ok(())
}

async fn a_broken_source_leaves_the_old_content(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/d", "x").await?;
    sandbox.put("/tmp/file", "old").await?;
    let stream = archive::broken_stream(pattern::bytes(1, 0, 1 << 20));
    ensure!(
        sandbox.inside()?.write("/tmp/file", WriteOptions::default(), stream).await.is_err(),
        "it succeeded"
    );
    ensure_eq!(sandbox.get("/tmp/file").await?, b"old");
    let stream = archive::broken_stream("new");
    ensure!(
        sandbox.inside()?.write("/tmp/new", WriteOptions::default(), stream).await.is_err(),
        "it succeeded"
    );
    ensure!(!sandbox.exists("/tmp/new").await?, "a part of a file is there");
    ensure_eq!(sandbox.sh("ls -A /tmp").await?, "d\nfile\n", "what is left beside the file");
    Ok(())
}

async fn a_dropped_write_leaves_the_old_content(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/file", "old").await?;
    let (sender, stream) = tokio::sync::mpsc::channel(4);
    sender.send(Ok("new".into())).await?;
    let write = sandbox.inside()?.write("/tmp/file", WriteOptions::default(), stream);
    // The source never ends, so the write cannot either.
    let ended = tokio::time::timeout(Duration::from_millis(500), write).await;
    ensure!(ended.is_err(), "it ended before its source: {ended:?}");
    ensure_eq!(sandbox.get("/tmp/file").await?, b"old");
    drop(sender);
    crate::harness::eventually(|| async {
        ensure_eq!(sandbox.sh("ls -A /tmp").await?, "file\n", "what is left beside the file");
        Ok(())
    })
    .await
}

async fn writing_in_place_keeps_the_rest(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let at = |offset: u64| WriteOptions { offset: Some(offset), ..WriteOptions::default() };
    sandbox.put("/tmp/file", "0123456789").await?;
    sandbox.put_with("/tmp/file", at(3), "abc").await?;
    ensure_eq!(sandbox.get("/tmp/file").await?, b"012abc6789");
    sandbox.put_with("/tmp/file", at(8), "wxyz").await?;
    ensure_eq!(sandbox.get("/tmp/file").await?, b"012abc67wxyz");
    let info = sandbox.put_with("/tmp/file", at(14), "!").await?;
    ensure_eq!(info.size, 15);
    ensure_eq!(sandbox.get("/tmp/file").await?, b"012abc67wxyz\0\0!");
    sandbox.put_with("/tmp/new", at(2), "x").await?;
    ensure_eq!(sandbox.get("/tmp/new").await?, b"\0\0x");
    Ok(())
}

async fn what_is_there_can_be_protected(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let careful = WriteOptions { must_not_exist: true, ..WriteOptions::default() };
    sandbox.put_with("/tmp/file", careful.clone(), "first").await?;
    let second = sandbox.inside()?.write("/tmp/file", careful.clone(), archive::stream("second")).await;
    ensure_err!(second, Error::AlreadyExists { .. });
    ensure_eq!(sandbox.get("/tmp/file").await?, b"first");
    sandbox.sh("ln -s /nowhere /tmp/dangling").await?;
    let through = sandbox.inside()?.write("/tmp/dangling", careful, archive::stream("x")).await;
    ensure_err!(through, Error::AlreadyExists { .. });
    Ok(())
}

async fn a_missing_parent_is_made_only_if_asked(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let plain = sandbox.inside()?.write("/tmp/a/b/c", WriteOptions::default(), archive::stream("x")).await;
    ensure_err!(plain, Error::NotFound { .. });
    ensure!(!sandbox.exists("/tmp/a").await?, "it made the directory all the same");
    let parents = WriteOptions { create_parents: true, ..WriteOptions::default() };
    sandbox.put_with("/tmp/a/b/c", parents.clone(), "x").await?;
    ensure_eq!(sandbox.get("/tmp/a/b/c").await?, b"x");
    let below_file = sandbox.inside()?.write("/tmp/a/b/c/d", parents.clone(), archive::stream("x")).await;
    ensure!(below_file.is_err(), "a file below a file");
    // The kernel says of it that its parent is not there, which is there.
    let in_proc = sandbox.inside()?.write("/proc/a/b/c", parents, archive::stream("x"));
    ensure!(patiently("a refusal", in_proc).await?.is_err(), "a directory in /proc");
    ensure_eq!(sandbox.get("/tmp/a/b/c").await?, b"x");
    Ok(())
}

async fn modes_are_set_and_kept(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_eq!(sandbox.put("/tmp/plain", "x").await?.mode, 0o644);
    for mode in [0o600, 0o755, 0o777, 0o400] {
        let options = WriteOptions { mode: Some(mode), ..WriteOptions::default() };
        let path = format!("/tmp/mode-{mode:o}");
        ensure_eq!(sandbox.put_with(&path, options, "x").await?.mode, mode);
        ensure_eq!(sandbox.sh(&format!("stat -c %a {path}")).await?.trim(), format!("{mode:o}"));
    }
    // What is there keeps its own.
    let options = WriteOptions { mode: Some(0o600), ..WriteOptions::default() };
    ensure_eq!(sandbox.put_with("/tmp/mode-755", options, "y").await?.mode, 0o755);
    Ok(())
}

async fn metadata_is_told(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let spec = ProcessSpec {
        user: Some("1234:55".to_owned()),
        ..script("printf 12345 > /tmp/f; chmod 640 /tmp/f; touch -d @1700000000 /tmp/f; mkfifo /tmp/p")
    };
    sandbox.finish(spec).await?.success()?;
    let info = sandbox.inside()?.stat("/tmp/f", true).await?;
    ensure_eq!((info.path.as_str(), info.kind, info.size, info.mode), ("/tmp/f", FileKind::File, 5, 0o640));
    ensure_eq!((info.uid, info.gid), (1234, 55));
    ensure_eq!(info.modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    ensure_eq!(sandbox.inside()?.stat("/tmp/p", true).await?.kind, FileKind::Other);
    let root = sandbox.inside()?.stat("/", true).await?;
    ensure_eq!((root.kind, root.path.as_str()), (FileKind::Directory, "/"));
    ensure_err!(sandbox.inside()?.stat("/tmp/nothing", true).await, Error::NotFound { .. });
    ensure_err!(
        sandbox.inside()?.stat("/tmp/f/below", true).await,
        Error::NotFound { .. } | Error::InvalidArgument { .. }
    );
    Ok(())
}

async fn links_are_followed_or_not(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Not in /tmp itself: hosts with fs.protected_symlinks let nobody follow a stranger's link there.
    sandbox.sh("mkdir /tmp/own").await?;
    sandbox
        .sh("cd /tmp/own; printf content > file; ln -s file link; ln -s nowhere dangling; ln -s loop loop")
        .await?;
    let link = sandbox.inside()?.stat("/tmp/own/link", false).await?;
    ensure_eq!((link.kind, link.link_target.as_deref()), (FileKind::Symlink, Some("file")));
    let file = sandbox.inside()?.stat("/tmp/own/link", true).await?;
    ensure_eq!((file.kind, file.size), (FileKind::File, 7));
    ensure_eq!(sandbox.inside()?.stat("/tmp/own/dangling", false).await?.kind, FileKind::Symlink);
    ensure_err!(sandbox.inside()?.stat("/tmp/own/dangling", true).await, Error::NotFound { .. });
    ensure!(sandbox.inside()?.stat("/tmp/own/loop", true).await.is_err(), "a link to itself has metadata");
    ensure_eq!(sandbox.get("/tmp/own/link").await?, b"content");
    Ok(())
}

/// Everything in a directory, page by page.
async fn pages(sandbox: &Sandbox, path: &str, limit: usize) -> Outcome<Vec<FileInfo>> {
    let (mut seen, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let page = sandbox.inside()?.list(path, after.as_deref(), limit).await?;
        ensure!(page.files.len() <= limit, "a page of {}", page.files.len());
        seen.extend(page.files);
        let Some(next) = page.next else { return Ok(seen) };
        ensure!(Some(&next) > after.as_ref(), "a page does not advance");
        after = Some(next);
    }
}

async fn a_directory_is_listed_in_pages(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d; cd /tmp/d; i=0; while [ $i -lt 500 ]; do : > f$i; i=$((i + 1)); done; ln -s f0 l; mkdir s").await?;
    let mut expected: Vec<String> = (0..500).map(|number| format!("/tmp/d/f{number}")).collect();
    expected.extend(["/tmp/d/l".to_owned(), "/tmp/d/s".to_owned()]);
    expected.sort();
    let files = pages(&sandbox, "/tmp/d", 100).await?;
    let link = files.iter().find(|info| info.path == "/tmp/d/l");
    let link = link.map(|info| (info.kind, info.link_target.as_deref()));
    ensure_eq!(link, Some((FileKind::Symlink, Some("f0"))));
    let seen: Vec<String> = files.into_iter().map(|info| info.path).collect();
    ensure_eq!(seen, expected);
    ensure_eq!(sandbox.inside()?.list("/tmp/d/s", None, 10).await?, FilePage::default());
    ensure_err!(sandbox.inside()?.list("/tmp/nothing", None, 10).await, Error::NotFound { .. });
    ensure_err!(sandbox.inside()?.list("/tmp/d/f0", None, 10).await, Error::InvalidArgument { .. });
    Ok(())
}

async fn names_that_are_no_text_are_listed_once(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Of each byte that is no UTF-8 the readable name has the same character.
    sandbox
        .sh("mkdir /tmp/odd; cd /tmp/odd; i=0; while [ $i -lt 150 ]; do : > \"$(printf '\\377%03d' $i)\"; \
             : > \"$(printf '\\376%03d' $i)\"; i=$((i + 1)); done; : > plain; : > \"$(printf '\\357\\277\\275')\"")
        .await?;
    let mut expected: Vec<String> = (0..150).map(|number| format!("/tmp/odd/\u{fffd}{number:03}")).collect();
    expected.extend(expected.clone());
    expected.extend(["/tmp/odd/plain".to_owned(), "/tmp/odd/\u{fffd}".to_owned()]);
    expected.sort();
    let files = pages(&sandbox, "/tmp/odd", 64).await?;
    let mut seen: Vec<String> = files.into_iter().map(|info| info.path).collect();
    seen.sort();
    ensure_eq!(seen, expected);
    Ok(())
}

async fn directories_are_made(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let info = sandbox.inside()?.make_directory("/tmp/a", false, Some(0o750)).await?;
    ensure_eq!((info.kind, info.mode), (FileKind::Directory, 0o750));
    ensure_err!(sandbox.inside()?.make_directory("/tmp/a", false, None).await, Error::AlreadyExists { .. });
    ensure_eq!(sandbox.inside()?.make_directory("/tmp/a", true, None).await?.mode, 0o750);
    ensure_err!(sandbox.inside()?.make_directory("/tmp/x/y/z", false, None).await, Error::NotFound { .. });
    sandbox.inside()?.make_directory("/tmp/x/y/z", true, None).await?;
    ensure_eq!(sandbox.sh("cd /tmp/x/y/z; pwd").await?, "/tmp/x/y/z\n");
    sandbox.put("/tmp/file", "x").await?;
    ensure!(
        sandbox.inside()?.make_directory("/tmp/file", true, None).await.is_err(),
        "a directory where a file is"
    );
    Ok(())
}

async fn moving(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/a", "a").await?;
    sandbox.put("/tmp/b", "b").await?;
    ensure_err!(sandbox.inside()?.rename("/tmp/a", "/tmp/b", false).await, Error::AlreadyExists { .. });
    ensure_eq!((sandbox.get("/tmp/a").await?, sandbox.get("/tmp/b").await?), (b"a".to_vec(), b"b".to_vec()));
    ensure_eq!(sandbox.inside()?.rename("/tmp/a", "/tmp/b", true).await?.path, "/tmp/b");
    ensure_eq!((sandbox.exists("/tmp/a").await?, sandbox.get("/tmp/b").await?), (false, b"a".to_vec()));
    sandbox.inside()?.rename("/tmp/b", "/tmp/c", false).await?;
    ensure_err!(sandbox.inside()?.rename("/tmp/b", "/tmp/d", false).await, Error::NotFound { .. });
    sandbox.sh("mkdir -p /tmp/dir/sub; echo x > /tmp/dir/sub/x; ln -s x /tmp/link").await?;
    let moved = sandbox.inside()?.rename("/tmp/dir", "/tmp/moved", false).await;
    // An ordinary user's overlay on a file system in memory moves no directories before Linux 6.6: there are no user
    // attributes then to mark them with. Programs copy them, as mv does.
    if matches!(&moved, Err(error) if error.to_string().contains("cross-device") && !h.has(Capability::OtherUsers))
    {
        return Ok(());
    }
    moved?;
    ensure_eq!(sandbox.get("/tmp/moved/sub/x").await?, b"x\n");
    // The link itself is moved, not what it points at.
    ensure_eq!(sandbox.inside()?.rename("/tmp/link", "/tmp/link2", false).await?.kind, FileKind::Symlink);
    ensure!(
        sandbox.inside()?.rename("/tmp/moved", "/tmp/moved/sub/inside", false).await.is_err(),
        "a directory into itself"
    );
    Ok(())
}

async fn removing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/keep /tmp/d/e/f; echo x > /tmp/keep/x; echo y > /tmp/d/e/y; ln -s /tmp/keep /tmp/d/e/link; ln -s /tmp/keep /tmp/alone; mkfifo /tmp/d/pipe").await?;
    ensure_err!(
        sandbox.inside()?.remove("/tmp/d", false).await,
        Error::WrongState { reason: "DIRECTORY_NOT_EMPTY", .. }
    );
    ensure!(sandbox.exists("/tmp/d/e/y").await?, "it removed something all the same");
    sandbox.inside()?.remove("/tmp/d", true).await?;
    ensure!(!sandbox.exists("/tmp/d").await?, "it is still there");
    sandbox.inside()?.remove("/tmp/alone", true).await?;
    ensure_eq!(sandbox.get("/tmp/keep/x").await?, b"x\n", "behind the links");
    ensure_err!(sandbox.inside()?.remove("/tmp/d", true).await, Error::NotFound { .. });
    sandbox.inside()?.make_directory("/tmp/empty", false, None).await?;
    sandbox.inside()?.remove("/tmp/empty", false).await?;
    ensure!(sandbox.inside()?.remove("/", false).await.is_err(), "the root was removed");
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn a_read_that_is_dropped_disturbs_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/file", pattern::bytes(1, 0, 8 << 20)).await?;
    for _ in 0..50 {
        let (_, mut stream) = sandbox.inside()?.read("/tmp/file", 0, None).await?;
        ensure!(stream.recv().await.is_some_and(|piece| piece.is_ok()), "nothing to read");
    }
    ensure_eq!(sandbox.get("/tmp/file").await?.len(), 8 << 20);
    Ok(())
}

async fn names_of_every_kind(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let long = "n".repeat(255);
    for name in
        ["with space", "new\nline", "ünï→😀", "-rf", "*", "$HOME", "'\"", "\u{1b}[0m", " ", ".hidden", &long]
    {
        let path = format!("/tmp/names/{name}");
        let parents = WriteOptions { create_parents: true, ..WriteOptions::default() };
        sandbox.put_with(&path, parents, name.to_owned()).await?;
        ensure_eq!(sandbox.get(&path).await?, name.as_bytes());
        ensure_eq!(sandbox.inside()?.stat(&path, false).await?.path, path);
    }
    ensure_eq!(sandbox.inside()?.list("/tmp/names", None, 100).await?.files.len(), 11);
    Ok(())
}
