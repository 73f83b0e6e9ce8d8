//! Files and templates over the wire.

use crate::daemon::{Node, Running};
use hostel_proto::v1::{self, CreateSandboxRequest, write_file_request::Frame};
use tonic::{Code, Status};

async fn write(
    daemon: &Running,
    open: v1::WriteFileOpen,
    parts: &[&str],
) -> Result<v1::WriteFileResponse, Status> {
    let mut frames = vec![Frame::Open(open)];
    frames.extend(parts.iter().map(|part| Frame::Data((*part).to_owned().into())));
    let requests = frames.into_iter().map(|frame| v1::WriteFileRequest { frame: Some(frame) });
    let requests = futures::stream::iter(requests.collect::<Vec<_>>());
    Ok(daemon.files().write_file(requests).await?.into_inner())
}

pub(crate) async fn read(daemon: &Running, request: v1::ReadFileRequest) -> Result<Vec<u8>, Status> {
    let mut stream = daemon.files().read_file(request).await?.into_inner();
    let mut content = Vec::new();
    while let Some(message) = stream.message().await? {
        if let Some(v1::read_file_response::Frame::Data(data)) = message.frame {
            assert!(data.len() <= 256 << 10);
            content.extend_from_slice(&data);
        }
    }
    Ok(content)
}

#[tokio::test]
async fn files_are_written_read_listed_and_removed() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let open = |mode: v1::WriteMode| v1::WriteFileOpen {
        sandbox_id: id.clone(),
        path: "/a/file".into(),
        write_mode: mode.into(),
        ..Default::default()
    };
    let written = write(&daemon, open(v1::WriteMode::Create), &["he", "llo"]).await.unwrap();
    assert_eq!((written.bytes_written, written.info.unwrap().size_bytes), (5, 5));
    let again = write(&daemon, open(v1::WriteMode::Create), &["x"]).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    write(&daemon, open(v1::WriteMode::Append), &[" world"]).await.unwrap();
    let request =
        v1::ReadFileRequest { sandbox_id: id.clone(), path: "/a/file".into(), offset: 4, length: Some(3) };
    assert_eq!(read(&daemon, request).await.unwrap(), b"o w");
    for name in ["b", "c"] {
        let open = v1::WriteFileOpen { path: format!("/a/{name}"), ..open(v1::WriteMode::Replace) };
        write(&daemon, open, &[]).await.unwrap();
    }
    let mut request = v1::ListFilesRequest {
        sandbox_id: id.clone(),
        path: "/a".into(),
        page_size: 2,
        ..Default::default()
    };
    let first = daemon.files().list_files(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = daemon.files().list_files(request).await.unwrap().into_inner();
    assert_eq!((first.files.len(), second.files.len(), second.next_page_token.as_str()), (2, 1, ""));
    let remove = v1::RemoveFileRequest { sandbox_id: id.clone(), path: "/a/b".into(), ..Default::default() };
    daemon.files().remove_file(remove.clone()).await.unwrap();
    assert_eq!(daemon.files().remove_file(remove.clone()).await.unwrap_err().code(), Code::NotFound);
    daemon.files().remove_file(v1::RemoveFileRequest { allow_missing: true, ..remove }).await.unwrap();
    let root = v1::RemoveFileRequest { sandbox_id: id, path: "//./".into(), ..Default::default() };
    assert_eq!(daemon.files().remove_file(root).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn paths_and_uploads_that_make_no_sense_are_refused() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    for path in ["", "relative", "/a\0b", &format!("/{}", "x".repeat(300)), &"/x".repeat(3000)] {
        let stat =
            v1::StatFileRequest { sandbox_id: id.clone(), path: path.to_owned(), follow_symlink: false };
        assert_eq!(daemon.files().stat_file(stat).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let open = v1::WriteFileOpen { sandbox_id: id.clone(), path: "/f".into(), ..Default::default() };
    let twice = [Frame::Open(open.clone()), Frame::Open(open.clone())];
    let requests = twice.map(|frame| v1::WriteFileRequest { frame: Some(frame) });
    let error = daemon.files().write_file(futures::stream::iter(requests)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let stat = v1::StatFileRequest { sandbox_id: id, path: "/f".into(), follow_symlink: false };
    assert_eq!(
        daemon.files().stat_file(stat).await.unwrap_err().code(),
        Code::NotFound,
        "nothing was written"
    );
    let error = write(&daemon, v1::WriteFileOpen { offset: 3, ..open }, &[]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn large_pieces_of_a_backend_are_cut() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let export = v1::ExportFilesRequest { sandbox_id: id, path: "/".into(), compression: 0 };
    let mut stream = daemon.files().export_files(export).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        sizes.push(message.data.len());
    }
    assert_eq!(sizes, [256 << 10, 256 << 10, 88 << 10]);
}

#[tokio::test]
async fn templates_are_imported_once_listed_and_removed() {
    let daemon = Node::new().start().await;
    let import = |name: &str, request_id: &str| {
        use v1::import_template_request::Frame;
        let open =
            v1::ImportTemplateOpen { name: name.into(), request_id: request_id.into(), ..Default::default() };
        let frames = [Frame::Open(open), Frame::Data("tar".into())];
        let requests = frames.map(|frame| v1::ImportTemplateRequest { frame: Some(frame) });
        let mut templates = daemon.templates();
        async move { templates.import_template(futures::stream::iter(requests)).await }
    };
    let made = import("base", "r").await.unwrap().into_inner().template.unwrap();
    assert_eq!((made.origin(), made.size_bytes), (v1::TemplateOrigin::Import, Some(3)));
    assert_eq!(import("base", "r").await.unwrap().into_inner().template.unwrap().name, "base");
    assert_eq!(import("base", "").await.unwrap_err().code(), Code::AlreadyExists);
    let list =
        daemon.templates().list_templates(v1::ListTemplatesRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = list.templates.iter().map(|template| template.name.as_str()).collect();
    assert_eq!(names, ["base", "host"]);
    let delete =
        v1::DeleteTemplateRequest { name: "base".into(), allow_missing: false, ..Default::default() };
    daemon.templates().delete_template(delete.clone()).await.unwrap();
    assert_eq!(daemon.templates().delete_template(delete).await.unwrap_err().code(), Code::NotFound);
    let request = CreateSandboxRequest { template: "base".into(), ..Default::default() };
    assert_eq!(daemon.create(request).await.unwrap_err().code(), Code::NotFound);
    let build = daemon.templates().build_template(v1::BuildTemplateRequest::default()).await.unwrap_err();
    assert_eq!(
        (build.code(), crate::daemon::reason(&build).as_str()),
        (Code::InvalidArgument, "INVALID_ARGUMENT"),
        "a build of nothing"
    );
}
