//! Why a command failed: a sentence, what to do next, and an exit code.

use hostel_client::Error;
use hostel_client::domain::Error as DomainError;
use serde_json::{Map, Value, json};

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// We failed, or the daemon; not the command.
pub(crate) const OURS: u8 = 125;
/// The command cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(crate) const NO_SUCH_COMMAND: u8 = 127;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The daemon or the way to it.
    Client(Error),
    /// The command line is wrong in a way that its parser does not see.
    Usage(String),
    /// Something of this side.
    Other {
        /// The reason for programs.
        reason: &'static str,
        /// What happened, on what.
        message: String,
    },
    /// Whoever reads our stdout has gone: there is nothing more to say.
    NobodyReads,
    /// This signal ended us: whoever sent it knows.
    Signal(i32),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn other(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Other { reason, message: message.into() }
    }

    /// What writing to stdout came to.
    pub(crate) fn stdout(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::other("STDOUT", format!("cannot write to stdout: {error}")),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Client(error) => launch_code(error).unwrap_or(OURS),
            Self::Other { .. } => OURS,
            // As if SIGPIPE had ended us.
            Self::NobodyReads => 141,
            Self::Signal(signal) => crate::signals::exit_code(*signal),
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Client(error) => match launch_code(error) {
                Some(NO_SUCH_COMMAND) => "COMMAND_NOT_FOUND",
                Some(_) => "COMMAND_NOT_EXECUTABLE",
                None => error.reason(),
            },
            Self::Usage(_) => "USAGE",
            Self::Other { reason, .. } => reason,
            Self::NobodyReads => "NOBODY_READS",
            Self::Signal(_) => "SIGNAL",
        }
    }

    /// One sentence, without what to do next.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Client(error) => match (launch_code(error), error.violations().first()) {
                (Some(_), Some(violation)) => format!("cannot run the command: {}", violation.description),
                (Some(_), None) => format!("cannot run the command: {error}"),
                (None, _) => error.to_string(),
            },
            Self::Usage(message) | Self::Other { message, .. } => message.clone(),
            Self::NobodyReads => "nobody reads stdout any more".to_owned(),
            Self::Signal(signal) => format!("ended by signal {signal}"),
        }
    }

    /// What to do next, where we know.
    pub(crate) fn hint(&self) -> Option<String> {
        let Self::Client(error) = self else { return None };
        if launch_code(error).is_some() {
            return None;
        }
        match error {
            Error::Unreachable { detail, .. } if detail.contains("ermission denied") => Some(
                "the socket is there but not for you: run as root, or as a user of the group that owns it".to_owned(),
            ),
            Error::Unreachable { .. } => Some(
                "is hosteld running? start one with `hostel up`, or say where it is with --addr or HOSTEL_ADDR"
                    .to_owned(),
            ),
            Error::SessionServerUnreachable { .. } => Some(
                "is hostel-sessiond running? `hostel up` starts one, or say where it is with --sessions or \
                 HOSTEL_SESSIOND_ADDR"
                    .to_owned(),
            ),
            Error::GaveUp { .. } => {
                Some("the process goes on without us: `hostel attach` reads its output once hosteld is back".to_owned())
            }
            Error::Refused(refusal) => {
                let metadata = |key: &str| refusal.metadata.get(key).map_or("", String::as_str);
                hint_for(&refusal.reason, metadata("kind")).map(str::to_owned)
            }
            _ => None,
        }
    }

    /// The failure as `{"error":{…}}`.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("reason".to_owned(), self.reason().into());
        error.insert("message".to_owned(), self.message().into());
        if let Some(hint) = self.hint() {
            error.insert("hint".to_owned(), hint.into());
        }
        if let Self::Client(client) = self {
            if let Some(metadata) = client.metadata().filter(|metadata| !metadata.is_empty()) {
                error.insert("metadata".to_owned(), json!(metadata));
            }
            if !client.violations().is_empty() {
                let violations: Vec<_> = client
                    .violations()
                    .iter()
                    .map(
                        |violation| json!({ "field": violation.field, "description": violation.description }),
                    )
                    .collect();
                error.insert("violations".to_owned(), violations.into());
            }
            if let Error::Invalid(DomainError::InvalidArgument { field, problem }) = client {
                error.insert("violations".to_owned(), json!([{ "field": field, "description": problem }]));
            }
        }
        json!({ "error": error })
    }
}

