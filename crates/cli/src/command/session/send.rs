//! `hostel session send`.

use super::super::conversation::{End, Keyboard, Screen, Turn};
use super::super::{Context, Outcome, SUCCESS};
use crate::args::SendArgs;
use crate::failure::Failure;
use crate::signals::{self, Signals};
use crate::{output, terminal};
use hostel_client::model::MessageContent;
use hostel_client::{ReconnectPolicy, SendMessage, SessionClient};
use std::collections::VecDeque;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The most text and the most bytes of a picture that are read.
const MOST: u64 = 16 << 20;
/// The turn failed.
const FAILED: u8 = 1;

pub(super) async fn send(context: &Context, client: &SessionClient, args: SendArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let from_stdin = args.text.iter().any(|word| word == "-");
    let message =
        SendMessage { content: signals.guard(Box::pin(content(&args))).await?, request_id: args.request_id };
    let sent = signals.guard(client.send(&args.id, message)).await?;
    if args.no_wait {
        if context.json {
            output::json(&sent)?
        } else {
            output::line(&sent.message.id)?
        }
        return Ok(SUCCESS);
    }
    let watch = client.watch_events(&args.id, sent.message.seq, ReconnectPolicy::default());
    let mut watch = signals.guard(watch).await?;
    let mut screen = Screen::new(context.json, context.verbose);
    if sent.position > 0 {
        screen.spin(&format!("{} messages are before it…", sent.position));
    }
    // Who reads JSON, or gave the message by stdin, does not sit at a keyboard.
    let sits = terminal::stdin_is_terminal() && !from_stdin && !context.json;
    let mut keyboard = if sits { Some(Keyboard::open(&[])?) } else { None };
    // A question may still be open in the line editor when the turn ends, or a signal ends us.
    let _kept = sits.then(terminal::Kept::of_stdin);
    let turn = Turn {
        client,
        session: &args.id,
        message: &sent.message.id,
        watch: &mut watch,
        screen: &mut screen,
        keyboard: keyboard.as_mut(),
        signals: &mut signals,
        questions: VecDeque::new(),
        tells_of_reconnecting: context.tells_of_reconnecting(),
    };
    conclude(context, &args.id, Box::pin(turn.follow()).await?)
}

/// The exit code for how a turn ended.
fn conclude(context: &Context, session: &str, end: End) -> Outcome {
    match end {
        End::Completed(outcome) if outcome.result == "interrupted" => {
            Ok(signals::exit_code(signals::INTERRUPT))
        }
        End::Completed(outcome) if outcome.is_error => Ok(FAILED),
        End::Completed(_) => Ok(SUCCESS),
        End::Cancelled => {
            output::note("the message was taken back");
            Ok(FAILED)
        }
        End::Gone => {
            output::note("the session ended before the turn did");
            Ok(FAILED)
        }
        End::Left(signal) => {
            if !context.json {
                output::note(&format!("the turn goes on: `hostel session attach {session}` follows it"));
            }
            Ok(signals::exit_code(signal))
        }
    }
}

async fn content(args: &SendArgs) -> Result<Vec<MessageContent>, Failure> {
    let mut content = Vec::new();
    for path in &args.image {
        content.push(image(path).await?);
    }
    let mut words = Vec::new();
    for word in &args.text {
        words.push(if word == "-" { stdin().await? } else { word.clone() });
    }
    let text = words.join(" ");
    if !text.is_empty() {
        content.push(MessageContent::Text { text });
    } else if content.is_empty() {
        return Err(Failure::usage("there is nothing to send"));
    }
    Ok(content)
}

async fn bounded(name: &str, mut from: impl AsyncRead + Unpin) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    let read = (&mut from).take(MOST + 1).read_to_end(&mut data).await;
    read.map_err(|error| Failure::other("LOCAL_FILE", format!("cannot read {name}: {error}")))?;
    if data.len() as u64 > MOST {
        return Err(Failure::usage(format!("{name} has more than {} MiB", MOST >> 20)));
    }
    Ok(data)
}

async fn stdin() -> Result<String, Failure> {
    let data = bounded("stdin", tokio::io::stdin()).await?;
    let text = String::from_utf8(data)
        .map_err(|_| Failure::usage("what came from stdin is no text; --image adds pictures"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

async fn image(path: &Path) -> Result<MessageContent, Failure> {
    let name = path.display().to_string();
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| Failure::other("LOCAL_FILE", format!("cannot read {name}: {error}")))?;
    let data = bounded(&name, file).await?;
    let media_type =
        media_type(&data).ok_or_else(|| Failure::usage(format!("{name} is no png, jpeg, gif or webp")))?;
    Ok(MessageContent::Image { media_type: media_type.to_owned(), data: data.into() })
}

/// What a picture is, by its first bytes.
fn media_type(data: &[u8]) -> Option<&'static str> {
    match data {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_told_by_what_is_in_them() {
        assert_eq!(media_type(b"\x89PNG\r\n\x1a\n"), Some("image/png"));
        assert_eq!(media_type(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        assert_eq!([media_type(b"RIFF\0\0\0\0WAVE"), media_type(b"")], [None, None]);
    }
}
