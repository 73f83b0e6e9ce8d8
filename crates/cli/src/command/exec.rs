//! `hostel exec`: a command in a sandbox that is there.

use super::stream::{Ended, Streaming, conclude, stream};
use super::{Context, Outcome, SUCCESS};
use crate::args::{ExecArgs, ProcessOptions};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;
use crate::terminal;
use hostel_client::{Error, Exec, StartProcess};

pub(crate) async fn exec(context: &Context, args: ExecArgs) -> Outcome {
    let mut spec = args.spec()?;
    spec.terminal = args.process.tty.then(|| terminal::size().unwrap_or_default());
    if args.detach {
        let client = context.connect().await?;
        let start = StartProcess { sandbox: args.sandbox, request_id: None, spec };
        let process = client.start_process(start).await?;
        if context.json {
            output::json(&process)?;
        } else {
            output::line(process.id.as_str())?;
        }
        return Ok(SUCCESS);
    }
    check_terminal(&args.process, context.json)?;
    let limit = spec.timeout;
    let mut signals = Signals::listen()?;
    let client = signals.guard(context.connect()).await?;
    let session = signals.guard(client.exec(Exec::new(args.sandbox, spec))).await?;
    let (sandbox, process) = (session.process.sandbox_id.clone(), session.process.id.clone());
    let how = Streaming {
        interactive: args.process.interactive,
        json: context.json,
        forward_signals: true,
        tell_of_reconnecting: context.tells_of_reconnecting(),
    };
    let ended = stream(&client, session, how, &mut signals).await;
    if matches!(ended, Ok(Ended::Left(_)) | Err(Failure::Client(Error::GaveUp { .. }))) {
        // Nobody was told its id yet.
        output::note(&format!("the command may go on: `hostel attach {sandbox} {process}`"));
    }
    Ok(conclude(&ended?, limit, context.json))
}

/// Refuses what does not go together.
pub(crate) fn check_terminal(options: &ProcessOptions, json: bool) -> Result<(), Failure> {
    if json && options.tty {
        return Err(Failure::usage("--json and -t do not go together: a terminal shows text"));
    }
    Ok(())
}
