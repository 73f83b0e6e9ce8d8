//! `hostel up`: the daemon, and the session server over it, in this process.

use super::{Outcome, SUCCESS};
use crate::args::UpArgs;
use crate::failure::Failure;
use crate::signals::{self, Signals};
use hosteld::listen::Address;
use std::net::SocketAddr;
use std::path::Path;
use tokio::sync::Notify;

pub(crate) async fn up(args: UpArgs) -> Outcome {
    hosteld::logging::start(args.daemon.log_format);
    let failed = |error: hosteld::Error| Failure::other("DAEMON", error.to_string());
    let mut signals = Signals::listen()?;
    let config = args.daemon.configure().map_err(failed)?;
    let state = config.state_directory.clone();
    let daemon = Box::pin(hosteld::build(config)).await.map_err(failed)?;
    let sessions = match args.no_sessions {
        true => None,
        false => Some(Box::pin(sessions(daemon.addresses(), &state, args.sessions_listen)).await?),
    };
    let (stop_sessions, stop_daemon) = (Notify::new(), Notify::new());
    // Sessions first: they let go of their agents through the daemon.
    let serve_sessions = async {
        let result = match sessions {
            // It finds the daemon as soon as that serves.
            Some(server) => match server.spawn().await {
                Ok(running) => {
                    stop_sessions.notified().await;
                    running.stop().await;
                    Ok(())
                }
                Err(error) => Err(no_sessions(&error)),
            },
            None => {
                stop_sessions.notified().await;
                Ok(())
            }
        };
        stop_daemon.notify_one();
        result
    };
    // The first signal ends both in good order; whoever signals twice does not want to wait for that.
    let impatience = async {
        signals.end().await;
        stop_sessions.notify_one();
        signals.end().await
    };
    let both = async {
        let daemon = async {
            let result = daemon.run(stop_daemon.notified()).await.map_err(failed);
            stop_sessions.notify_one();
            result
        };
        let (daemon, sessions) = tokio::join!(daemon, serve_sessions);
        sessions.and(daemon)
    };
    tokio::select! {
        result = Box::pin(both) => result.map(|()| SUCCESS),
        signal = impatience => Ok(signals::exit_code(signal)),
    }
}

/// A session server over the daemon, bound and not running. It keeps its files beside the daemon's.
async fn sessions(
    daemon: &[Address],
    state: &Path,
    listen: Option<SocketAddr>,
) -> Result<hostel_sessiond::Server, Failure> {
    let mut arguments =
        hostel_sessiond::Arguments::from_environment().map_err(|error| no_sessions(&error))?;
    arguments.listen = listen.or(arguments.listen);
    arguments.state_dir = arguments.state_dir.or_else(|| Some(state.to_owned()));
    let unix = daemon.iter().find(|address| matches!(address, Address::Unix(_)));
    arguments.daemon = unix.or(daemon.first()).map(|address| match address {
        Address::Unix(_) => address.to_string(),
        Address::Tcp(address) => format!("http://{address}"),
    });
    let config = arguments.configure().map_err(|error| no_sessions(&error))?;
    hostel_sessiond::Server::build(config).await.map_err(|error| no_sessions(&error))
}

fn no_sessions(error: &hostel_sessiond::Error) -> Failure {
    let message = format!("the session server: {error}; --no-sessions starts the daemon alone");
    Failure::other("SESSION_SERVER", message)
}
