//! Files inside sandboxes, one by one and as archives. Copying whole trees is in [`crate::transfer`].

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::{FileInfo, WriteFile};
use crate::page;
use crate::transfer::feed::{Feed, feed};
use bytes::Bytes;
use hostel_proto::v1;
use hostel_proto::v1::read_file_response::Frame as ReadFrame;
use hostel_proto::v1::{import_files_request, write_file_request};
use hostel_sandbox::SandboxId;
use hostel_sandbox::file::Compression;
use tokio::io::AsyncRead;
use tonic::Streaming;

impl Client {
    /// Tells about a path; links at its end are followed when asked for.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when nothing is there.
    pub async fn stat_file(&self, sandbox: &SandboxId, path: &str, follow_symlink: bool) -> Result<FileInfo> {
        let request =
            v1::StatFileRequest { sandbox_id: sandbox.to_string(), path: path.to_owned(), follow_symlink };
        let response = self.files().stat_file(request).await.map_err(convert::error)?;
        convert::file_info(convert::required(response.into_inner().info, "the file")?)
    }

    /// Lists a directory by name, all pages.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_files(&self, sandbox: &SandboxId, path: &str) -> Result<Vec<FileInfo>> {
        self.list_first_files(sandbox, path, usize::MAX).await
    }

    /// Lists the beginning of a directory by name: at most so many files. For whoever does not trust what is inside.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_first_files(
        &self,
        sandbox: &SandboxId,
        path: &str,
        most: usize,
    ) -> Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListFilesRequest {
                sandbox_id: sandbox.to_string(),
                path: path.to_owned(),
                page_size: 1000,
                page_token: page_token.clone(),
            };
            let response = self.files().list_files(request).await.map_err(convert::error)?.into_inner();
            for file in response.files {
                files.push(convert::file_info(file)?);
            }
            if files.len() >= most || !page::turn(&mut page_token, response.next_page_token)? {
                files.truncate(most);
                return Ok(files);
            }
        }
    }

    /// Makes a directory and those on the way to it; one that is there is fine.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn make_directory(&self, sandbox: &SandboxId, path: &str) -> Result<()> {
        let request = v1::MakeDirectoryRequest {
            sandbox_id: sandbox.to_string(),
            path: path.to_owned(),
            permissions: None,
            create_parents: true,
        };
        self.files().make_directory(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Removes a file or a directory with everything below it.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn remove_file(&self, sandbox: &SandboxId, path: &str, recursive: bool) -> Result<()> {
        let request = v1::RemoveFileRequest {
            sandbox_id: sandbox.to_string(),
            path: path.to_owned(),
            recursive,
            allow_missing: false,
        };
        self.files().remove_file(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Reads a regular file from `offset`, to its end or at most `length` bytes.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn read_file(
        &self,
        sandbox: &SandboxId,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<FileReader> {
        let request =
            v1::ReadFileRequest { sandbox_id: sandbox.to_string(), path: path.to_owned(), offset, length };
        let mut frames = self.files().read_file(request).await.map_err(convert::error)?.into_inner();
        let first = frames.message().await.map_err(convert::error)?.and_then(|message| message.frame);
        let Some(ReadFrame::Info(info)) = first else {
            return convert::required(None, "the file's metadata before its content");
        };
        Ok(FileReader { info: convert::file_info(info)?, frames })
    }

    /// Writes a file from what `content` yields, in place of what is there, atomically. When `content` fails,
    /// everything stays as it was.
    ///
    /// # Errors
    /// [`crate::Error::Local`] when `content` fails, else the daemon's refusal.
    pub async fn write_file(
        &self,
        sandbox: &SandboxId,
        write: WriteFile,
        content: impl AsyncRead + Send + Unpin,
    ) -> Result<FileInfo> {
        use write_file_request::Frame;
        let open = v1::WriteFileOpen {
            sandbox_id: sandbox.to_string(),
            path: write.path,
            write_mode: v1::WriteMode::Replace.into(),
            offset: 0,
            permissions: write.permissions,
            create_parents: write.create_parents,
        };
        let frames = Feed {
            open: v1::WriteFileRequest { frame: Some(Frame::Open(open)) },
            data: |bytes| v1::WriteFileRequest { frame: Some(Frame::Data(bytes)) },
        };
        let mut files = self.files();
        let response = feed(content, frames, |stream| async move { files.write_file(stream).await }).await?;
        convert::file_info(convert::required(response.info, "the file")?)
    }

    /// Unpacks the tar archive that `archive` yields into a directory, which is made if absent. Returns how many
    /// entries there were. An error leaves what was unpacked before it.
    ///
    /// # Errors
    /// [`crate::Error::Local`] when `archive` fails, else the daemon's refusal.
    pub async fn import_files(
        &self,
        sandbox: &SandboxId,
        path: &str,
        compression: Compression,
        archive: impl AsyncRead + Send + Unpin,
    ) -> Result<u64> {
        use import_files_request::Frame;
        let open = v1::ImportFilesOpen {
            sandbox_id: sandbox.to_string(),
            path: path.to_owned(),
            compression: convert::compression(compression),
        };
        let frames = Feed {
            open: v1::ImportFilesRequest { frame: Some(Frame::Open(open)) },
            data: |bytes| v1::ImportFilesRequest { frame: Some(Frame::Data(bytes)) },
        };
        let mut files = self.files();
        let response =
            feed(archive, frames, |stream| async move { files.import_files(stream).await }).await?;
        Ok(response.entries)
    }

    /// Packs a file, or a directory with everything below it, as a tar archive whose names begin with the last
    /// part of the path.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn export_files(
        &self,
        sandbox: &SandboxId,
        path: &str,
        compression: Compression,
    ) -> Result<ByteReader> {
        let request = v1::ExportFilesRequest {
            sandbox_id: sandbox.to_string(),
            path: path.to_owned(),
            compression: convert::compression(compression),
        };
        let response = self.files().export_files(request).await.map_err(convert::error)?;
        Ok(ByteReader(response.into_inner()))
    }
}

/// The content of a file as it arrives.
#[derive(Debug)]
pub struct FileReader {
    info: FileInfo,
    frames: Streaming<v1::ReadFileResponse>,
}

impl FileReader {
    /// The file when it was opened.
    #[must_use]
    pub fn info(&self) -> &FileInfo {
        &self.info
    }

    /// The next bytes; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// What broke the read.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.frames.message().await.map_err(convert::error)? {
            None => Ok(None),
            Some(v1::ReadFileResponse { frame: Some(ReadFrame::Data(data)) }) => Ok(Some(data)),
            Some(_) => convert::required(None, "bytes of the file"),
        }
    }
}

/// The bytes of an archive as they arrive.
#[derive(Debug)]
pub struct ByteReader(Streaming<v1::ExportFilesResponse>);

impl ByteReader {
    /// The next bytes; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// What broke the read.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.message().await.map_err(convert::error)?.map(|message| message.data))
    }
}
