//! Files.

use crate::client::{Client, Guest, Told, eventually};
use hostel_guest_protocol::{
    Answer, Ask, Empty, FailureKind, File, FileEventKind, FileKind, GuestEvent, List, MakeDirectory,
    OpenWrite, Path, Remove, Rename, Stat, WatchFiles,
};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn file(answer: Result<Answer, hostel_guest_protocol::Failure>) -> File {
    match answer.unwrap() {
        Answer::File(file) => file,
        other => panic!("{other:?}"),
    }
}

fn kind(answer: Result<Answer, hostel_guest_protocol::Failure>) -> FailureKind {
    answer.unwrap_err().kind()
}

fn path(path: &str) -> Path {
    Path { path: path.to_owned() }
}

fn write(client: &mut Client, ask: OpenWrite, content: &[u8]) -> File {
    file(client.ask(Ask::OpenWrite(ask)));
    client.file().write_all(content).unwrap();
    file(client.ask(Ask::CommitWrite(Empty {})))
}

fn names(guest: &Guest) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(guest.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !matches!(name.as_str(), "socket" | "config"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_as_a_whole_and_read_by_descriptor() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let target = guest.path("a/b/file");
    let ask =
        OpenWrite { path: target.clone(), create_parents: true, mode: Some(0o640), ..OpenWrite::default() };
    file(client.ask(Ask::OpenWrite(ask)));
    client.file().write_all(b"content").unwrap();
    assert!(!std::path::Path::new(&target).exists(), "not before it is complete");
    let written = file(client.ask(Ask::CommitWrite(Empty {})));
    assert_eq!((written.size, written.mode, written.kind()), (7, 0o640, FileKind::File));
    let read = file(client.ask(Ask::OpenRead(path(&target))));
    assert_eq!((read.size, read.path), (7, target));
    let mut content = String::new();
    client.file().read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    assert_eq!(kind(client.ask(Ask::CommitWrite(Empty {}))), FailureKind::WrongState);
}

#[test]
fn a_replaced_file_keeps_its_mode_and_owner_and_a_link_its_target() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let (target, link) = (guest.path("target"), guest.path("link"));
    std::fs::write(&target, "old").unwrap();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o604)).unwrap();
    symlink("target", &link).unwrap();
    write(&mut client, OpenWrite { path: link.clone(), mode: Some(0o777), ..OpenWrite::default() }, b"new");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "new");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o777, 0o604);
    let once = OpenWrite { path: target.clone(), must_not_exist: true, ..OpenWrite::default() };
    assert_eq!(kind(client.ask(Ask::OpenWrite(once))), FailureKind::Exists);
    let loops = guest.path("loop");
    symlink("loop", &loops).unwrap();
    assert_eq!(
        kind(client.ask(Ask::OpenWrite(OpenWrite { path: loops, ..OpenWrite::default() }))),
        FailureKind::Invalid
    );
}

#[test]
fn a_write_that_is_not_completed_leaves_nothing() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let ask = OpenWrite { path: guest.path("half"), ..OpenWrite::default() };
    file(client.ask(Ask::OpenWrite(ask)));
    client.file().write_all(b"half").unwrap();
    assert_eq!(names(&guest).len(), 1);
    drop(client);
    eventually("nothing is left", || names(&guest).is_empty());
}

#[test]
fn in_place_keeps_the_rest() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let target = guest.path("file");
    std::fs::write(&target, "0123456789").unwrap();
    file(client.ask(Ask::OpenWrite(OpenWrite {
        path: target.clone(),
        in_place: true,
        ..OpenWrite::default()
    })));
    std::os::unix::fs::FileExt::write_all_at(&client.file(), b"ab", 3).unwrap();
    assert_eq!(file(client.ask(Ask::CommitWrite(Empty {}))).size, 10);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "012ab56789");
}

