//! `hostel-guest supervise`: the first program of a container, or a supervisor for tests below any process.

use crate::supervisor::{self, Inherited};
use crate::zygote::confine::{self, Confined};
use hostel_guest_protocol::{GuestConfig, VERSION, Welcome, frame};
use prost::Message;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

/// How to call it.
pub const USAGE: &str = "       hostel-guest supervise --socket PATH [--config FILE] [--spill DIRECTORY]
                    [--report SOCKET] [--confine]
  --config FILE    what the host wants; the file, which holds a secret, is removed once it is read
  --report SOCKET  where the host listens for a first connection, to hear that the sandbox is ready
  --confine        give up rights and take the filter of system calls, as in a jail; without --report the socket
                   is the guest's own user's, as whom a relay has to run
";

/// Where a container sees its own cgroup, version 2 or 1.
const OOM_COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

#[derive(Default)]
struct Options {
    socket: Option<PathBuf>,
    config: Option<PathBuf>,
    spill: Option<PathBuf>,
    report: Option<PathBuf>,
    confine: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut options = Self::default();
        while let Some(option) = arguments.next() {
            let place = match option.to_str()? {
                "--socket" => &mut options.socket,
                "--config" => &mut options.config,
                "--spill" => &mut options.spill,
                "--report" => &mut options.report,
                "--confine" => {
                    options.confine = true;
                    continue;
                }
                _ => return None,
            };
            *place = Some(PathBuf::from(arguments.next()?));
        }
        options.socket.is_some().then_some(options)
    }
}

/// What a supervisor works with, before anything is given up.
fn open(options: &Options) -> io::Result<Inherited> {
    let config = match &options.config {
        None => GuestConfig::default(),
        Some(path) => {
            let bytes = std::fs::read(path)?;
            // Nobody inside shall ever read it.
            let _ = std::fs::remove_file(path);
            GuestConfig::decode(&bytes[..])?
        }
    };
    let socket = options.socket.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
    // A full or missing disk is no reason not to start: long output is then forgotten earlier.
    let spill = options.spill.as_ref().and_then(|path| {
        // Bound in where the root is read-only; elsewhere it is a directory of the root, under the same cap.
        let _ = fs::DirBuilder::new().mode(0o700).create(path);
        File::open(path).ok()
    });
    let counter = OOM_COUNTERS.iter().find_map(|path| File::open(path).ok());
    Ok(Inherited {
        listener: UnixListener::bind(socket)?.into(),
        spill_directory: spill.map(OwnedFd::from),
        oom_counter: counter.map(OwnedFd::from),
        config,
        confined: Confined::default(),
    })
}

/// Does it. Does not return where the supervisor starts.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(options) = Options::parse(arguments) else { return fail(USAGE) };
    match &options.report {
        None => match open(&options).map_err(|error| error.to_string()).and_then(|mut inherited| {
            if options.confine {
                open_to_relays(&options)?;
                inherited.confined = confine::container().map_err(|failed| failed.to_string())?;
            }
            Ok(inherited)
        }) {
            Ok(inherited) => supervisor::run_listening(inherited),
            Err(error) => fail(&format!("hostel-guest: {error}\n")),
        },
        Some(report) => match UnixStream::connect(report) {
            Ok(first) => reporting(&options, first),
            Err(error) => fail(&format!("hostel-guest: connect to {}: {error}\n", report.display())),
        },
    }
}

/// Gives the socket and the directory of our executable to the guest's own user, so that root inside, who has no
/// capabilities, cannot put another program in its place.
fn open_to_relays(options: &Options) -> Result<(), String> {
    let Some(socket) = &options.socket else { return Ok(()) };
    let own = Some(confine::GUEST_ID);
    let here = std::env::current_exe().map_err(|error| format!("find ourselves: {error}"))?;
    for path in here.parent().into_iter().chain([socket.as_path()]) {
        std::os::unix::fs::chown(path, own, own)
            .map_err(|error| format!("give {} away: {error}", path.display()))?;
    }
    Ok(())
}

/// With a host that waits to hear how it went.
fn reporting(options: &Options, mut first: UnixStream) -> ExitCode {
    let begun = open(options).map_err(|error| error.to_string()).and_then(|mut inherited| {
        if options.confine {
            inherited.confined = confine::container().map_err(|failed| failed.to_string())?;
        }
        Ok(inherited)
    });
    match begun {
        Ok(inherited) => supervisor::run(first.into(), inherited),
        Err(failure) => {
            let welcome = Welcome { version: VERSION, failure, ..Welcome::default() };
            let _ = first.write_all(&frame::encode_message(&welcome));
            ExitCode::FAILURE
        }
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = io::stderr().write_all(message.as_bytes());
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::Options;
    use std::ffi::OsString;

    #[test]
    fn options_need_their_values() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(OsString::from));
        assert!(parse("--socket /s --report /r --confine --spill /d").is_some_and(|options| options.confine));
        for wrong in ["", "--socket", "--report /r", "--confine", "--socket /s --what"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
