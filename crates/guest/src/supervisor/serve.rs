//! Requests and their answers.

use super::connection::Mode;
use super::event_loop::{EventFlags, Key};
use super::failure::{Outcome, failure, invalid, no_process, refused};
use super::files::{self, list, remove, write};
use super::watch::Watch;
use super::worker::{self, Worker};
use super::{Supervisor, archive, attach};
use hostel_guest_protocol::{
    Activity, Answer, Ask, Attach, Empty, Exec, FailureKind, GuestEvent, MAX_MESSAGE, Processes, Reply,
    Request,
};
use prost::Message;
use rustix::fs::{OFlags, fstat};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// What comes of a request.
enum Response {
    Now(Answer),
    /// With a descriptor beside it.
    With(Answer, OwnedFd),
    Later,
}

const DONE: Response = Response::Now(Answer::Done(Empty {}));

impl Supervisor {
    /// Handles a request. → whether it was one.
    pub(super) fn request(&mut self, serial: u64, payload: &[u8]) -> bool {
        let Ok(request) = Request::decode(payload) else { return false };
        let response = match request.ask {
            Some(ask) => self.ask(serial, ask),
            None => Err(invalid("ask", "this guest does not know that request")),
        };
        let (answer, descriptor) = match response {
            Ok(Response::Now(answer)) => (answer, None),
            Ok(Response::With(answer, descriptor)) => (answer, Some(descriptor)),
            Ok(Response::Later) => return true,
            Err(failure) => (Answer::Failed(failure), None),
        };
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.send(&Reply { answer: Some(answer) }, descriptor);
            // Behind the answer, and at once: nothing may ever happen in what is watched.
            let missed =
                if let Mode::Watching(watch) = &mut connection.mode { watch.overflow() } else { None };
            if let Some(event) = missed {
                connection.tell(GuestEvent::FileEvent(event));
            }
        }
        true
    }

    fn ask(&mut self, serial: u64, ask: Ask) -> Outcome<Response> {
        match ask {
            Ask::Ping(_) => Ok(DONE),
            Ask::Start(spec) => {
                let process = self.start(&spec)?;
                self.describe(process)
            }
            Ask::Attach(ask) => {
                let process = self.find(&ask.id)?;
                self.attach(serial, process, &ask, false)?;
                self.describe(process)
            }
            Ask::Exec(ask) => self.exec(serial, ask),
            Ask::ListProcesses(_) => Ok(Response::Now(Answer::Processes(self.list_processes()))),
            Ask::GetProcess(ask) => {
                let process = self.find(&ask.id)?;
                self.describe(process)
            }
            Ask::Signal(ask) => {
                attach::signal(self.process(&ask.id)?, ask.signal)?;
                Ok(DONE)
            }
            Ask::KillAll(_) => self.kill_all().map(|()| DONE),
            Ask::Resize(ask) => {
                let size = ask.size.ok_or_else(|| invalid("size", "give a size"))?;
                attach::resize(self.process(&ask.id)?, size)?;
                Ok(DONE)
            }
            Ask::Wait(ask) => self.wait_for(serial, &ask.id),
            Ask::Configure(config) => {
                let token = std::mem::take(&mut self.config.token);
                self.configure(hostel_guest_protocol::GuestConfig { token, ..config });
                Ok(DONE)
            }
            Ask::Shutdown(_) => {
                self.shut_down();
                Ok(DONE)
            }
            Ask::GetActivity(_) => Ok(Response::Now(Answer::Activity(self.activity()))),
            Ask::Listen(ask) => {
                let at = ask.at.ok_or_else(|| invalid("at", "say where to listen"))?;
                Ok(Response::With(Answer::Done(Empty {}), self.listen(at)?))
            }
            ask => self.ask_files(serial, ask),
        }
    }

    fn ask_files(&mut self, serial: u64, ask: Ask) -> Outcome<Response> {
        let root = &self.root;
        let file = |file| Ok(Response::Now(Answer::File(file)));
        match ask {
            Ask::Stat(ask) => {
                files::check(&ask.path)?;
                file(root.stat(&ask.path, ask.follow)?)
            }
            Ask::List(ask) => Ok(Response::Now(Answer::Files(list::list(root, &ask)?))),
            Ask::OpenRead(ask) => {
                files::check(&ask.path)?;
                let refused = |errno| refused(errno, &ask.path);
                let opened = root.open_regular(&ask.path, OFlags::RDONLY).map_err(refused)?;
                let stat = fstat(&opened).map_err(refused)?;
                let described = files::describe(ask.path.clone(), &stat, || None);
                Ok(Response::With(Answer::File(described), opened))
            }
            Ask::OpenWrite(ask) => {
                let (pending, described, descriptor) = write::open(root, &ask, self.owner())?;
                if let Some(connection) = self.connections.get_mut(&serial) {
                    connection.write = Some(pending);
                }
                Ok(Response::With(Answer::File(described), descriptor))
            }
            Ask::CommitWrite(_) => {
                let pending =
                    self.connections.get_mut(&serial).and_then(|connection| connection.write.take());
                file(pending.ok_or_else(write::nothing)?.commit()?)
            }
            Ask::MakeDirectory(ask) => file(files::make_directory(root, &ask, self.owner())?),
            Ask::Rename(ask) => file(files::rename(root, &ask)?),
            Ask::Remove(ask) if ask.recursive => {
                let worker = worker::start(Vec::new(), |_| {
                    remove::remove_tree(&worker_root()?, &ask.path).map(|()| Answer::Done(Empty {}))
                })?;
                self.work(serial, worker)
            }
            Ask::Remove(ask) => remove::remove(root, &ask.path).map(|()| DONE),
            Ask::WatchFiles(ask) => {
                let watch = Watch::new(root, &ask)?;
                let added = self.poll.add(watch.descriptor(), Key::Watch(serial), EventFlags::IN);
                added.map_err(|errno| refused(errno, "watch"))?;
                self.set_mode(serial, Mode::Watching(Box::new(watch)));
                Ok(DONE)
            }
            Ask::Import(ask) => {
                let owner = self.owner();
                let (worker, pipe) = archive::import(root, &ask.path, owner)?;
                self.work_with(serial, worker, pipe)
            }
            Ask::Export(ask) => {
                let (worker, pipe) = archive::export(root, &ask.path)?;
                self.work_with(serial, worker, pipe)
            }
            ask => self.ask_contents(serial, ask),
        }
    }

    /// Contents of files as frames; see `frames`.
    fn ask_contents(&mut self, serial: u64, ask: Ask) -> Outcome<Response> {
        match ask {
            Ask::ReadFile(ask) => {
                let worker = self.read_file(serial, &ask)?;
                self.work(serial, worker)
            }
            Ask::WriteFile(ask) => {
                let (worker, file) = self.write_file(serial, &ask)?;
                self.feed(serial, worker, Answer::File(file))
            }
            Ask::ImportFrames(ask) => {
                let worker = self.import_frames(serial, &ask.path)?;
                self.feed(serial, worker, Answer::Done(Empty {}))
            }
            Ask::ExportFrames(ask) => {
                let worker = self.export_frames(serial, &ask.path)?;
                self.work(serial, worker)
            }
            _ => Err(failure(FailureKind::Internal, "a request without an answer", "")),
        }
    }

    fn exec(&mut self, serial: u64, ask: Exec) -> Outcome<Response> {
        let spec = ask.spec.ok_or_else(|| invalid("spec", "say what to run"))?;
        let attach = ask.attach.unwrap_or_else(|| Attach {
            stdout_from: Some(0),
            stderr_from: Some(0),
            stdin: spec.stdin,
            ..Attach::default()
        });
        let process = self.start(&spec)?;
        self.attach(serial, process, &attach, spec.kill_on_disconnect)?;
        // Who talks to it waits for it to be there.
        if !spec.stdin && spec.terminal.is_none() {
            self.hold(serial);
        }
        self.describe(process)
    }

    fn find(&self, id: &str) -> Outcome<u64> {
        let found = self.processes.iter().find(|(_, process)| process.id == id);
        found.map(|(serial, _)| *serial).ok_or_else(|| no_process(id))
    }

    fn process(&mut self, id: &str) -> Outcome<&mut super::Process> {
        self.processes.values_mut().find(|process| process.id == id).ok_or_else(|| no_process(id))
    }

    fn describe(&self, serial: u64) -> Outcome<Response> {
        let process = self.processes.get(&serial).ok_or_else(|| no_process(""))?;
        Ok(Response::Now(Answer::Process(process.message())))
    }

    fn list_processes(&self) -> Processes {
        let told = self.processes.values().filter(|process| !process.unlisted);
        let mut listed = Processes { processes: told.map(super::Process::message).collect() };
        if listed.encoded_len() > MAX_MESSAGE {
            listed.processes.iter_mut().for_each(|process| process.argv.truncate(1));
        }
        listed
    }

    fn wait_for(&mut self, serial: u64, id: &str) -> Outcome<Response> {
        let found = self.find(id)?;
        match self.processes.get_mut(&found) {
            Some(process) if process.is_running() => {
                process.waiting.push(serial);
                self.set_mode(serial, Mode::Waiting(found));
                Ok(Response::Later)
            }
            _ => self.describe(found),
        }
    }

    fn activity(&self) -> Activity {
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        let idle = Instant::now().saturating_duration_since(self.last_end);
        Activity { running, idle_ms: u64::try_from(idle.as_millis()).unwrap_or(u64::MAX) }
    }

    fn set_mode(&mut self, serial: u64, mode: Mode) {
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.mode = mode;
        }
    }

    fn work(&mut self, serial: u64, worker: Worker) -> Outcome<Response> {
        let added = self.poll.add(&worker.status, Key::Worker(serial), EventFlags::IN);
        added.map_err(|errno| refused(errno, "watch the worker"))?;
        self.set_mode(serial, Mode::Working(worker));
        Ok(Response::Later)
    }

    /// The first answer comes at once with a pipe, the second when the work is done.
    fn work_with(&mut self, serial: u64, worker: Worker, pipe: OwnedFd) -> Outcome<Response> {
        self.work(serial, worker)?;
        Ok(Response::With(Answer::Done(Empty {}), pipe))
    }

    /// The same with a worker that reads what the host sends from now on.
    fn feed(&mut self, serial: u64, worker: Worker, answer: Answer) -> Outcome<Response> {
        self.work(serial, worker)?;
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.fed = true;
        }
        Ok(Response::Now(answer))
    }

    pub(super) fn worker_ready(&mut self, serial: u64) {
        let Some(connection) = self.connections.get_mut(&serial) else { return };
        let Mode::Working(worker) = &mut connection.mode else { return };
        let Some(answer) = worker.read() else { return };
        self.poll.remove(&worker.status);
        connection.mode = Mode::Idle;
        // What the worker left unread is content, which must not be taken for requests.
        connection.closing |= std::mem::take(&mut connection.fed) && matches!(answer, Answer::Failed(_));
        connection.send(&Reply { answer: Some(answer) }, None);
        self.proceed(serial);
    }

    pub(super) fn watch_ready(&mut self, serial: u64) {
        let Some(connection) = self.connections.get_mut(&serial) else { return };
        let full = connection.is_full();
        let Mode::Watching(watch) = &mut connection.mode else { return };
        if full {
            // The kernel keeps the rest, or says that it could not.
            self.poll.remove(watch.descriptor());
            watch.paused = true;
            return;
        }
        for event in watch.read() {
            connection.tell(hostel_guest_protocol::GuestEvent::FileEvent(event));
        }
        self.pump(serial);
    }
}

/// A worker has no descriptor of the supervisor's.
pub(super) fn worker_root() -> Outcome<files::Root> {
    files::Root::new().map_err(|errno| refused(errno, "open the root"))
}
