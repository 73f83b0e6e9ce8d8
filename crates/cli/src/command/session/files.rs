//! `hostel session files` and `cp`: straight from the daemon, which has the sandbox.

use super::super::{Context, Outcome, SUCCESS, cp};
use crate::args::{CpArgs, Place, SessionPlace};
use crate::failure::Failure;
use crate::output::{self, human, table};
use hostel_client::SessionClient;
use hostel_client::domain::SandboxId;
use hostel_client::domain::file::FileKind;
use hostel_client::model::{FileInfo, Session};
use serde_json::json;

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
    let files = context.connect().await?.list_files(&sandbox(&session)?, &path).await?;
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
    let source = place(client, source).await?;
    let target = place(client, target).await?;
    cp::cp(context, CpArgs { source, target }).await
}

/// A place in a session is one in its sandbox.
async fn place(client: &SessionClient, place: SessionPlace) -> Result<Place, Failure> {
    Ok(match place {
        SessionPlace::Session(id, path) => Place::Sandbox(sandbox(&client.get(&id).await?)?, path),
        SessionPlace::Local(path) => Place::Local(path),
        SessionPlace::Standard => Place::Standard,
    })
}