#[test]
fn only_regular_files_are_opened() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let pipe = guest.path("pipe");
    std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    for odd in [pipe.as_str(), "/dev/zero", "/tmp", "/", "/proc/self/fd/0"] {
        assert_eq!(kind(client.ask(Ask::OpenRead(path(odd)))), FailureKind::Invalid, "{odd}");
        let write = OpenWrite { path: odd.to_owned(), in_place: true, ..OpenWrite::default() };
        assert_eq!(kind(client.ask(Ask::OpenWrite(write))), FailureKind::Invalid, "{odd}");
    }
    symlink("/proc/self/mem", guest.path("door")).unwrap();
    assert_eq!(kind(client.ask(Ask::OpenRead(path(&guest.path("door"))))), FailureKind::Denied);
    let write = OpenWrite { path: guest.path("door"), in_place: true, ..OpenWrite::default() };
    assert_eq!(kind(client.ask(Ask::OpenWrite(write))), FailureKind::Denied);
    assert_eq!(kind(client.ask(Ask::OpenRead(path("/nowhere")))), FailureKind::NotFound);
    assert_eq!(kind(client.ask(Ask::OpenRead(path("relative")))), FailureKind::Invalid);
    assert_eq!(kind(client.ask(Ask::OpenRead(path("/a\0b")))), FailureKind::Invalid);
    assert_eq!(kind(client.ask(Ask::OpenRead(path(&"/x".repeat(3000))))), FailureKind::Invalid);
}

#[test]
fn stat_and_list_tell_what_is_there() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let directory = guest.path("d");
    std::fs::create_dir(&directory).unwrap();
    for name in ["b", "a", "c", "e", "d"] {
        std::fs::write(format!("{directory}/{name}"), name).unwrap();
    }
    symlink("a", format!("{directory}/z")).unwrap();
    let of = |client: &mut Client, follow| {
        file(client.ask(Ask::Stat(Stat { path: format!("{directory}/z"), follow })))
    };
    let link = of(&mut client, false);
    assert_eq!((link.kind(), link.link_target.as_deref()), (FileKind::Symlink, Some("a")));
    assert_eq!((of(&mut client, true).kind(), of(&mut client, true).size), (FileKind::File, 1));
    let mut after = Vec::new();
    let mut pages = Vec::new();
    loop {
        let ask = List { path: directory.clone(), after, limit: 4 };
        let Answer::Files(page) = client.ask(Ask::List(ask)).unwrap() else { panic!() };
        pages.push(
            page.files.iter().map(|file| file.path[directory.len() + 1..].to_owned()).collect::<String>(),
        );
        after = page.next.unwrap();
        if after.is_empty() {
            break;
        }
    }
    assert_eq!(pages, ["abcd", "ez"]);
}

#[test]
fn directories_are_made_moved_and_removed() {
    let guest = Guest::start();
    let mut client = guest.connect();
    let (deep, moved) = (guest.path("x/y/z"), guest.path("moved"));
    let make = |path: &str, parents| {
        Ask::MakeDirectory(MakeDirectory { path: path.into(), parents, mode: Some(0o700) })
    };
    assert_eq!(kind(client.ask(make(&deep, false))), FailureKind::NotFound);
    assert_eq!(file(client.ask(make(&deep, true))).mode, 0o700);
    assert_eq!(kind(client.ask(make(&deep, false))), FailureKind::Exists);
    file(client.ask(make(&deep, true)));
    file(client.ask(make(&moved, false)));
    let rename =
        |from: &str, to: &str, overwrite| Ask::Rename(Rename { from: from.into(), to: to.into(), overwrite });
    assert_eq!(kind(client.ask(rename(&guest.path("x/y"), &moved, false))), FailureKind::Exists);
    assert_eq!(file(client.ask(rename(&guest.path("x/y"), &moved, true))).path, moved);
    let full = client.ask(Ask::Remove(Remove { path: moved.clone(), recursive: false })).unwrap_err();
    assert_eq!((full.kind(), full.reason.as_str()), (FailureKind::WrongState, "DIRECTORY_NOT_EMPTY"));
    // Links are removed, never what they point at.
    std::fs::write(guest.path("outside"), "stays").unwrap();
    symlink(guest.path("x"), format!("{moved}/link")).unwrap();
    symlink(guest.path("outside"), format!("{moved}/z/link")).unwrap();
    let mut path = moved.clone();
    for _ in 0..200 {
        path.push_str("/deep");
        std::fs::create_dir(&path).unwrap();
    }
    for number in 0..3000 {
        std::fs::write(format!("{moved}/{number}"), "").unwrap();
    }
    client.ask(Ask::Remove(Remove { path: moved, recursive: true })).unwrap();
    assert_eq!(names(&guest), ["outside", "x"]);
    assert_eq!(
        kind(client.ask(Ask::Remove(Remove { path: "/".into(), recursive: true }))),
        FailureKind::Invalid
    );
    let absent = Remove { path: guest.path("absent"), recursive: true };
    assert_eq!(kind(client.ask(Ask::Remove(absent))), FailureKind::NotFound);
}

