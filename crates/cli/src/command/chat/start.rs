//! How a conversation begins: with a new session, or with one that is there.

use super::super::Context;
use super::super::conversation::{Happening, Screen};
use super::super::session::files;
use crate::args::ChatArgs;
use crate::failure::Failure;
use crate::output::progress::Progress;
use hostel_client::model::{EnvironmentStatus, Session, SessionPattern};
use hostel_client::{Client, SendMessage, SessionClient};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Events that are looked at for the end of what was said before.
const LOOK_BACK: u64 = 2000;
/// How long a sandbox may take to be there.
const SANDBOX: Duration = Duration::from_secs(120);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The session to talk with.
///
/// # Errors
/// When there is none such, it is over, or files cannot be copied.
pub(super) async fn start(
    context: &Context,
    client: &SessionClient,
    screen: &mut Screen,
    args: ChatArgs,
) -> Result<Session, Failure> {
    let mut session = match args.id {
        Some(id) => {
            let session = client.get(&id).await?;
            if session.is_over() {
                let message = format!("session {id} is {} and takes no messages any more", session.status);
                return Err(Failure::other("SESSION_NOT_ACTIVE", message));
            }
            if let Some(turn) = session.active_turn.as_ref().filter(|_| args.workspace.is_some()) {
                return Err(busy(&id, &turn.message_id));
            }
            look_back(client, screen, &session).await?;
            session
        }
        None => {
            let mut create = args.session.create()?;
            create.pattern = Some(SessionPattern::LongRunning);
            let (session, _) = client.create(create).await?;
            session
        }
    };
    if let Some(directory) = &args.workspace {
        let brought = session.environment.sandbox_id.is_none();
        if brought {
            session = ready(client, screen, session).await?;
        }
        copy_in(&files::connect(context, client, &session).await?, screen, &session, directory).await?;
        if brought {
            session = forget_what_was_there(client, screen, session).await?;
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
    let events = client.events(&session.id, after, u16::try_from(LOOK_BACK).unwrap_or(u16::MAX)).await?;
    let all: Vec<_> = events.iter().map(|event| (event, Happening::of(event))).collect();
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
/// one, before the agent asks the model.
async fn ready(client: &SessionClient, screen: &mut Screen, session: Session) -> Result<Session, Failure> {
    screen.spin("the sandbox is being made…");
    let text = "(Files are being copied into the workspace.)";
    let sent = client.send(&session.id, SendMessage::text(text)).await?.message.id;
    let begin = Instant::now();
    loop {
        let session = client.get(&session.id).await?;
        if session.environment.sandbox_id.is_some() {
            let turn = session.active_turn.as_ref().filter(|turn| turn.message_id != sent);
            // Somebody else's was before ours.
            let Some(turn) = turn else { return Ok(client.kill(&session.id).await?) };
            client.cancel(&session.id, &sent).await?;
            return Err(busy(&session.id, &turn.message_id));
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
    let failed = |error: std::io::Error| {
        Failure::other("LOCAL_FILE", format!("cannot read {}: {error}", directory.display()))
    };
    let sandbox = files::sandbox(session)?;
    let target = format!("{}/", files::workspace(session).trim_end_matches('/'));
    screen.quiet();
    let progress = Progress::new(&directory.display().to_string(), None, false);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        client.upload(&sandbox, &path, &target, &|bytes| progress.add(bytes)).await?;
    }
    Ok(())
}
