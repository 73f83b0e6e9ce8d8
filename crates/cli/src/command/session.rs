//! `hostel session`.

mod attach;
pub(crate) mod files;
mod questions;
mod send;
mod show;

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::{CreateSessionArgs, EventsArgs, ListSessionsArgs, SessionCommand, UpdateSessionArgs};
use crate::failure::Failure;
use crate::output::{self, human};
use crate::signals::{self, Signals};
use hostel_client::model::{Session, SessionDelivery, SessionEvent};
use hostel_client::{ListSessions, ReconnectPolicy, SessionClient, UpdateSession, WhichEvents};
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The event after which nothing comes that people wait for.
const ENDED: &str = "session:ended";
/// Events that are asked for at a time.
const PAGE: u16 = 1000;

pub(crate) async fn execute(context: &Context, command: SessionCommand) -> Outcome {
    let client = context.connect_sessions().await?;
    let client = &client;
    match command {
        SessionCommand::Create(args) => create(context, client, *args).await,
        SessionCommand::List(args) => list(context, client, args).await,
        SessionCommand::Get(args) => {
            let session = client.get(&args.id).await?;
            if context.json {
                output::json(&session)?
            } else {
                output::line(&show::describe(&session))?
            }
            Ok(SUCCESS)
        }
        SessionCommand::Update(args) => update(context, client, *args).await,
        SessionCommand::Send(args) => send::send(context, client, args).await,
        SessionCommand::Attach(args) => attach::attach(context, client, args).await,
        SessionCommand::Interrupt(args) => changed(context, &client.interrupt(&args.id, None).await?),
        SessionCommand::Stop { grace, id } => changed(context, &client.stop(&id, grace).await?),
        SessionCommand::Kill(args) => changed(context, &client.kill(&args.id).await?),
        SessionCommand::Terminate { reason, ids } => terminate(context, client, &ids, reason).await,
        SessionCommand::Rm { ids, allow_missing } => {
            remove_each(context, &ids, async |id: &String| client.delete(id, allow_missing).await).await
        }
        SessionCommand::Events(args) => events(context, client, args).await,
        SessionCommand::Files { id, path } => files::list(context, client, &id, path).await,
        SessionCommand::Cp { source, target } => files::cp(context, client, source, target).await,
        SessionCommand::Questions(args) => questions::list(context, client, &args.id).await,
        SessionCommand::Approve { always, id, question } => {
            questions::approve(context, client, &id, question, always).await
        }
        SessionCommand::Deny { message, interrupt, id, question } => {
            questions::deny(context, client, &id, question, message, interrupt).await
        }
        SessionCommand::Queue { id, cancel } => queue(context, client, &id, cancel).await,
        SessionCommand::Stats => {
            let statistics = client.statistics().await?;
            if context.json {
                output::json(&statistics)?
            } else {
                output::line(&show::statistics(&statistics))?
            }
            Ok(SUCCESS)
        }
        SessionCommand::Export { id, output } => {
            // What is half written is removed when we are told to end.
            Signals::listen()?.guard(Box::pin(export(client, &id, output.as_deref()))).await
        }
    }
}

/// Prints a session after a change: its id, or all of it as JSON.
fn changed(context: &Context, session: &Session) -> Outcome {
    if context.json {
        output::json(session)?
    } else {
        output::line(&session.id)?
    }
    Ok(SUCCESS)
}

async fn create(context: &Context, client: &SessionClient, args: CreateSessionArgs) -> Outcome {
    let mut create = args.session.create()?;
    create.pattern = args.pattern;
    create.id = args.id;
    create.request_id = args.request_id;
    let (session, replayed) = client.create(create).await?;
    if context.json {
        output::json(&json!({ "session": session, "replayed": replayed }))?;
        return Ok(SUCCESS);
    }
    changed(context, &session)
}

async fn list(context: &Context, client: &SessionClient, args: ListSessionsArgs) -> Outcome {
    let wanted = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut list = ListSessions {
        pattern: args.pattern,
        status: args.status,
        user_id: args.user_id,
        tags: args.tag,
        page_size: u16::try_from(wanted.min(1000)).unwrap_or(1000),
        page_token: None,
    };
    let (mut sessions, mut total) = (Vec::new(), 0);
    while sessions.len() < wanted {
        let page = client.list(list.clone()).await?;
        total = page.total_size;
        sessions.extend(page.sessions);
        list.page_token = page.next_page_token;
        if list.page_token.is_none() {
            break;
        }
    }
    sessions.truncate(wanted);
    if context.json {
        output::json(&json!({ "sessions": sessions, "total_size": total }))?;
        return Ok(SUCCESS);
    }
    if args.quiet {
        for session in &sessions {
            output::line(&session.id)?;
        }
        return Ok(SUCCESS);
    }
    show::table(&sessions).print()?;
    let more = total.saturating_sub(u64::try_from(sessions.len()).unwrap_or(u64::MAX));
    if more > 0 {
        output::note(&format!("{more} more: say -n"));
    }
    Ok(SUCCESS)
}

