//! `hosteld`: parse, build, run until told to stop.
#![forbid(unsafe_code)]

use clap::Parser;
use hosteld::arguments::Arguments;
use hosteld::{Config, Error, logging};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The execution daemon of Hostel: sandboxes on this machine, over gRPC.
#[derive(Debug, Parser)]
#[command(version, about)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    /// Check the configuration, say what it is, and exit.
    #[arg(long)]
    check: bool,
}

/// EX_CONFIG of sysexits(3).
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let CommandLine { arguments, check } = CommandLine::parse();
    logging::start(arguments.log_format);
    match arguments.configure() {
        Err(error) => fail(&error, BAD_CONFIGURATION),
        Ok(config) if check => {
            let (text, problems) = hosteld::templates::check(&config);
            println!("{text}");
            problems.iter().for_each(|problem| eprintln!("hosteld: {problem}"));
            ExitCode::from(if problems.is_empty() { 0 } else { BAD_CONFIGURATION })
        }
        Ok(config) => run(config),
    }
}

fn run(config: Config) -> ExitCode {
    let threads = config.threads;
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&Error::Config(format!("start the runtime: {error}")), 1),
        };
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), state = %config.state_directory.display(), "starting");
        let daemon = tokio::select! {
            built = hosteld::build(config) => built?,
            // What it began is taken up again at the next start, as after a crash.
            () = signals.next() => {
                tracing::info!("stopped before it had started");
                return Ok(());
            }
        };
        daemon.run(signals.first_then_exit_on_second()).await
    });
    // Nothing of worth is under way any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Config(format!("listen to signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Resolves at the first signal. From then on a second one ends the process at once.
    async fn first_then_exit_on_second(mut self) {
        self.next().await;
        tracing::info!("stopping; a second signal exits at once");
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            runtime.block_on(self.next());
            std::process::exit(130);
        });
    }
}

fn fail(error: &Error, code: u8) -> ExitCode {
    eprintln!("hosteld: {error}");
    ExitCode::from(code)
}
