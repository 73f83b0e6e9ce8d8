//! `hostel-guest tied`: becomes another program that ends when whoever started it does, however that ends. Without this
//! step each start would have to be a fork, which costs by the memory of its parent.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// How it is called. `PARENT` is the process that starts it, by a thread that lives as long as the program may.
pub const USAGE: &str = "       hostel-guest tied PARENT PROGRAM [ARGUMENT…]\n";

/// Does it. Returns only where it cannot.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = arguments.next().and_then(|parent| parent.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        let _ = std::io::stderr().write_all(["usage:\n", USAGE].concat().as_bytes());
        return ExitCode::from(2);
    };
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have ended before.
    if tied.is_err() || getppid().is_none_or(|found| found.as_raw_nonzero().get() != parent) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(arguments).exec();
    let _ = writeln!(std::io::stderr(), "start {}: {error}", program.display());
    ExitCode::FAILURE
}
