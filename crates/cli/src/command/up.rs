//! `hostel up`: the daemon in this process.

use super::{Outcome, SUCCESS};
use crate::args::UpArgs;
use crate::failure::Failure;
use crate::signals::{self, Signals};
use tokio::sync::Notify;

pub(crate) async fn up(args: UpArgs) -> Outcome {
    hosteld::logging::start(args.daemon.log_format);
    let failed = |error: hosteld::Error| Failure::other("DAEMON", error.to_string());
    let mut signals = Signals::listen()?;
    let config = args.daemon.configure().map_err(failed)?;
    let daemon = Box::pin(hosteld::build(config)).await.map_err(failed)?;
    let stop = Notify::new();
    // The first signal ends the daemon in good order; whoever signals twice does not want to wait for that.
    let impatience = async {
        signals.end().await;
        stop.notify_one();
        signals.end().await
    };
    tokio::select! {
        result = daemon.run(stop.notified()) => result.map_err(failed).map(|()| SUCCESS),
        signal = impatience => Ok(signals::exit_code(signal)),
    }
}
