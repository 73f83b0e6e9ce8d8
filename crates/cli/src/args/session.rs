//! `hostel session`: what can be typed.

mod options;

pub(crate) use options::SessionOptions;

use super::value;
use clap::{Args, Subcommand};
use hostel_client::model::{EndReason, SessionPattern, SessionStatus};
use std::path::PathBuf;
use std::time::Duration;

/// What can be done with sessions.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A session is one conversation with an agent in a sandbox. Sessions belong to the session server: HOSTEL_SESSIOND_ADDR or --sessions says where it is [http://127.0.0.1:3333], HOSTEL_SESSIOND_TOKEN has the token where it wants one. `hostel up` starts one beside the daemon.

Examples:
  id=$(hostel session create --pattern long-running --budget 2)
  hostel session send $id 'Write hello.py and run it.'
  git diff | hostel session send $id 'Review this:' -
  hostel session files $id
  hostel session terminate $id
  hostel chat                                      the same as a conversation")]
pub(crate) enum SessionCommand {
    /// Make a session and print its id.
    Create(Box<CreateSessionArgs>),
    /// List sessions, newest first.
    #[command(visible_alias = "ls")]
    List(ListSessionsArgs),
    /// Tell about one session.
    Get(OneSession),
    /// Change what may be changed of a session.
    Update(Box<UpdateSessionArgs>),
    /// Send a message and print what the agent says and does, until its turn has ended.
    Send(SendArgs),
    /// Print what happened in a session, follow what happens, and send what is typed.
    Attach(AttachSessionArgs),
    /// Ask the agent to stop the turn that runs.
    Interrupt(OneSession),
    /// Stop the turn that runs, and end the agent's process where it does not stop in time.
    Stop {
        /// How long it may take.
        #[arg(long, value_name = "DURATION", value_parser = value::duration)]
        grace: Option<Duration>,
        /// The session.
        id: String,
    },
    /// End the agent's process with everything it started, at once.
    Kill(OneSession),
    /// End sessions: the turn, the sandbox, the session. What is on record stays.
    Terminate {
        /// Why, for the record.
        #[arg(long, value_name = "REASON", value_parser = value::end_reason)]
        reason: Option<EndReason>,
        /// The sessions.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// End sessions and forget them with all that is on record.
    #[command(visible_alias = "delete")]
    Rm {
        /// The sessions.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// It is no error when one is not there.
        #[arg(short = 'f', long, visible_alias = "force")]
        allow_missing: bool,
    },
    /// Print events of a session's journal.
    Events(EventsArgs),
    /// List the files that the agent works on.
    Files {
        /// The session.
        id: String,
        /// Directory, absolute or below where the agent works [where the agent works].
        path: Option<String>,
    },
    /// Copy files and directories into and out of a session's sandbox, as `hostel cp`.
    #[command(after_help = "\
One side is ID:PATH, with the session's id and an absolute path in its sandbox; the other is local, or - for stdin or stdout.

Examples:
  hostel session cp ./data.csv $id:/workspace/
  hostel session cp $id:/workspace/report.md -")]
    Cp {
        /// What to copy.
        #[arg(value_name = "SRC", value_parser = SessionPlace::parse)]
        source: SessionPlace,
        /// Where to.
        #[arg(value_name = "DST", value_parser = SessionPlace::parse)]
        target: SessionPlace,
    },
    /// List the questions of an agent that wait for an answer.
    Questions(OneSession),
    /// Let the agent do what it asks for.
    Approve {
        /// And do not ask for the like again in this session.
        #[arg(long)]
        always: bool,
        /// The session.
        id: String,
        /// The question [the one that waits].
        question: Option<String>,
    },
    /// Do not let the agent do what it asks for.
    Deny {
        /// What the agent is told.
        #[arg(short, long, value_name = "TEXT")]
        message: Option<String>,
        /// End the turn too.
        #[arg(long)]
        interrupt: bool,
        /// The session.
        id: String,
        /// The question [the one that waits].
        question: Option<String>,
    },
    /// List the messages that wait for their turn, and the one whose turn runs; take one back.
    Queue {
        /// The session.
        id: String,
        /// Take this waiting message back.
        #[arg(long, value_name = "MESSAGE")]
        cancel: Option<String>,
    },
    /// Print figures of all sessions.
    Stats,
    /// Print all that is kept of a session as JSON lines: its record, its events, its transcripts.
    Export {
        /// The session.
        id: String,
        /// Write to this file [stdout].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionPlace {
    /// A path in the sandbox of a session.
    Session(String, String),
    /// A path here.
    Local(PathBuf),
    /// Standard input or output.
    Standard,
}

impl SessionPlace {
    /// Reads `ID:/PATH`, `PATH` or `-`. Ids of sessions may begin with a digit, unlike those of sandboxes.
    fn parse(text: &str) -> Result<Self, String> {
        let named = |id: &str| {
            id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !id.is_empty()
        };
        match text.split_once(':') {
            _ if text == "-" => Ok(Self::Standard),
            _ if text.is_empty() => Err("a path is not empty".to_owned()),
            Some((id, path)) if named(id) && path.starts_with('/') => {
                Ok(Self::Session(id.to_owned(), path.to_owned()))
            }
            Some((id, path)) if named(id) => Err(format!(
                "{path:?} is not an absolute path in the sandbox of {id}; a local file is written ./{text}"
            )),
            _ => Ok(Self::Local(text.into())),
        }
    }
}

/// One session.
#[derive(Debug, Args)]
pub(crate) struct OneSession {
    /// The session.
    pub(crate) id: String,
}

/// What session to make.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hostel session create --budget 0.50                             one task, cleaned up after
  hostel session create --pattern long-running --ask --tag demo
  hostel session create --config session.json --id build-42")]
pub(crate) struct CreateSessionArgs {
    /// How it uses sandboxes: ephemeral or long-running [ephemeral].
    #[arg(long, value_name = "PATTERN", value_parser = value::pattern)]
    pub(crate) pattern: Option<SessionPattern>,
    /// The id to have [made by the server].
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Makes the call repeatable: the same id and options, the same session.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// What it shall be.
    #[command(flatten)]
    pub(crate) session: SessionOptions,
}

/// Which sessions to list.
#[derive(Debug, Args)]
pub(crate) struct ListSessionsArgs {
    /// Only of this pattern.
    #[arg(long, value_name = "PATTERN", value_parser = value::pattern)]
    pub(crate) pattern: Option<SessionPattern>,
    /// Only of this status: initializing, active, idle, stopping, completed, error, terminated.
    #[arg(long, value_name = "STATUS", value_parser = value::session_status)]
    pub(crate) status: Option<SessionStatus>,
    /// Only of this user.
    #[arg(long, value_name = "USER")]
    pub(crate) user_id: Option<String>,
    /// Only with this tag. Given several times: with any of them.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// At most so many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Print ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What to change of a session.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hostel session update $id --budget 5\n  \
    hostel session update $id --model-name haiku --permission-mode plan")]
pub(crate) struct UpdateSessionArgs {
    /// The session.
    pub(crate) id: String,
    /// The model from the next turn on.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model_name: Option<String>,
    /// What the agent may do without asking from now on: default, acceptEdits, bypassPermissions, plan or dontAsk.
    #[arg(long, value_name = "MODE")]
    pub(crate) permission_mode: Option<String>,
    /// New bounds.
    #[command(flatten)]
    pub(crate) bounds: options::SessionBounds,
    /// Tags instead of those it has. May be given several times.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Take all tags away.
    #[arg(long, conflicts_with = "tag")]
    pub(crate) no_tags: bool,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Whose it is.
    #[arg(long, value_name = "USER")]
    pub(crate) user_id: Option<String>,
    /// Take a value away: a limit then bounds nothing. May be given several times.
    #[arg(long, value_name = "WHAT")]
    pub(crate) clear: Vec<Clearable>,
}

/// What a session may do without.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Clearable {
    /// What it is for.
    Description,
    /// Whose it is.
    UserId,
    /// The model: the agent's default is used.
    ModelName,
    /// The bound on money.
    Budget,
    /// The bound on turns.
    MaxTurns,
    /// The bound on its life.
    MaxLifetime,
    /// The bound on idleness.
    MaxIdle,
}

impl Clearable {
    /// The field, as the server names it.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Description => "description",
            Self::UserId => "user_id",
            Self::ModelName => "model",
            Self::Budget => "limits.max_budget_micros",
            Self::MaxTurns => "limits.max_turns",
            Self::MaxLifetime => "limits.max_lifetime",
            Self::MaxIdle => "limits.max_idle_time",
        }
    }
}

