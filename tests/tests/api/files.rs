//! Paths that cannot be, and paths that would lead out.

use crate::{Stage, blames, refused};
use hostel_proto::v1::{self, import_files_request, write_file_request};
use tonic::Code;

/// Paths that are none, whatever is there.
fn wrong_paths() -> Vec<String> {
    let mut paths: Vec<String> = ["", "relative", "../x", "/a\0b", "\0"].map(str::to_owned).into();
    paths.push(format!("/{}", "a".repeat(300)));
    paths.push(format!("/{}", "a/".repeat(3000)));
    paths.push(format!("/{}", "a".repeat(3 << 20)));
    paths
}

fn write(
    sandbox_id: &str,
    path: &str,
    data: &'static [u8],
) -> impl tonic::IntoStreamingRequest<Message = v1::WriteFileRequest> {
    let open = v1::WriteFileOpen { sandbox_id: sandbox_id.into(), path: path.into(), ..Default::default() };
    let frames = [write_file_request::Frame::Open(open), write_file_request::Frame::Data(data.into())];
    tokio_stream::iter(frames.map(|frame| v1::WriteFileRequest { frame: Some(frame) }))
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_cannot_be_are_refused_by_every_call() {
    let stage = Stage::set().await;
    let files = stage.api.files();
    for path in wrong_paths() {
        let (sandbox_id, at) = (|| stage.victim.clone(), || path.clone());
        let read = v1::ReadFileRequest { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        blames("path", &path, files.clone().read_file(read).await);
        blames("path", &path, files.clone().write_file(write(&stage.victim, &path, b"x")).await);
        let stat = v1::StatFileRequest { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        blames("path", &path, files.clone().stat_file(stat).await);
        let list = v1::ListFilesRequest { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        blames("path", &path, files.clone().list_files(list).await);
        let make = v1::MakeDirectoryRequest { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        blames("path", &path, files.clone().make_directory(make).await);
        let remove = v1::RemoveFileRequest {
            sandbox_id: sandbox_id(),
            path: at(),
            recursive: true,
            allow_missing: true,
        };
        blames("path", &path, files.clone().remove_file(remove).await);
        let watch = v1::WatchFilesRequest { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        blames("path", &path, files.clone().watch_files(watch).await);
        let export = v1::ExportFilesRequest { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        blames("path", &path, files.clone().export_files(export).await);
        let open = v1::ImportFilesOpen { sandbox_id: sandbox_id(), path: at(), ..Default::default() };
        let import = v1::ImportFilesRequest { frame: Some(import_files_request::Frame::Open(open)) };
        blames("path", &path, files.clone().import_files(tokio_stream::iter([import])).await);
        for (field, source, target) in [
            ("source_path", path.as_str(), "/workspace/x"),
            ("destination_path", "/workspace/x", path.as_str()),
        ] {
            let (source_path, destination_path) = (source.to_owned(), target.to_owned());
            let rename = v1::MoveFileRequest {
                sandbox_id: sandbox_id(),
                source_path,
                destination_path,
                replace: true,
            };
            blames(field, &path, files.clone().move_file(rename).await);
        }
    }
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_sandbox() {
    let stage = Stage::set().await;
    let files = stage.api.files();
    let secret = stage.daemon.home().join("secret");
    std::fs::write(&secret, "of the host").unwrap();
    let secret = secret.display().to_string();
    let _ = stage
        .daemon
        .shell(&stage.victim, &format!("ln -s {secret} /workspace/link; ln -s /../../.. /workspace/up"));
    for path in [
        secret.clone(),
        format!("/../../..{secret}"),
        "/workspace/link".to_owned(),
        format!("/workspace/up{secret}"),
        format!("/proc/1/root{secret}"),
        format!("/proc/self/root/..{secret}"),
    ] {
        let read = v1::ReadFileRequest {
            sandbox_id: stage.victim.clone(),
            path: path.clone(),
            ..Default::default()
        };
        let (code, _) = refused(files.clone().read_file(read).await);
        assert!(
            matches!(code, Code::NotFound | Code::PermissionDenied | Code::InvalidArgument),
            "{path}: {code:?}"
        );
        let written = files.clone().write_file(write(&stage.victim, &path, b"from inside")).await;
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of the host", "{path}: {written:?}");
    }
    let root = v1::RemoveFileRequest {
        sandbox_id: stage.victim.clone(),
        path: "/./".into(),
        recursive: true,
        allow_missing: false,
    };
    blames("path", "the root", files.clone().remove_file(root).await);
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_break_their_rules_leave_the_file_as_it_was() {
    let stage = Stage::set().await;
    let files = stage.api.files();
    let _ = stage.daemon.shell(&stage.victim, "echo old > /workspace/file");
    let open = || {
        let open = v1::WriteFileOpen {
            sandbox_id: stage.victim.clone(),
            path: "/workspace/file".into(),
            ..Default::default()
        };
        v1::WriteFileRequest { frame: Some(write_file_request::Frame::Open(open)) }
    };
    let data = |length| v1::WriteFileRequest {
        frame: Some(write_file_request::Frame::Data(vec![b'x'; length].into())),
    };
    let nothing = || v1::WriteFileRequest { frame: None };
    let send = |frames: Vec<v1::WriteFileRequest>| {
        let mut files = files.clone();
        async move { files.write_file(tokio_stream::iter(frames)).await }
    };
    blames("open", "nothing at all", send(vec![]).await);
    blames("open", "bytes first", send(vec![data(1), open()]).await);
    blames("open", "opened twice", send(vec![open(), data(1), open()]).await);
    blames("frame", "an empty frame", send(vec![open(), data(1), nothing()]).await);
    blames("data", "a long piece", send(vec![open(), data((1 << 20) + 1)]).await);
    assert_eq!(stage.daemon.shell(&stage.victim, "cat /workspace/file; ls -A /workspace"), "old\nfile");
    stage.clear();
}
