//! Values as people write them.

pub(crate) use super::reach::{dollars, rule, secret};
use hostel_client::model::{BudgetPeriod, EndReason, SessionPattern, SessionStatus, UsageGroup};
use hostel_sandbox::size::{parse_bytes, parse_cpus, parse_duration};
use hostel_sandbox::{BackendName, Capability, NetworkMode, ProcessId, SandboxId, SandboxState, TemplateId};
use std::time::Duration;

pub(crate) fn sandbox(text: &str) -> Result<SandboxId, String> {
    SandboxId::parse(text).map_err(problem)
}

pub(crate) fn process(text: &str) -> Result<ProcessId, String> {
    ProcessId::parse(text).map_err(problem)
}

pub(crate) fn template(text: &str) -> Result<TemplateId, String> {
    TemplateId::parse(text).map_err(problem)
}

pub(crate) fn backend(text: &str) -> Result<BackendName, String> {
    BackendName::parse(text).map_err(problem)
}

/// The name of a pool. Its form is the daemon's to check; an empty one would mean any pool.
pub(crate) fn pool(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a pool's name is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// A share of all: `0.99` or `99%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().map(|number| number / whole).ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("{text:?} is no share: write 0.99 or 99%"))
}

/// Bytes: `512M`, `1.5G`, `4096`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(problem)
}

/// What is wrong, without the name of a field that clap names anyway.
fn problem(error: hostel_sandbox::Error) -> String {
    match error {
        hostel_sandbox::Error::InvalidArgument { problem, .. } => problem,
        other => other.to_string(),
    }
}

/// Processor cores, `0.5` or `2`, in thousandths.
pub(crate) fn cpus(text: &str) -> Result<u32, String> {
    parse_cpus(text).map_err(problem)
}

/// A span of time: `30s`, `1.5h`, `1h30m`, `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(problem)
}

/// A label, `k=v` or `k`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let labels = [(key.to_owned(), value.to_owned())].into();
    hostel_sandbox::label::validate(&labels).map_err(problem)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// An environment variable, `K=V`, or `K` to pass on what it is here; `None` where it is not set here.
pub(crate) fn env(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    if name.is_empty() {
        return Err(format!(
            "{text:?} has no name: write NAME=VALUE, or NAME to pass on the value that it has here"
        ));
    }
    Ok((name.to_owned(), value))
}

/// The lines of an environment file: `K=V` or `K`; empty lines and those that begin with `#` do not count.
pub(crate) fn env_lines(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end_matches('\r')));
    lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(number, line)| env(line.trim_start()).map_err(|error| format!("line {number}: {error}")))
        .collect()
}

/// `SRC:DST`, the second an absolute path in the sandbox.
pub(crate) fn file(text: &str) -> Result<(std::path::PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((source, target)) if !source.is_empty() && target.starts_with('/') => {
            Ok((source.into(), target.to_owned()))
        }
        _ => Err(format!("{text:?}: write SRC:DST, with DST an absolute path in the sandbox")),
    }
}

pub(crate) fn network(text: &str) -> Result<NetworkMode, String> {
    match text {
        "none" => Ok(NetworkMode::None),
        "open" => Ok(NetworkMode::Open),
        "allowlist" => Ok(NetworkMode::Allowlist),
        _ => Err(format!("{text:?} is no network policy: none, allowlist or open")),
    }
}

pub(crate) fn usage_group(text: &str) -> Result<UsageGroup, String> {
    match text {
        "sandbox" => Ok(UsageGroup::Sandbox),
        "model" => Ok(UsageGroup::Model),
        "day" => Ok(UsageGroup::Day),
        "session" => Ok(UsageGroup::Session),
        "label" => Ok(UsageGroup::Labels),
        _ => match text.strip_prefix("label:") {
            Some(label) if !label.is_empty() => Ok(UsageGroup::Label(label.to_owned())),
            _ => Err(format!("{text:?} is not sandbox, model, day, session, label or label:KEY")),
        },
    }
}

