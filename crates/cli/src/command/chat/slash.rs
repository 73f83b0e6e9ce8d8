//! What can be typed beside messages.

use super::super::Context;
use super::super::conversation::Screen;
use super::super::session::{cost, files};
use crate::failure::Failure;
use crate::output;
use hostel_client::SessionClient;

/// The commands, for completion too.
pub(super) const COMMANDS: &[&str] = &["/cost", "/files", "/help", "/quit"];

const HELP: &str = "\
/cost    what the conversation cost until now
/files   the files that the agent works on
/quit    leave; the session stays
Enter sends. A line that ends with \\, or Alt-Enter, goes on with the next line. Ctrl-C interrupts the agent.";

/// Does what was typed; says whether that was to leave.
///
/// # Errors
/// Those of stdout.
pub(super) async fn run(
    context: &Context,
    client: &SessionClient,
    id: &str,
    command: &str,
    screen: &mut Screen,
) -> Result<bool, Failure> {
    let told = match command {
        "/quit" => return Ok(true),
        "/cost" => tell_cost(client, id).await,
        "/files" => tell_files(context, client, id).await,
        _ => Ok(HELP.to_owned()),
    };
    match told {
        Ok(text) => screen.aside(&text)?,
        // A conversation goes on without.
        Err(failure) => output::failure(&failure, context.json),
    }
    Ok(false)
}

async fn tell_cost(client: &SessionClient, id: &str) -> Result<String, Failure> {
    let session = client.get(id).await?;
    let (read, written, cached) = (session.input_tokens, session.output_tokens, session.cached_tokens);
    let spent = cost(&session);
    Ok(format!(
        "{spent}; {read} tokens in, {written} out, {cached} cached; {} model calls",
        session.num_turns
    ))
}

async fn tell_files(context: &Context, client: &SessionClient, id: &str) -> Result<String, Failure> {
    let session = client.get(id).await?;
    let sandbox = files::sandbox(&session)?;
    let daemon = files::connect(context, client, &session).await?;
    let list = daemon.list_files(&sandbox, files::workspace(&session)).await?;
    Ok(if list.is_empty() { "no files".to_owned() } else { files::table(&list).text() })
}