fn hint_for(reason: &str, kind: &str) -> Option<&'static str> {
    match (reason, kind) {
        ("NOT_FOUND", "sandbox") => Some("`hostel sandbox list` shows those that are there"),
        ("NOT_FOUND", "process") => Some("`hostel ps SANDBOX` shows those that are known"),
        ("NOT_FOUND", "template") => Some("`hostel template list` shows those that are there"),
        ("NOT_FOUND", "pool") => Some("`hostel pool list` shows those that are there"),
        ("NOT_FOUND", "session") => Some("`hostel session list` shows those that are there"),
        ("UNAUTHENTICATED", _) => Some("say who you are: HOSTEL_SESSIOND_TOKEN has the token"),
        ("SESSION_NOT_ACTIVE", _) => {
            Some("`hostel session get ID` says why; `hostel session create` makes another")
        }
        ("SESSION_LIMIT_REACHED", _) => {
            Some("`hostel session update ID --budget …` and the like raise its limits")
        }
        ("ANSWERED", _) => Some("`hostel session questions ID` shows those that wait"),
        ("NO_ENVIRONMENT", _) => Some("the next message to the session brings a sandbox"),
        ("NO_DEMAND", _) => Some("make some sandboxes of its template first, or leave out --window"),
        ("CAPABILITY_MISSING", _) => Some("`hostel doctor` says what this host lacks and how to mend it"),
        ("STDIN_HELD", _) => {
            Some("somebody else writes to it: leave out -i to read along, or add --take-over")
        }
        ("SANDBOX_STATE", _) => Some("`hostel sandbox get SANDBOX` says what state it is in and why"),
        ("NODE_DRAINING", _) => Some("`hostel node drain --resume` makes it take sandboxes again"),
        ("CURSOR_EXPIRED", _) => Some("leave out --from to watch from now on"),
        ("TEMPLATE_IN_USE", _) => {
            Some("`hostel sandbox list`, `hostel pool list` and `hostel template list` show what uses it")
        }
        _ => None,
    }
}

/// The code for a command that could not be launched; `None` for every other failure.
fn launch_code(error: &Error) -> Option<u8> {
    let refusal = error.refusal()?;
    if refusal.reason == "NOT_FOUND" && refusal.metadata.get("kind").is_some_and(|kind| kind == "program") {
        return Some(NO_SUCH_COMMAND);
    }
    let violation = refusal
        .violations
        .iter()
        .find(|violation| violation.field.ends_with("argv") || violation.field.ends_with("command"))?;
    let says = |words: &[&str]| words.iter().any(|word| violation.description.contains(word));
    if says(&["not executable", "ermission denied", "xec format"]) {
        return Some(NOT_EXECUTABLE);
    }
    says(&["no program", "no such", "No such", "not found"]).then_some(NO_SUCH_COMMAND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_client::{Address, FieldViolation, Refusal};

    fn refused(reason: &str, kind: &str, violation: Option<(&str, &str)>) -> Failure {
        let refusal = Refusal {
            code: 5.into(),
            reason: reason.to_owned(),
            message: "a message".to_owned(),
            metadata: [("kind".to_owned(), kind.to_owned())].into(),
            violations: violation
                .map(|(field, description)| FieldViolation {
                    field: field.to_owned(),
                    description: description.to_owned(),
                })
                .into_iter()
                .collect(),
        };
        Failure::Client(Error::Refused(Box::new(refusal)))
    }

    #[test]
    fn what_cannot_be_launched_has_the_codes_of_a_shell() {
        assert_eq!(refused("NOT_FOUND", "program", None).exit_code(), 127);
        let violation = |text| refused("INVALID_ARGUMENT", "", Some(("argv", text)));
        assert_eq!(violation("/etc/passwd is not executable").exit_code(), 126);
        assert_eq!(violation("there is no program \"x\"").exit_code(), 127);
        assert_eq!(violation("an argument has no NUL").exit_code(), 125);
        assert_eq!(refused("NOT_FOUND", "sandbox", None).exit_code(), 125);
    }

    #[test]
    fn failures_say_what_to_do_next() {
        let unreachable = Failure::Client(Error::Unreachable {
            address: "unix:///x.sock".parse::<Address>().unwrap(),
            detail: "No such file or directory".to_owned(),
        });
        assert!(unreachable.message().contains("unix:///x.sock"));
        assert!(unreachable.hint().unwrap().contains("hostel up"));
        let json = refused("NOT_FOUND", "sandbox", None).to_json();
        assert_eq!(json["error"]["reason"], "NOT_FOUND");
        assert_eq!(json["error"]["metadata"]["kind"], "sandbox");
        assert!(json["error"]["hint"].as_str().unwrap().contains("sandbox list"));
    }
}
