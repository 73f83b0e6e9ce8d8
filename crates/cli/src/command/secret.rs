//! `hostel secret`.

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::SecretCommand;
use crate::failure::Failure;
use crate::output::{self, human, table};
use crate::signals::Signals;
use crate::terminal;
use serde_json::json;
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;

/// Largest value, in bytes, as the API says.
const LARGEST: u64 = 64 << 10;

pub(crate) async fn execute(context: &Context, command: SecretCommand) -> Outcome {
    let client = context.connect().await?;
    match command {
        SecretCommand::List => {
            let secrets = client.list_secrets().await?;
            if context.json {
                output::json(&json!({ "secrets": secrets }))?;
                return Ok(SUCCESS);
            }
            let mut table = table::Table::new(&["NAME", "SOURCE", "CHANGED"]);
            for secret in secrets {
                let changed = secret.update_time.map_or_else(String::new, |time| human::age(Some(time)));
                table.row([secret.name, secret.source, changed]);
            }
            table.print()?;
        }
        SecretCommand::Put { name, file } => {
            let value = if file.is_none() && terminal::stdin_is_terminal() {
                typed(&name).await?
            } else {
                read(file.as_deref())?
            };
            let secret = client.put_secret(&name, value).await?;
            if context.json { output::json(&secret)? } else { output::line(&secret.name)? }
        }
        SecretCommand::Rm { names } => {
            return remove_each(context, &names, async |name| client.delete_secret(name).await).await;
        }
    }
    Ok(SUCCESS)
}

/// The value as somebody types it, which nobody is shown.
async fn typed(name: &str) -> Result<Vec<u8>, Failure> {
    let mut signals = Signals::listen()?;
    let _hidden = terminal::hidden()?;
    // Whoever closed stderr knows what to type.
    let _ = write!(std::io::stderr(), "value of {}, ended with Enter: ", human::printable(name));
    let line = tokio::task::spawn_blocking(|| {
        let mut line = Vec::new();
        let mut stdin = std::io::stdin().lock().take(LARGEST + 2);
        stdin.read_until(b'\n', &mut line).map(|_| line)
    });
    let line =
        signals.guard(async { line.await.map_err(std::io::Error::other).flatten().map_err(failed("stdin")) });
    let line = line.await;
    // What ended the line was not shown either.
    let _ = writeln!(std::io::stderr());
    complete(line?, "stdin")
}

fn failed(source: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::other("LOCAL_FILE", format!("cannot read {source}: {error}"))
}

/// The value in a file, or on stdin, without the line break that editors and `echo` put at the end.
fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let source = file.map_or_else(|| "stdin".to_owned(), |file| file.display().to_string());
    let failed = failed(&source);
    let mut value = Vec::new();
    match file {
        Some(file) => {
            std::fs::File::open(file)
                .map_err(&failed)?
                .take(LARGEST + 2)
                .read_to_end(&mut value)
                .map_err(&failed)?;
        }
        None => {
            std::io::stdin().lock().take(LARGEST + 2).read_to_end(&mut value).map_err(&failed)?;
        }
    }
    complete(value, &source)
}

/// Leaves the line break at the end out.
///
/// # Errors
/// Where nothing is left.
fn complete(mut value: Vec<u8>, source: &str) -> Result<Vec<u8>, Failure> {
    if value.ends_with(b"\n") {
        value.pop();
    }
    if value.ends_with(b"\r") {
        value.pop();
    }
    if value.is_empty() {
        return Err(Failure::usage(format!("{source} has no value")));
    }
    Ok(value)
}