/// Ends sessions; one that cannot be ended keeps none of the others alive.
async fn terminate(
    context: &Context,
    client: &SessionClient,
    ids: &[String],
    reason: Option<hostel_client::model::EndReason>,
) -> Outcome {
    let mut failed = None;
    for id in ids {
        match client.terminate(id, reason).await {
            Ok(session) => drop(changed(context, &session)?),
            Err(error) => {
                let failure = Failure::from(error);
                if ids.len() > 1 {
                    output::note(&format!("{id}: {}", failure.message()));
                }
                failed.get_or_insert(failure);
            }
        }
    }
    failed.map_or(Ok(SUCCESS), Err)
}

async fn update(context: &Context, client: &SessionClient, args: UpdateSessionArgs) -> Outcome {
    let update = UpdateSession {
        tags: (args.no_tags || !args.tag.is_empty()).then_some(args.tag),
        description: args.description,
        user_id: args.user_id,
        conversation_id: None,
        limits: args.bounds.limits(),
        model: args.model_name,
        permission_mode: args.permission_mode,
        clear: args.clear.into_iter().map(|field| field.field().to_owned()).collect(),
    };
    if update == UpdateSession::default() {
        return Err(Failure::usage("say what to change: see hostel session update --help"));
    }
    changed(context, &client.update(&args.id, update).await?)
}

async fn events(context: &Context, client: &SessionClient, args: EventsArgs) -> Outcome {
    let wanted = |event: &SessionEvent| args.types.is_empty() || args.types.contains(&event.kind);
    let print = |event: &SessionEvent| match (wanted(event), context.json) {
        (false, _) => Ok(()),
        (true, true) => output::json(event),
        (true, false) => output::line(&show::event(event)),
    };
    let mut after = args.after;
    // Of one that has ended, what there is; nothing more is waited for.
    if args.follow && !client.get(&args.id).await?.is_over() {
        let mut signals = Signals::listen()?;
        let mut types = args.types.clone();
        if !types.is_empty() {
            types.push(ENDED.to_owned());
        }
        let watch = client.watch_events(&args.id, WhichEvents { after, types }, ReconnectPolicy::default());
        let mut watch = signals.guard(watch).await?;
        loop {
            tokio::select! {
                delivery = watch.next() => match delivery? {
                    Some(SessionDelivery::Event(event)) => {
                        print(&event)?;
                        if event.kind == ENDED {
                            return Ok(SUCCESS);
                        }
                    }
                    Some(_) => {}
                    None => return Ok(SUCCESS),
                },
                signal = signals.end() => return Ok(signals::exit_code(signal)),
            }
        }
    }
    loop {
        let which = WhichEvents { after, types: args.types.clone() };
        let page = client.events(&args.id, which, PAGE).await?;
        page.events.iter().try_for_each(&print)?;
        if page.next == after {
            return Ok(SUCCESS);
        }
        after = page.next;
    }
}

async fn queue(context: &Context, client: &SessionClient, id: &str, cancel: Option<String>) -> Outcome {
    if let Some(message) = cancel {
        let message = client.cancel(id, &message).await?;
        if context.json {
            output::json(&message)?
        } else {
            output::line(&message.id)?
        }
        return Ok(SUCCESS);
    }
    let messages = client.queue(id).await?;
    if context.json {
        output::json(&json!({ "messages": messages }))?;
    } else {
        show::messages(&messages).print()?;
    }
    Ok(SUCCESS)
}

/// Writes all of a session, a line of JSON each, into a file that appears at once and whole. What is there and no
/// regular file, such as a pipe, is written into.
async fn export(client: &SessionClient, id: &str, path: Option<&Path>) -> Outcome {
    let mut export = client.export(id).await?;
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        while let Some(part) = export.next().await? {
            output::json(&part)?;
        }
        return Ok(SUCCESS);
    };
    let failed = |error: std::io::Error| {
        Failure::other("LOCAL_FILE", format!("cannot write {}: {error}", path.display()))
    };
    let in_place = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    let staging = if in_place {
        None
    } else {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        // Less the umask, as for any new file.
        builder.prefix(".hostel-export-").permissions(std::fs::Permissions::from_mode(0o666));
        Some(builder.tempfile_in(parent.unwrap_or(Path::new("."))).map_err(failed)?)
    };
    let file = match &staging {
        Some(staging) => staging.as_file().try_clone(),
        None => std::fs::OpenOptions::new().write(true).open(path),
    };
    let mut file = std::io::BufWriter::new(file.map_err(failed)?);
    while let Some(part) = export.next().await? {
        let line = serde_json::to_string(&part)
            .map_err(|error| Failure::other("JSON", format!("cannot write JSON: {error}")))?;
        writeln!(file, "{line}").map_err(failed)?;
    }
    file.flush().map_err(failed)?;
    if let Some(staging) = staging {
        staging.persist(path).map_err(|error| failed(error.error))?;
    }
    Ok(SUCCESS)
}

/// What an answer cost, for people.
pub(crate) fn cost(session: &Session) -> String {
    let limit = session.limits.max_budget_micros.map(human::dollars);
    limit.map_or_else(
        || human::dollars(session.total_cost_micros),
        |limit| format!("{} of {limit}", human::dollars(session.total_cost_micros)),
    )
}
