//! Processes and files of the backend in memory.

use super::{Process, Sandbox};
use async_trait::async_trait;
use bytes::Bytes;
use hostel_sandbox::file::{
    ByteStream, Compression, FileEvent, FileEventKind, FileInfo, FilePage, WriteOptions,
};
use hostel_sandbox::process::{
    AttachOptions, Attachment, ExitReason, Input, Output, OutputStream, ProcessInfo, ProcessSpec,
    StartRequest, TerminalSize,
};
use hostel_sandbox::{Error, Files, ListenAddress, Listeners, ProcessId, Processes, Result};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

#[async_trait]
impl Processes for Sandbox {
    /// `echo WORDS` ends at once, `flood BYTES` writes, `sleep` and `cat` run until they are ended.
    async fn start(&self, spec: ProcessSpec) -> Result<ProcessInfo> {
        let id = spec.id.clone().unwrap_or_else(ProcessId::generate);
        let info = ProcessInfo {
            id: id.clone(),
            argv: spec.argv.clone(),
            pid: 7,
            terminal: spec.terminal.is_some(),
            start_time: SystemTime::now(),
            exit: None,
            stdout: 0..0,
            stderr: 0..0,
            stdin_offset: 0,
            user: spec.user.clone().unwrap_or_else(|| "root".to_owned()),
            cwd: spec.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        };
        let process = Arc::new(Process {
            request: spec.request,
            info: Mutex::new(info.clone()),
            ended: watch::Sender::new(None),
            output: Mutex::default(),
        });
        if !["echo", "flood", "sleep", "cat"].contains(&spec.argv[0].as_str()) {
            return Err(Error::invalid("argv", format!("no program {:?}", spec.argv[0])));
        }
        {
            let mut processes = self.processes.lock().unwrap();
            let asked = spec.request.and_then(|request| {
                processes.values().find(|other| other.request.is_some_and(|one| one.key == request.key))
            });
            if let Some(started) = asked {
                let other = Error::AlreadyExists { kind: StartRequest::KIND, id: id.to_string() };
                let same = started.request == spec.request;
                return if same { Ok(started.info.lock().unwrap().clone()) } else { Err(other) };
            }
            if processes.contains_key(&id) {
                return Err(Error::AlreadyExists { kind: "process", id: id.to_string() });
            }
            processes.insert(id, Arc::clone(&process));
        }
        match spec.argv[0].as_str() {
            "echo" => {
                *process.output.lock().unwrap() = format!("{}\n", spec.argv[1..].join(" ")).into_bytes();
                process.end(Some(0), None, ExitReason::Exited);
            }
            "flood" => {
                *process.output.lock().unwrap() = vec![b'x'; spec.argv[1].parse().unwrap()];
                process.end(Some(3), None, ExitReason::Exited);
            }
            _ => {}
        }
        Ok(info)
    }

    async fn attach(&self, id: &ProcessId, options: AttachOptions) -> Result<Attachment> {
        let process = self.find(id)?;
        let (input, mut inputs) = mpsc::channel::<Input>(8);
        let (outputs, output) = mpsc::channel(8);
        let mut ended = process.ended.subscribe();
        #[expect(clippy::disallowed_methods, reason = "ends with its channels")]
        tokio::spawn(async move {
            let mut info = process.info.lock().unwrap().clone();
            info.stdout.end = process.output.lock().unwrap().len() as u64;
            let mut offset = options.stdout_from.unwrap_or(info.stdout.end);
            let _ = outputs.send(Ok(Output::Opened(info))).await;
            loop {
                let data = process.output.lock().unwrap()[offset as usize..].to_vec();
                for chunk in data.chunks(256 << 10) {
                    let data = Bytes::copy_from_slice(chunk);
                    let stream = OutputStream::Stdout;
                    if outputs.send(Ok(Output::Data { stream, offset, data })).await.is_err() {
                        return;
                    }
                    offset += chunk.len() as u64;
                }
                let exit = ended.borrow_and_update().clone();
                if let Some(exit) = exit {
                    let _ = outputs.send(Ok(Output::Exited(exit))).await;
                    return;
                }
                tokio::select! {
                    biased;
                    Some(input) = inputs.recv() => {
                        if let Some(offset) = process.take(input) {
                            let _ = outputs.send(Ok(Output::StdinAccepted { offset })).await;
                        }
                    }
                    _ = ended.changed() => {}
                    () = outputs.closed() => return,
                }
            }
        });
        Ok(Attachment { input, output })
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        while self.host.mute.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self
            .processes
            .lock()
            .unwrap()
            .values()
            .map(|process| process.info.lock().unwrap().clone())
            .collect())
    }

    async fn process(&self, id: &ProcessId) -> Result<ProcessInfo> {
        Ok(self.find(id)?.info.lock().unwrap().clone())
    }

    async fn signal(&self, id: &ProcessId, signal: i32) -> Result<()> {
        self.find(id)?.end(None, Some(signal), ExitReason::Signaled);
        Ok(())
    }

    async fn kill_all(&self) -> Result<()> {
        for process in self.processes.lock().unwrap().values() {
            process.end(None, Some(9), ExitReason::Signaled);
        }
        Ok(())
    }

    async fn resize(&self, id: &ProcessId, _: TerminalSize) -> Result<()> {
        self.find(id).map(|_| ())
    }

    async fn wait(&self, id: &ProcessId) -> Result<ProcessInfo> {
        let process = self.find(id)?;
        process.ended.subscribe().wait_for(Option::is_some).await.unwrap();
        // It may be forgotten by now.
        Ok(process.info.lock().unwrap().clone())
    }
}