/// Makes `depth` directories in each other, with a file in the innermost.
fn dig(top: &str, depth: usize) {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    std::fs::create_dir(top).unwrap();
    let mut here = rustix::fs::open(top, OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&here, "dddd", Mode::RWXU).unwrap();
        here = openat(&here, "dddd", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    openat(&here, "file", OFlags::CREATE | OFlags::RDONLY, Mode::RUSR).unwrap();
}

#[test]
fn trees_deeper_than_paths_are_packed_and_removed() {
    const DEPTH: usize = 1500;
    let guest = Guest::start();
    let top = guest.path("top");
    dig(&top, DEPTH);
    let mut client = guest.connect();
    client.request(Ask::Export(path(&top)));
    client.reply().unwrap();
    let mut archive = tar::Archive::new(client.file());
    let paths: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
    assert_eq!(paths.len(), DEPTH + 2);
    assert_eq!(paths[DEPTH + 1], format!("top{}/file", "/dddd".repeat(DEPTH)).into_bytes());
    client.reply().unwrap();
    client.ask(Ask::Remove(Remove { path: top, recursive: true })).unwrap();
    assert_eq!(names(&guest), [""; 0]);
}

#[test]
fn an_archive_goes_out_and_comes_in() {
    let guest = Guest::start();
    let mut client = guest.connect();
    std::fs::create_dir_all(guest.path("from/sub")).unwrap();
    std::fs::write(guest.path("from/sub/file"), vec![9; 300_000]).unwrap();
    std::fs::set_permissions(guest.path("from/sub/file"), std::fs::Permissions::from_mode(0o751)).unwrap();
    symlink("sub/file", guest.path("from/link")).unwrap();
    client.request(Ask::Export(path(&guest.path("from"))));
    client.reply().unwrap();
    let mut archive = Vec::new();
    client.file().read_to_end(&mut archive).unwrap();
    client.reply().unwrap();

    client.request(Ask::Import(path(&guest.path("to/here"))));
    client.reply().unwrap();
    client.file().write_all(&archive).unwrap();
    assert_eq!(client.reply().unwrap(), Answer::Imported(4));
    let file = guest.path("to/here/from/link");
    assert_eq!(std::fs::read(&file).unwrap(), vec![9; 300_000]);
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o751);
}

#[test]
fn what_a_link_leads_to_goes_out_under_the_name_of_the_link() {
    let guest = Guest::start();
    std::fs::create_dir(guest.path("from")).unwrap();
    std::fs::write(guest.path("from/file"), "content").unwrap();
    symlink("from", guest.path("link")).unwrap();
    symlink("from/file", guest.path("leaf")).unwrap();
    symlink("..", guest.path("from/up")).unwrap();
    symlink("nowhere", guest.path("loose")).unwrap();
    let mut client = guest.connect();
    let mut packed = |asked: &str| {
        client.request(Ask::Export(path(&guest.path(asked))));
        client.reply().unwrap();
        let mut archive = tar::Archive::new(client.file());
        let entry = |entry: tar::Entry<'_, std::fs::File>| {
            (entry.path().unwrap().display().to_string(), entry.header().entry_type())
        };
        let found: Vec<_> = archive.entries().unwrap().map(|found| entry(found.unwrap())).collect();
        client.reply().unwrap();
        found.into_iter().map(|(name, kind)| format!("{name} {kind:?}")).collect::<Vec<_>>()
    };
    assert_eq!(packed("link"), ["link Directory", "link/file Regular", "link/up Symlink"]);
    assert_eq!(packed("leaf"), ["leaf Regular"]);
    assert_eq!(packed("from/up")[0], "up Directory");
    assert_eq!(packed("from/."), ["file Regular", "up Symlink"]);
    client.request(Ask::Export(path(&guest.path("loose"))));
    assert_eq!(client.reply().unwrap_err().kind(), FailureKind::NotFound);
}

fn import(guest: &Guest, archive: &[u8]) -> Result<Answer, hostel_guest_protocol::Failure> {
    let mut client = guest.connect();
    client.request(Ask::Import(path(&guest.path("in"))));
    client.reply().unwrap();
    let _ = client.file().write_all(archive);
    client.reply()
}

