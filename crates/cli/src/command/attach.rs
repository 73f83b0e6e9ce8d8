//! `hostel attach`: the streams of a process that was started before.

use super::stream::{Ended, Streaming, conclude, stream};
use super::{Context, Outcome};
use crate::args::AttachArgs;
use crate::output;
use crate::signals::Signals;
use hostel_client::{Attach, Stdin};

pub(crate) async fn attach(context: &Context, args: AttachArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let client = signals.guard(context.connect()).await?;
    let attach = Attach {
        from: (!args.new).then_some((args.from, args.stderr_from)),
        stdin: match (args.interactive, args.take_over) {
            (false, _) => Stdin::None,
            (true, false) => Stdin::Write,
            (true, true) => Stdin::TakeOver,
        },
        ..Attach::new(args.process.sandbox, args.process.process)
    };
    let session = signals.guard(client.attach(attach)).await?;
    let process = session.process.id.clone();
    let how = Streaming {
        interactive: args.interactive,
        json: context.json,
        forward_signals: false,
        tell_of_reconnecting: context.tells_of_reconnecting(),
    };
    let ended = stream(&client, session, how, &mut signals).await?;
    if matches!(ended, Ended::Left(_)) && !context.json {
        output::note(&format!("detached; {process} goes on"));
    }
    Ok(conclude(&ended, None, context.json))
}
