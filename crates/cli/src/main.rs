//! `hostel`: parse, do, and say how it went by exit code. Data goes to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod args;
mod command;
mod failure;
mod output;
mod signals;
mod terminal;

use args::{Cli, Command};
use clap::Parser as _;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    terminal::restore_on_panic();
    let json = cli.json;
    if json {
        output::notes_in_json();
    }
    // Only a server has work for more than one thread; for a client they are a detour.
    let mut runtime = match cli.command {
        Command::Up(_) | Command::Testkit(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    if let Command::Up(args) = &cli.command {
        // What cannot be is told when the rest is.
        runtime.worker_threads(args.daemon.threads.unwrap_or_else(hosteld::half_of_the_processors).max(1));
    }
    let result = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::other("RUNTIME", format!("cannot start the runtime: {error}")))
        .and_then(|runtime| {
            let result = runtime.block_on(Box::pin(command::execute(cli)));
            // A thread may still wait for a key; it must not keep us.
            runtime.shutdown_background();
            result
        });
    ExitCode::from(match result {
        Ok(code) => code,
        Err(failure) => {
            output::failure(&failure, json);
            failure.exit_code()
        }
    })
}

/// Says what is wrong with the command line, or what was asked of its parser: help, the version.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && args::wants_json(std::env::args_os().skip(1)) {
        let failure = args::failure(error);
        output::failure(&failure, true);
        return ExitCode::from(failure.exit_code());
    }
    // Whoever closed our output does not want to read it.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE))
}