#[test]
fn hostile_archives_reach_nothing_outside() {
    let guest = Guest::start();
    std::fs::write(guest.path("victim"), "whole").unwrap();
    let archive = |build: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    };
    let header = |kind, name: &[u8], size| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        header
    };
    let climbing = archive(&|builder| {
        builder.append(&header(tar::EntryType::Regular, b"../victim", 3), &b"bad"[..]).unwrap();
    });
    assert_eq!(import(&guest, &climbing).unwrap_err().kind(), FailureKind::Invalid);
    let through_link = archive(&|builder| {
        let mut link = header(tar::EntryType::Symlink, b"out", 0);
        link.set_link_name("..").unwrap();
        link.set_cksum();
        builder.append(&link, &b""[..]).unwrap();
        builder.append(&header(tar::EntryType::Regular, b"out/victim", 3), &b"bad"[..]).unwrap();
    });
    // The link leads nowhere but to the directory itself.
    import(&guest, &through_link).unwrap();
    assert_eq!(std::fs::read_to_string(guest.path("in/victim")).unwrap(), "bad");
    let over_link = archive(&|builder| {
        let mut link = header(tar::EntryType::Symlink, b"direct", 0);
        link.set_link_name("../victim").unwrap();
        link.set_cksum();
        builder.append(&link, &b""[..]).unwrap();
        builder.append(&header(tar::EntryType::Regular, b"direct", 3), &b"bad"[..]).unwrap();
    });
    import(&guest, &over_link).unwrap();
    let device =
        archive(&|builder| builder.append(&header(tar::EntryType::Char, b"null", 0), &b""[..]).unwrap());
    assert_eq!(import(&guest, &device).unwrap_err().kind(), FailureKind::Invalid);
    // Links whose targets are missing, are directories, or are below files; files in place of directories.
    for (target, name) in
        [("absent", "l"), ("absent/x", "l"), ("d", "l"), ("f/x", "l"), ("f", "f/l"), ("f", "d")]
    {
        let impossible = archive(&|builder| {
            builder.append(&header(tar::EntryType::Directory, b"d/sub", 0), &b""[..]).unwrap();
            builder.append(&header(tar::EntryType::Regular, b"f", 0), &b""[..]).unwrap();
            let mut link = header(tar::EntryType::Link, name.as_bytes(), 0);
            link.set_link_name(target).unwrap();
            link.set_cksum();
            builder.append(&link, &b""[..]).unwrap();
        });
        let refused = import(&guest, &impossible).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.reason.as_str()),
            (FailureKind::Invalid, "archive"),
            "{target} {name}"
        );
    }
    assert_eq!(import(&guest, &[b'x'; 5000]).unwrap_err().kind(), FailureKind::Invalid);
    assert_eq!(std::fs::read_to_string(guest.path("victim")).unwrap(), "whole");
}

#[test]
fn changes_are_told() {
    let guest = Guest::start();
    let mut client = guest.connect();
    std::fs::create_dir(guest.path("w")).unwrap();
    client.ask(Ask::WatchFiles(WatchFiles { path: guest.path("w"), recursive: true })).unwrap();
    let mut wait_for = |kind: FileEventKind, name: &str| loop {
        match client.told().unwrap() {
            Told::Event(GuestEvent::FileEvent(event)) => {
                if event.kind() == kind && event.path == guest.path(name) {
                    return;
                }
            }
            other => panic!("{other:?}"),
        }
    };
    std::fs::write(guest.path("w/a"), "a").unwrap();
    wait_for(FileEventKind::Created, "w/a");
    wait_for(FileEventKind::Modified, "w/a");
    std::fs::create_dir_all(guest.path("w/new/deep")).unwrap();
    wait_for(FileEventKind::Created, "w/new/deep");
    std::fs::write(guest.path("w/new/deep/b"), "b").unwrap();
    wait_for(FileEventKind::Modified, "w/new/deep/b");
    std::fs::set_permissions(guest.path("w/a"), std::fs::Permissions::from_mode(0o600)).unwrap();
    wait_for(FileEventKind::Attributes, "w/a");
    std::fs::remove_file(guest.path("w/a")).unwrap();
    wait_for(FileEventKind::Removed, "w/a");
    std::fs::remove_dir_all(guest.path("w/new")).unwrap();
    wait_for(FileEventKind::Removed, "w/new");
}
