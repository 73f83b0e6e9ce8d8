//! `hostel testkit`: a model for tests and demonstrations.

use super::{Context, Outcome, SUCCESS};
use crate::args::{ModelArgs, TestkitCommand};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;
use hostel_testkit::{ModelOptions, ModelServer, SeenRequest};
use serde_json::json;

pub(crate) async fn execute(context: &Context, command: TestkitCommand) -> Outcome {
    match command {
        TestkitCommand::Model(args) => model(context, args).await,
    }
}

async fn model(context: &Context, args: ModelArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut options = ModelOptions { key: args.key.map(Into::into), ..ModelOptions::default() };
    options.tcp = match (args.listen, &args.unix) {
        (None, Some(_)) => None,
        (listen, _) => listen.or(options.tcp),
    };
    options.unix = args.unix.clone();
    let failed = |error: hostel_testkit::Error| Failure::other("TESTKIT", error.to_string());
    let server = ModelServer::start(options).await.map_err(failed)?;
    let url = server.address().map(|_| server.url());
    if context.json {
        output::json(&json!({ "url": url, "unix": args.unix }))?;
    } else {
        let unix = args.unix.map(|path| format!("unix://{}", path.display()));
        for address in url.into_iter().chain(unix) {
            output::line(&address)?;
        }
    }
    tokio::select! {
        _ = signals.end() => {}
        () = tell(&server), if context.verbose => {}
    }
    server.stop().await;
    Ok(SUCCESS)
}

/// Says what is asked and answered. Ends with whoever waits for it.
async fn tell(server: &ModelServer) {
    let mut told = 0;
    loop {
        server.saw(told + 1).await;
        let last = told;
        for request in server.requests().iter().filter(|request| request.number > last) {
            let missed = request.number - told - 1;
            if missed > 0 {
                output::note(&format!("{missed} requests went by untold"));
            }
            output::note(&line(request));
            told = request.number;
        }
    }
}

fn line(request: &SeenRequest) -> String {
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let status = request.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let (method, path, bytes) = (&request.method, &request.path, request.body.len());
    format!("{} {method} {path}{query} ({bytes} bytes): {status}, {}", request.number, request.answer)
}
