//! How a conversation begins: with a new session, or with one that is there.

use super::super::Context;
use super::super::conversation::{Happening, Screen};
use super::super::session::files;
use crate::args::ChatArgs;
use crate::failure::Failure;
use crate::output;
use crate::output::progress::Progress;
use crate::signals::Signals;
use hostel_client::model::{EnvironmentStatus, Session, SessionPattern};
use hostel_client::{Client, SendMessage, SessionClient};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Events that are looked at for the end of what was said before.
const LOOK_BACK: u64 = 2000;
/// How long a sandbox may take to be there: a little longer than the server waits for it.
const SANDBOX: Duration = Duration::from_secs(16 * 60);
/// How long taking a message back may take.
const TAKE_BACK: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The session to talk with.
///
/// # Errors
/// When there is none such, it is over, or files cannot be copied; [`Failure::Signal`].
pub(super) async fn start(
    context: &Context,
    client: &SessionClient,
    screen: &mut Screen,
    signals: &mut Signals,
    args: ChatArgs,
) -> Result<Session, Failure> {
    let mut session = match args.id {
        Some(id) => {
            let session = signals.guard(client.get(&id)).await?;
            if session.is_over() {
                let message = format!("session {id} is {} and takes no messages any more", session.status);
                return Err(Failure::other("SESSION_NOT_ACTIVE", message));
            }
            if let Some(turn) = session.active_turn.as_ref().filter(|_| args.workspace.is_some()) {
                return Err(busy(&id, &turn.message_id));
            }
            signals.guard(Box::pin(look_back(client, screen, &session))).await?;
            session
        }
        None => {
            let mut create = args.session.create()?;
            create.pattern = Some(SessionPattern::LongRunning);
            let (session, _) = signals.guard(client.create(create)).await?;
            if args.workspace.is_some() && !context.json {
                // Whatever becomes of the files, the session is there.
                output::note(&format!("session {}", session.id));
            }
            session
        }
    };
    if let Some(directory) = &args.workspace {
        let brought = session.environment.sandbox_id.is_none();
        if brought {
            session = ready(client, screen, signals, session).await?;
        }
        let copied = async {
            let daemon = files::connect(context, client, &session).await?;
            copy_in(&daemon, screen, &session, directory).await
        };
        signals.guard(Box::pin(copied)).await?;
        if brought {
            session = signals.guard(Box::pin(forget_what_was_there(client, screen, session))).await?;
        }
    }
    let paint = screen.paint();
    let model = session.configured("model").map(|model| format!(" · {model}")).unwrap_or_default();
    let agent = session.configured("agent").unwrap_or("claude");
    screen.aside(&paint.dim(&format!("session {} · {agent}{model} · /help", session.id)))?;
    Ok(session)
}

/// Shows the last message and its answer.
async fn look_back(client: &SessionClient, screen: &mut Screen, session: &Session) -> Result<(), Failure> {
    let after = session.last_event.saturating_sub(LOOK_BACK);
    let page = client.events(&session.id, after, u16::try_from(LOOK_BACK).unwrap_or(u16::MAX)).await?;
    let all: Vec<_> = page.events.iter().map(|event| (event, Happening::of(event))).collect();
    let last = all.iter().rposition(|(_, happening)| matches!(happening, Happening::Queued { .. }));
    for (event, happening) in all.iter().skip(last.unwrap_or(all.len())) {
        screen.show(event, happening)?;
        if let Happening::Queued { text, .. } = happening {
            screen.user(text)?;
        }
    }
    screen.quiet();
    screen.finish_line()
}

/// Files are not put under the hands of an agent that works.
fn busy(id: &str, message: &str) -> Failure {
    let message = format!(
        "a turn runs in session {id}, for message {message}: wait for its end, or `hostel session stop {id}`, before files are copied in"
    );
    Failure::other("SESSION_BUSY", message)
}

/// Brings a sandbox to a session that has none. Only a message does: one is sent, and its turn ended as soon as there is
/// one, before the agent asks the model. Where that fails the message is taken back: nobody wants it worked on.
async fn ready(
    client: &SessionClient,
    screen: &mut Screen,
    signals: &mut Signals,
    session: Session,
) -> Result<Session, Failure> {
    screen.spin("the sandbox is being made…");
    let id = &session.id;
    let sending = client.send(id, SendMessage::text("(Files are being copied into the workspace.)"));
    tokio::pin!(sending);
    let sent = tokio::select! {
        sent = &mut sending => sent?.message.id,
        signal = signals.end() => {
            let taken_back = async {
                if let Ok(sent) = sending.await {
                    take_back(client, id, &sent.message.id).await;
                }
            };
            // Nothing is known of a message that the server does not answer.
            let _ = timeout(TAKE_BACK, taken_back).await;
            return Err(Failure::Signal(signal));
        }
    };
    let brought = signals.guard(Box::pin(there(client, id, &sent))).await;
    if brought.is_err() {
        // The failure itself is what is told.
        let _ = timeout(TAKE_BACK, take_back(client, id, &sent)).await;
    }
    brought
}

/// Waits for the sandbox that a message brings, and ends the message's turn.
async fn there(client: &SessionClient, id: &str, sent: &str) -> Result<Session, Failure> {
    let begin = Instant::now();
    loop {
        let session = client.get(id).await?;
        if session.environment.sandbox_id.is_some() {
            // Somebody else's was before ours.
            if let Some(turn) = session.active_turn.as_ref().filter(|turn| turn.message_id != sent) {
                return Err(busy(id, &turn.message_id));
            }
            return Ok(client.kill(id).await?);
        }
        if session.environment.status == EnvironmentStatus::Error || begin.elapsed() > SANDBOX {
            let why = session.environment.message.unwrap_or_else(|| "it took too long".to_owned());
            return Err(Failure::other(
                "NO_ENVIRONMENT",
                format!("there is no sandbox for the files: {why}"),
            ));
        }
        sleep(LOOK).await;
    }
}

/// Takes a message back, or ends its turn where that has begun.
async fn take_back(client: &SessionClient, id: &str, message: &str) {
    if client.cancel(id, message).await.is_ok() {
        return;
    }
    let ours =
        |session: &Session| session.active_turn.as_ref().is_some_and(|turn| turn.message_id == message);
    if client.get(id).await.is_ok_and(|session| ours(&session)) && client.kill(id).await.is_err() {
        output::note(&format!(
            "the message {message} may be worked on: `hostel session kill {id}` ends that"
        ));
    }
}

/// The agent that the first message of all had started looked around before the files were there: the next message has
/// another.
async fn forget_what_was_there(
    client: &SessionClient,
    screen: &mut Screen,
    mut session: Session,
) -> Result<Session, Failure> {
    screen.spin("the agent is being started…");
    let begin = Instant::now();
    while session.environment.status == EnvironmentStatus::Starting && begin.elapsed() < SANDBOX {
        sleep(LOOK).await;
        session = client.get(&session.id).await?;
    }
    Ok(client.kill(&session.id).await?)
}

/// Copies what is in a directory to where the agent works.
async fn copy_in(
    client: &Client,
    screen: &mut Screen,
    session: &Session,
    directory: &Path,
) -> Result<(), Failure> {
    let sandbox = files::sandbox(session)?;
    let target = format!("{}/", files::workspace(session).trim_end_matches('/'));
    screen.quiet();
    let progress = Progress::new(&directory.display().to_string(), None, false);
    // As one archive: links stay links, and what is no file is left out.
    Ok(client.upload(&sandbox, &directory.join("."), &target, &|bytes| progress.add(bytes)).await?)
}
