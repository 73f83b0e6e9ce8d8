//! Numbers and texts for people.

use hostel_client::model::CreatedSandbox;
use hostel_sandbox::size::format_bytes;
use jiff::Timestamp;
use std::time::Duration;

/// Text from a sandbox or a daemon, made safe for a terminal: control characters are shown, not obeyed.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape = (c.is_control() && c != '\n') || turns_text_around(c);
            let plain = (!escape).then_some(c);
            let escaped = escape.then(|| c.escape_default()).into_iter().flatten();
            plain.into_iter().chain(escaped)
        })
        .collect()
}

/// Whether a terminal may show what comes after it in another order (Unicode, UAX #9): a question would not show what it
/// asks about.
fn turns_text_around(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How long ago, in one unit: `3m`, `2h`, `5d`; `-` where not known.
pub(crate) fn age(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| span(seconds_between(time, Timestamp::now())))
}

/// How long from now, in one unit; `-` where there is no such time.
pub(crate) fn until(time: Option<Timestamp>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| format!("in {}", span(seconds_between(Timestamp::now(), time))),
    )
}

fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0)
}

/// A span of time in its largest unit.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6000 => format!("{}m", seconds / 60),
        6000..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A measured span to two or three digits: `0ms`, `0.42ms`, `31ms`, `1.3s`, `5m`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of a span")]
pub(crate) fn brief(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    match seconds {
        _ if millis <= 0.0 => "0ms".to_owned(),
        _ if millis < 0.9995 => format!("{millis:.2}ms"),
        _ if millis < 9.95 => format!("{millis:.1}ms"),
        _ if millis < 999.5 => format!("{millis:.0}ms"),
        _ if seconds < 9.95 => format!("{seconds:.1}s"),
        _ => span(seconds.round() as u64),
    }
}

/// A share in percent, to a hundredth and never rounded up: what is shown as 99% is 99%.
pub(crate) fn percent(share: f64) -> String {
    // A hair more, so that 0.29 is not 28.99%.
    let hundredths = (share * 10_000.0 + 1e-6).floor();
    let text = format!("{:.2}", hundredths / 100.0);
    format!("{}%", text.strip_suffix(".00").unwrap_or(&text))
}

/// Money in US dollars, exact to the cent where that is enough.
pub(crate) fn dollars(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    if part % 10_000 == 0 { format!("${whole}.{:02}", part / 10_000) } else { format!("${whole}.{part:06}") }
}

/// How a sandbox came to be, and what took how long: `sb-1 is warm, from the pool web, after 1.3ms; bind 0.02ms`.
pub(crate) fn start(created: &CreatedSandbox, took: Duration) -> String {
    let sandbox = &created.sandbox;
    let pool = sandbox.pool.as_ref().map(|pool| format!(", from the pool {pool}")).unwrap_or_default();
    let stages: Vec<_> =
        created.stages.iter().map(|stage| format!("{} {}", stage.name, brief(stage.seconds))).collect();
    let separator = if stages.is_empty() { "" } else { "; " };
    let (kind, took) = (sandbox.start_kind.name(), brief(took.as_secs_f64()));
    format!("{} is {kind}{pool}, after {took}{separator}{}", sandbox.id, stages.join(", "))
}

/// A duration as it would be typed: `30s`, `1.5s`, `20ms`, `1h30m`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && !duration.is_zero() {
        return format!("{}ms", duration.as_millis());
    }
    if seconds < 60 || duration.subsec_nanos() > 0 {
        return format!("{}s", duration.as_secs_f64());
    }
    let parts =
        [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    parts.iter().filter(|(_, number)| *number > 0).map(|(unit, number)| format!("{number}{unit}")).collect()
}

/// Processor time in seconds, to the millisecond.
pub(crate) fn cpu_time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}s"))
}

/// A size, or `-` where not known.
pub(crate) fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), format_bytes)
}

/// What is used of what: `12 MiB / 512 MiB`.
pub(crate) fn usage(used: Option<u64>, limit: Option<u64>, show: impl Fn(u64) -> String) -> String {
    let used = used.map_or_else(|| "-".to_owned(), &show);
    limit.map_or_else(|| used.clone(), |limit| format!("{used} / {}", show(limit)))
}

/// Thousandths of cores: `0.5`, `2`.
pub(crate) fn cores(millis: u64) -> String {
    match (millis / 1000, millis % 1000) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{rest:03}").trim_end_matches('0').to_owned(),
    }
}

/// A command as it would be typed, cut to `width` characters.
pub(crate) fn command(words: &[String], width: usize) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=,+@%".contains(c))
    };
    let quoted = words
        .iter()
        .map(|word| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) });
    let line = printable(&quoted.collect::<Vec<_>>().join(" ")).replace('\n', "\\n");
    if line.chars().count() <= width {
        return line;
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Labels as they would be typed.
pub(crate) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let labels: Vec<_> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    printable(&labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sandbox_says_cannot_drive_the_terminal() {
        assert_eq!(printable("rm \u{202e}cba"), "rm \\u{202e}cba");
        assert_eq!(printable("a\u{1b}[2Jb\u{7f}\nä"), "a\\u{1b}[2Jb\\u{7f}\nä");
        let words = ["sh".to_owned(), "-c".to_owned(), "echo 'x'\n\u{9b}".to_owned()];
        assert_eq!(command(&words, 80), "sh -c 'echo '\\''x'\\''\\n\\u{9b}'");
        assert_eq!(command(&words, 6), "sh -c…");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([span(5), span(100), span(7200), span(200_000)], ["5s", "1m", "2h", "2d"]);
        assert_eq!([cores(500), cores(2000), cores(1250)], ["0.5", "2", "1.25"]);
        assert_eq!(usage(Some(3), Some(9), |n| n.to_string()), "3 / 9");
        let typed =
            [0, 20, 1500, 60_000, 5_400_000, 90_061_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(typed, ["0s", "20ms", "1.5s", "1m", "1h30m", "1d1h1m1s"]);
        let spans = [0.0, 0.00042, 0.0042, 0.031, 0.99949, 0.9996, 1.25, 42.4, 600.0].map(brief);
        assert_eq!(spans, ["0ms", "0.42ms", "4.2ms", "31ms", "999ms", "1.0s", "1.2s", "42s", "10m"]);
    }

    #[test]
    fn shares_are_not_better_than_they_are() {
        let shares = [0.0, 0.29, 0.5, 0.98999, 0.999, 0.99999, 1.0].map(percent);
        assert_eq!(shares, ["0%", "29%", "50%", "98.99%", "99.90%", "99.99%", "100%"]);
    }
}
