//! `hostel session files` and `cp`: straight from the daemon that has the sandbox, which is the session server's.

use super::super::{Context, Outcome, SUCCESS, cp};
use crate::args::{CpArgs, Place, SessionPlace};
use crate::failure::Failure;
use crate::output::{self, human, table};
use hostel_client::domain::SandboxId;
use hostel_client::domain::file::FileKind;
use hostel_client::model::{FileInfo, Session};
use hostel_client::{Client, Error, SessionClient};
use serde_json::json;

/// The label of a sandbox that says which session it is for.
const LABEL: &str = "hostel-session";
/// Where agents work when nobody said otherwise.
const WORKSPACE: &str = "/workspace";

/// The sandbox of a session.
///
/// # Errors
/// When it has none now.
pub(crate) fn sandbox(session: &Session) -> Result<SandboxId, Failure> {
    let id = session.environment.sandbox_id.as_deref().ok_or_else(|| {
        let message = format!("session {} has no sandbox now: its next message brings one", session.id);
        Failure::other("NO_ENVIRONMENT", message)
    })?;
    SandboxId::parse(id).map_err(|error| Failure::other("PROTOCOL_VIOLATION", error.to_string()))
}

/// The daemon that has the sandbox of a session. We know one; the session server may be the client of another.
///
/// # Errors
/// When it has no sandbox now, nobody answers, or the daemon that does has another sandbox of that name, or none.
pub(crate) async fn connect(
    context: &Context,
    sessions: &SessionClient,
    session: &Session,
) -> Result<Client, Failure> {
    let id = sandbox(session)?;
    let elsewhere = |daemon: &str| {
        let message = format!(
            "sandbox {id} of session {} is not at {daemon}: its files are had from the daemon that the session server at {} has it from; say where that is with --addr",
            session.id,
            sessions.address()
        );
        Failure::other("OTHER_DAEMON", message)
    };
    let client = match context.connect().await {
        Ok(client) => client,
        Err(Failure::Client(Error::Unreachable { address, detail })) => {
            return Err(elsewhere(&format!("{address}, where nobody answers ({detail})")));
        }
        Err(failure) => return Err(failure),
    };
    let here = format!("the daemon at {}", client.address());
    match client.get_sandbox(&id).await {
        Ok(found) if found.labels.get(LABEL).is_some_and(|of| *of == session.id) => Ok(client),
        Ok(_) => Err(elsewhere(&here)),
        Err(error) if error.is_not_found() => Err(elsewhere(&here)),
        Err(error) => Err(error.into()),
    }
}

/// Where the agent of a session works.
pub(crate) fn workspace(session: &Session) -> &str {
    session.configured("workingDirectory").unwrap_or(WORKSPACE)
}

pub(super) async fn list(
    context: &Context,
    client: &SessionClient,
    id: &str,
    path: Option<String>,
) -> Outcome {
    let session = client.get(id).await?;
    let path = match path {
        Some(path) if path.starts_with('/') => path,
        Some(path) => format!("{}/{path}", workspace(&session).trim_end_matches('/')),
        None => workspace(&session).to_owned(),
    };
    let daemon = connect(context, client, &session).await?;
    let files = daemon.list_files(&sandbox(&session)?, &path).await?;
    if context.json {
        output::json(&json!({ "files": files }))?;
    } else {
        table(&files).print()?;
    }
    Ok(SUCCESS)
}

/// A table of files.
pub(crate) fn table(files: &[FileInfo]) -> table::Table {
    let mut table = table::Table::new(&["SIZE", "CHANGED", "NAME"]).right(0);
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let (size, mark) = match file.kind {
            FileKind::Directory => ("-".to_owned(), "/"),
            _ => (human::size(Some(file.size_bytes)), ""),
        };
        table.row([size, human::age(file.modify_time), format!("{name}{mark}")]);
    }
    table
}

pub(super) async fn cp(
    context: &Context,
    client: &SessionClient,
    source: SessionPlace,
    target: SessionPlace,
) -> Outcome {
    let source = place(context, client, source).await?;
    let target = place(context, client, target).await?;
    cp::cp(context, CpArgs { source, target }).await
}

/// A place in a session is one in its sandbox.
async fn place(context: &Context, client: &SessionClient, place: SessionPlace) -> Result<Place, Failure> {
    Ok(match place {
        SessionPlace::Session(id, path) => {
            let session = client.get(&id).await?;
            connect(context, client, &session).await?;
            Place::Sandbox(sandbox(&session)?, path)
        }
        SessionPlace::Local(path) => Place::Local(path),
        SessionPlace::Standard => Place::Standard,
    })
}