/// What to send.
#[derive(Debug, Args)]
#[command(after_help = "\
The agent's words go to stdout as they come, all else to stderr: tools, questions, cost. Ctrl-C interrupts the turn; a second one leaves it to go on. Where stdin is a terminal, the agent's questions are asked there; else `hostel session approve` and `deny` answer them.

Exits with 1 when the turn failed, with 130 when it was interrupted, by Ctrl-C here or by somebody else, or when a second Ctrl-C left it. With --json, stdout has the events of the turn, one a line; with --no-wait the message.

Examples:
  hostel session send $id 'What is in this directory?'
  hostel session send $id --image screen.png 'What is wrong here?'
  make 2>&1 | hostel session send $id 'Explain:' -")]
pub(crate) struct SendArgs {
    /// Print the message's id and return; its turn goes on.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Add a picture: png, jpeg, gif or webp. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Vec<PathBuf>,
    /// Makes the call repeatable: the same id and message, sent once.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// The session.
    pub(crate) id: String,
    /// The message; words are joined by spaces, - is what comes from stdin.
    #[arg(required_unless_present = "image", value_name = "TEXT")]
    pub(crate) text: Vec<String>,
}

/// What to attach to.
#[derive(Debug, Args)]
#[command(
    after_help = "Each line that is typed, or comes from stdin, is sent as a message. Ctrl-C or Ctrl-D \
    leaves; the session goes on. With --json, stdout has the events, one a line."
)]
pub(crate) struct AttachSessionArgs {
    /// Only what happens from now on.
    #[arg(long)]
    pub(crate) new: bool,
    /// Print what happened and return.
    #[arg(long, conflicts_with = "new")]
    pub(crate) no_follow: bool,
    /// The session.
    pub(crate) id: String,
}

/// Which events to print.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hostel session events $id --type turn:completed --json\n  \
    hostel session events $id --after 120 --follow")]
pub(crate) struct EventsArgs {
    /// Those after this number.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub(crate) after: u64,
    /// And those that come, until Ctrl-C or the end of the session.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only of this type. May be given several times.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// The session.
    pub(crate) id: String,
}