#[async_trait]
impl Files for Sandbox {
    async fn stat(&self, path: &str, _: bool) -> Result<FileInfo> {
        self.info(path)
    }

    async fn list(&self, path: &str, after: Option<&[u8]>, limit: usize) -> Result<FilePage> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let names: Vec<String> = self.files.lock().unwrap().keys().cloned().collect();
        let names = names.iter().filter_map(|name| name.strip_prefix(&below));
        let wanted: Vec<&str> =
            names.filter(|name| after.is_none_or(|after| name.as_bytes() > after)).collect();
        let page = &wanted[..limit.min(wanted.len())];
        let files = page.iter().map(|name| self.info(&format!("{below}{name}"))).collect::<Result<_>>()?;
        let last = page.last().filter(|_| wanted.len() > limit);
        Ok(FilePage { files, next: last.map(|name| name.as_bytes().to_vec()) })
    }

    async fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<(FileInfo, ByteStream)> {
        let info = self.info(path)?;
        let content = self.files.lock().unwrap()[path].clone();
        let start = (offset as usize).min(content.len());
        let end = length.map_or(content.len(), |length| (start + length as usize).min(content.len()));
        let (sender, bytes) = mpsc::channel(1);
        sender.try_send(Ok(content.slice(start..end))).unwrap();
        Ok((info, bytes))
    }

    async fn write(&self, path: &str, options: WriteOptions, mut content: ByteStream) -> Result<FileInfo> {
        while self.hung.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if self.dead.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { what: "guest", detail: "it has ended".to_owned() });
        }
        if path.starts_with("/proc/") {
            return Err(Error::PermissionDenied("nobody writes there".to_owned()));
        }
        let mut whole = match options.offset {
            Some(offset) => {
                let old = self.files.lock().unwrap().get(path).cloned().unwrap_or_default();
                old.slice(..offset as usize).to_vec()
            }
            None => Vec::new(),
        };
        if options.must_not_exist && self.info(path).is_ok() {
            return Err(Error::AlreadyExists { kind: "file", id: path.to_owned() });
        }
        while let Some(bytes) = content.recv().await {
            whole.extend_from_slice(&bytes?);
        }
        self.files.lock().unwrap().insert(path.to_owned(), whole.into());
        self.info(path)
    }

    async fn make_directory(&self, path: &str, _: bool, _: Option<u32>) -> Result<FileInfo> {
        self.files.lock().unwrap().insert(path.to_owned(), Bytes::new());
        self.info(path)
    }

    async fn rename(&self, from: &str, to: &str, _: bool) -> Result<FileInfo> {
        let content =
            self.files.lock().unwrap().remove(from).ok_or_else(|| Error::not_found("file", from))?;
        self.files.lock().unwrap().insert(to.to_owned(), content);
        self.info(to)
    }

    async fn remove(&self, path: &str, _: bool) -> Result<()> {
        let removed = self.files.lock().unwrap().remove(path);
        removed.map(|_| ()).ok_or_else(|| Error::not_found("file", path))
    }

    async fn watch(&self, path: &str, _: bool) -> Result<mpsc::Receiver<Result<FileEvent>>> {
        let (sender, events) = mpsc::channel(4);
        let event = FileEvent { kind: FileEventKind::Created, path: format!("{path}/new") };
        sender.try_send(Ok(event)).unwrap();
        // Kept open until the receiver goes away.
        #[expect(clippy::disallowed_methods, reason = "ends with its channel")]
        tokio::spawn(async move { sender.closed().await });
        Ok(events)
    }

    async fn import(&self, _: &str, _: Compression, mut archive: ByteStream) -> Result<u64> {
        let mut entries = 0;
        while let Some(bytes) = archive.recv().await {
            bytes?;
            entries += 1;
        }
        Ok(entries)
    }

    async fn export(&self, _: &str, _: Compression) -> Result<ByteStream> {
        let (sender, bytes) = mpsc::channel(1);
        sender.try_send(Ok(Bytes::from(vec![1; 600 << 10]))).unwrap();
        Ok(bytes)
    }
}

#[async_trait]
impl Listeners for Sandbox {
    async fn listen(&self, _: &ListenAddress) -> Result<OwnedFd> {
        Ok(std::net::TcpListener::bind("127.0.0.1:0")
            .map_err(|error| Error::internal("listen", error))?
            .into())
    }
}
