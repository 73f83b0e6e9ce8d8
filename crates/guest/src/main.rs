//! `hostel-guest zygote` clones jails; `hostel-guest supervise` is the first program of a container;
//! `hostel-guest unpack` unpacks a template's archive.

use hostel_guest::{supervisor, unpack, zygote};
use hostel_guest_protocol::GuestConfig;
use prost::Message;
use std::os::{fd::OwnedFd, unix::net::UnixListener};
use std::{ffi::OsString, io::Write, process::ExitCode};

const USAGE: &str = "usage: hostel-guest zygote
       hostel-guest unpack
       hostel-guest supervise --socket PATH [--config FILE] [--spill DIRECTORY]
";

/// Where a container sees its own cgroup, version 2 or 1.
const OOM_COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == "zygote" => zygote::main(),
        Some(command) if command == "unpack" => unpack::main(),
        Some(command) if command == "supervise" => supervise(arguments),
        _ => fail(USAGE),
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = std::io::stderr().write_all(message.as_bytes());
    ExitCode::from(2)
}

fn supervise(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (mut socket, mut config, mut spill) = (None, None, None);
    while let Some(option) = arguments.next() {
        let place = match option.to_str() {
            Some("--socket") => &mut socket,
            Some("--config") => &mut config,
            Some("--spill") => &mut spill,
            _ => return fail(USAGE),
        };
        *place = arguments.next();
    }
    let Some(socket) = socket else { return fail(USAGE) };
    let read = config.map_or(Ok(Vec::new()), std::fs::read);
    let config = read.and_then(|bytes| Ok(GuestConfig::decode(&bytes[..])?));
    let opened = config.and_then(|config| {
        let spill: Option<OwnedFd> =
            spill.map(|path| std::fs::File::open(path).map(OwnedFd::from)).transpose()?;
        let counter = OOM_COUNTERS.iter().find_map(|path| std::fs::File::open(path).ok()).map(OwnedFd::from);
        Ok((config, UnixListener::bind(&socket)?, spill, counter))
    });
    match opened {
        Ok((config, listener, spill, counter)) => {
            supervisor::run_listening(listener.into(), spill, counter, config)
        }
        Err(error) => fail(&format!("hostel-guest: {error}\n")),
    }
}
