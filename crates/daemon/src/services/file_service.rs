//! `FileService`.

use super::byte_streams::Pieces;
use super::upload::{self, Upload};
use super::{Answer, Frames};
use crate::convert::file::{self as convert, WritePlan};
use crate::convert::sandbox_id;
use crate::error::{Error, Result};
use crate::page;
use crate::sandboxes::{Lease, Sandboxes};
use crate::status::invalid;
use futures::{Stream, StreamExt as _};
use hostel_proto::v1::file_service_server::FileService;
use hostel_proto::v1::{self, read_file_response};
use hostel_sandbox::file::{FilePage, WriteOptions};
use hostel_sandbox::{Capability, Error as DomainError};
use std::sync::atomic::Ordering;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service over the files of all sandboxes.
pub(crate) struct Files(pub Sandboxes);

#[tonic::async_trait]
impl FileService for Files {
    type ReadFileStream = Frames<v1::ReadFileResponse>;

    async fn read_file(&self, request: Request<v1::ReadFileRequest>) -> Answer<Self::ReadFileStream> {
        let request = request.into_inner();
        let lease = self.enter(request.sandbox_id, "path", &request.path)?;
        let read = lease.inside()?.read(&request.path, request.offset, request.length).await;
        let (info, bytes) = read.map_err(Error::from)?;
        let frame = |frame| v1::ReadFileResponse { frame: Some(frame) };
        let first = Ok(frame(read_file_response::Frame::Info(convert::api_file(info))));
        let pieces = self.pieces(bytes, lease);
        let rest = pieces.map(move |piece| Ok(frame(read_file_response::Frame::Data(piece?))));
        Ok(Response::new(Box::pin(futures::stream::iter([first]).chain(rest))))
    }

    async fn write_file(
        &self,
        request: Request<Streaming<v1::WriteFileRequest>>,
    ) -> Answer<v1::WriteFileResponse> {
        let mut stream = request.into_inner();
        let open = upload::open(&mut stream).await?;
        let plan = convert::write_plan(&open)?;
        let lease = self.enter(open.sandbox_id, "path", &open.path)?;
        let options = match plan {
            WritePlan::At(options) => options,
            WritePlan::Append(options) => append(&lease, &open.path, options).await?,
        };
        let Upload { bytes, count, reader } = self.upload(stream);
        let written = lease.inside()?.write(&open.path, options, bytes).await;
        drop(reader);
        let info = Some(convert::api_file(written.map_err(Error::from)?));
        let bytes_written = count.load(Ordering::Relaxed);
        Ok(Response::new(v1::WriteFileResponse { info, bytes_written }))
    }

    async fn stat_file(&self, request: Request<v1::StatFileRequest>) -> Answer<v1::StatFileResponse> {
        let request = request.into_inner();
        let lease = self.enter(request.sandbox_id, "path", &request.path)?;
        let info = lease.inside()?.stat(&request.path, request.follow_symlink).await;
        Ok(Response::new(v1::StatFileResponse { info: Some(convert::api_file(info.map_err(Error::from)?)) }))
    }

    async fn list_files(&self, request: Request<v1::ListFilesRequest>) -> Answer<v1::ListFilesResponse> {
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let filter = ["files".to_owned(), request.sandbox_id.clone(), request.path.clone()];
        let filter = [filter[0].as_str(), &filter[1], &filter[2]];
        let after: Option<Vec<u8>> = page::position(&request.page_token, &filter)?;
        let lease = self.enter(request.sandbox_id.clone(), "path", &request.path)?;
        let listed = lease.inside()?.list(&request.path, after.as_deref(), size).await;
        let FilePage { files, next } = listed.map_err(Error::from)?;
        let next_page_token = next.map(|name| page::token(&name, &filter)).unwrap_or_default();
        let files = files.into_iter().map(convert::api_file).collect();
        Ok(Response::new(v1::ListFilesResponse { files, next_page_token }))
    }

    async fn make_directory(
        &self,
        request: Request<v1::MakeDirectoryRequest>,
    ) -> Answer<v1::MakeDirectoryResponse> {
        let request = request.into_inner();
        let mode = convert::permissions(request.permissions)?;
        let lease = self.enter(request.sandbox_id, "path", &request.path)?;
        let made = lease.inside()?.make_directory(&request.path, request.create_parents, mode).await;
        let info = Some(convert::api_file(made.map_err(Error::from)?));
        Ok(Response::new(v1::MakeDirectoryResponse { info }))
    }

    async fn move_file(&self, request: Request<v1::MoveFileRequest>) -> Answer<v1::MoveFileResponse> {
        let request = request.into_inner();
        convert::path("destination_path", &request.destination_path)?;
        let lease = self.enter(request.sandbox_id, "source_path", &request.source_path)?;
        let moved =
            lease.inside()?.rename(&request.source_path, &request.destination_path, request.replace).await;
        let info = Some(convert::api_file(moved.map_err(Error::from)?));
        Ok(Response::new(v1::MoveFileResponse { info }))
    }