pub(crate) fn period(text: &str) -> Result<BudgetPeriod, String> {
    match text {
        "total" => Ok(BudgetPeriod::Total),
        "day" => Ok(BudgetPeriod::Day),
        "month" => Ok(BudgetPeriod::Month),
        _ => Err(format!("{text:?} is not total, day or month")),
    }
}

pub(crate) fn pattern(text: &str) -> Result<SessionPattern, String> {
    SessionPattern::from_name(text)
        .ok_or_else(|| one_of(text, SessionPattern::ALL.iter().map(|pattern| pattern.name())))
}

pub(crate) fn session_status(text: &str) -> Result<SessionStatus, String> {
    SessionStatus::from_name(text)
        .ok_or_else(|| one_of(text, SessionStatus::ALL.iter().map(|status| status.name())))
}

pub(crate) fn end_reason(text: &str) -> Result<EndReason, String> {
    EndReason::from_name(text).ok_or_else(|| one_of(text, EndReason::ALL.iter().map(|reason| reason.name())))
}

fn one_of(text: &str, names: impl Iterator<Item = &'static str>) -> String {
    format!("{text:?} is none of {}", names.collect::<Vec<_>>().join(", "))
}

pub(crate) fn capability(text: &str) -> Result<Capability, String> {
    Capability::from_name(text).ok_or_else(|| {
        let names: Vec<_> = Capability::ALL.iter().map(|capability| capability.name()).collect();
        format!("{text:?} is no capability; there are {}", names.join(", "))
    })
}

pub(crate) fn state(text: &str) -> Result<SandboxState, String> {
    use SandboxState::{Creating, Failed, Paused, Ready, Stopped, Stopping};
    let all = [Creating, Ready, Paused, Stopping, Stopped, Failed];
    all.into_iter()
        .find(|state| state.to_string() == text)
        .ok_or_else(|| format!("{text:?} is no state: creating, ready, paused, stopping, stopped or failed"))
}

/// Names of signals by number, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal: `TERM`, `SIGTERM`, `term` or `15`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number = match name.parse::<i32>() {
        Ok(number) => Some(number).filter(|number| (1..=64).contains(number)),
        Err(_) => SIGNALS.iter().position(|signal| *signal == name).and_then(|at| i32::try_from(at + 1).ok()),
    };
    number.ok_or_else(|| format!("{text:?} is no signal: write TERM, KILL, INT, … or a number from 1 to 64"))
}

/// The name of a signal, `SIGTERM`, or its number.
pub(crate) fn signal_name(number: i32) -> String {
    let name = usize::try_from(number - 1).ok().and_then(|at| SIGNALS.get(at));
    name.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_exactly() {
        for (text, millis) in [("1", 1000), ("0.5", 500), (".25", 250), ("2.", 2000), ("1.125", 1125)] {
            assert_eq!(cpus(text), Ok(millis), "{text}");
        }
        for text in ["", ".", "-1", "1e3", "1.2345", "99999999", "one"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_add_up() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("2d", 172_800_000),
            ("10", 10_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1x", "1.2.3s", "-1s", "1h30", "99999999999999999999d", "nan s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!((signal("TERM"), signal("sigkill"), signal("2")), (Ok(15), Ok(9), Ok(2)));
        assert!(
            signal("0").is_err() && signal("65").is_err() && signal("NOPE").is_err() && signal("").is_err()
        );
        assert_eq!((signal_name(11).as_str(), signal_name(40).as_str()), ("SIGSEGV", "signal 40"));
    }

    #[test]
    fn an_environment_file_may_have_comments_and_values_with_equal_signs() {
        let lines = env_lines("# one\n\nA=b=c\r\n  B=\n").unwrap();
        assert_eq!(lines, [("A".to_owned(), Some("b=c".to_owned())), ("B".to_owned(), Some(String::new()))]);
        assert!(env_lines("A=1\n=2").unwrap_err().starts_with("line 2"));
    }

    #[test]
    fn files_go_to_absolute_paths() {
        assert_eq!(file("a:b:/c"), Ok(("a:b".into(), "/c".to_owned())));
        for text in ["a", "a:b", ":/b", "a:"] {
            assert!(file(text).is_err(), "{text}");
        }
    }
}
