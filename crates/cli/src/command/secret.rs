//! `hostel secret`.

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::SecretCommand;
use crate::failure::Failure;
use crate::output::{self, human, table};
use serde_json::json;
use std::io::Read as _;
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
            let value = read(file.as_deref())?;
            let secret = client.put_secret(&name, value).await?;
            if context.json { output::json(&secret)? } else { output::line(&secret.name)? }
        }
        SecretCommand::Rm { names } => {
            return remove_each(context, &names, async |name| client.delete_secret(name).await).await;
        }
    }
    Ok(SUCCESS)
}

/// The value, without the line break that editors and `echo` put at the end.
fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let source = file.map_or_else(|| "stdin".to_owned(), |file| file.display().to_string());
    let failed =
        |error: std::io::Error| Failure::other("LOCAL_FILE", format!("cannot read {source}: {error}"));
    let mut value = Vec::new();
    match file {
        Some(file) => {
            std::fs::File::open(file)
                .map_err(failed)?
                .take(LARGEST + 2)
                .read_to_end(&mut value)
                .map_err(failed)?;
        }
        None => {
            std::io::stdin().lock().take(LARGEST + 2).read_to_end(&mut value).map_err(failed)?;
        }
    }
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