    async fn remove_file(&self, request: Request<v1::RemoveFileRequest>) -> Answer<v1::RemoveFileResponse> {
        let request = request.into_inner();
        let lease = self.enter(request.sandbox_id, "path", &request.path)?;
        if request.path.split('/').all(|part| part.is_empty() || part == ".") {
            return Err(invalid("path", "the root cannot be removed"));
        }
        match lease.inside()?.remove(&request.path, request.recursive).await {
            Err(DomainError::NotFound { kind: "file", .. }) if request.allow_missing => {}
            other => other.map_err(Error::from)?,
        }
        Ok(Response::new(v1::RemoveFileResponse {}))
    }

    type WatchFilesStream = Frames<v1::WatchFilesResponse>;

    async fn watch_files(&self, request: Request<v1::WatchFilesRequest>) -> Answer<Self::WatchFilesStream> {
        let request = request.into_inner();
        let lease = self.enter(request.sandbox_id, "path", &request.path)?;
        self.require(&lease, Capability::FileWatch)?;
        let watched = lease.inside()?.watch(&request.path, request.recursive).await;
        let events = ReceiverStream::new(watched.map_err(Error::from)?);
        let path = request.path;
        let frame = |event| Ok(v1::WatchFilesResponse { event: Some(event) });
        let first = frame(convert::api_watching(&path));
        let rest = events.map(move |event| {
            let _in_use = &lease;
            frame(convert::api_event(&path, event.map_err(Error::from)?))
        });
        Ok(Response::new(self.until_shutdown(futures::stream::iter([first]).chain(rest))))
    }

    async fn import_files(
        &self,
        request: Request<Streaming<v1::ImportFilesRequest>>,
    ) -> Answer<v1::ImportFilesResponse> {
        let mut stream = request.into_inner();
        let open = upload::open(&mut stream).await?;
        let compression = convert::compression(open.compression)?;
        let lease = self.enter(open.sandbox_id, "path", &open.path)?;
        let Upload { bytes, reader, .. } = self.upload(stream);
        let imported = lease.inside()?.import(&open.path, compression, bytes).await;
        drop(reader);
        Ok(Response::new(v1::ImportFilesResponse { entries: imported.map_err(Error::from)? }))
    }

    type ExportFilesStream = Frames<v1::ExportFilesResponse>;

    async fn export_files(
        &self,
        request: Request<v1::ExportFilesRequest>,
    ) -> Answer<Self::ExportFilesStream> {
        let request = request.into_inner();
        let compression = convert::compression(request.compression)?;
        let lease = self.enter(request.sandbox_id, "path", &request.path)?;
        let exported = lease.inside()?.export(&request.path, compression).await;
        let pieces = self.pieces(exported.map_err(Error::from)?, lease);
        let frames = pieces.map(|piece| Ok(v1::ExportFilesResponse { data: piece? }));
        Ok(Response::new(Box::pin(frames)))
    }
}

impl Files {
    fn enter(&self, sandbox: String, field: &str, path: &str) -> Result<Lease> {
        convert::path(field, path)?;
        self.0.enter(&sandbox_id(sandbox)?)
    }

    fn require(&self, lease: &Lease, capability: Capability) -> Result<()> {
        match self.0.backends().get(&lease.record().backend) {
            Some(backend) => Ok(backend.capabilities().require(capability)?),
            None => Ok(()),
        }
    }

    fn pieces(&self, bytes: hostel_sandbox::file::ByteStream, lease: Lease) -> Pieces {
        Pieces::new(bytes, lease, self.0.stopping().clone())
    }

    fn upload<M: upload::UploadMessage>(&self, stream: Streaming<M>) -> Upload {
        upload::bytes(stream, None, self.0.tasks(), self.0.stopping().clone())
    }

    /// Ends a stream with UNAVAILABLE when the daemon shuts down.
    fn until_shutdown<T: Send + 'static>(
        &self,
        frames: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Frames<T> {
        let stop = self.0.stopping().clone();
        let ending = futures::stream::once(async move { stop.cancelled_owned().await })
            .map(|()| Some(Err(Error::Draining.into())));
        let frames = frames.map(Some).chain(futures::stream::iter([None]));
        let both = futures::stream::select(frames, ending);
        Box::pin(both.scan(false, |over, item| {
            let item = item.filter(|_| !*over);
            *over = matches!(item, Some(Err(_)) | None);
            std::future::ready(item)
        }))
    }
}

/// Writing from the end of the file on, or a new file where there is none.
async fn append(lease: &Lease, path: &str, options: WriteOptions) -> Result<WriteOptions> {
    let end = match lease.inside()?.stat(path, true).await {
        Ok(info) => info.size,
        Err(DomainError::NotFound { .. }) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(WriteOptions { offset: Some(end), ..options })
}
