//! Schedules of pools, as people write them: `mon-fri 08:00-18:00 min=20`.

use hostel_client::model::{PoolSchedule, Weekday};

const FORM: &str = "write [DAYS] HH:MM-HH:MM min=N in UTC, for example \"mon-fri 08:00-18:00 min=20\"";
const MINUTES_OF_DAY: u32 = 24 * 60;

/// A schedule. Days are joined with commas, or from-to; without days it is every day. An end before the beginning
/// is on the next day.
pub(crate) fn parse(text: &str) -> Result<PoolSchedule, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours, least) = match words[..] {
        [days, hours, least] => (self::days(days)?, hours, least),
        [hours, least] => (Vec::new(), hours, least),
        _ => return Err(FORM.to_owned()),
    };
    let (from, to) = hours.split_once('-').ok_or_else(|| format!("{hours:?} are no hours: {FORM}"))?;
    let (from_minute, to_minute) = (minute(from)?, minute(to)?);
    if from_minute == MINUTES_OF_DAY {
        return Err("a day begins at 00:00, not at 24:00".to_owned());
    }
    if from_minute == to_minute {
        return Err(format!("{hours:?} begins and ends at once; the whole day is 00:00-24:00"));
    }
    let least = least.strip_prefix("min=").ok_or_else(|| format!("{least:?} is not min=N: {FORM}"))?;
    let min_size =
        least.parse().map_err(|_| format!("min={least}: {least:?} is no number of sandboxes: {FORM}"))?;
    Ok(PoolSchedule { days, from_minute, to_minute, min_size })
}

fn days(text: &str) -> Result<Vec<Weekday>, String> {
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // From Friday to Monday goes over the end of the week.
        let length = (last + 7 - first) % 7 + 1;
        days.extend(Weekday::ALL.into_iter().cycle().skip(first).take(length));
    }
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

/// The place of a day in the week, Monday first.
fn day(text: &str) -> Result<usize, String> {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let name = text.to_ascii_lowercase();
    let is = |whole: &&str| *whole == name || whole[..3] == name;
    NAMES.iter().position(is).ok_or_else(|| format!("{text:?} is no day: mon, tue, wed, thu, fri, sat, sun"))
}

fn minute(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time of day: 00:00 to 24:00");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str, lengths: &[usize]| {
        let plain = lengths.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten().ok_or_else(wrong)
    };
    let (hour, minute) = (number(hour, &[1, 2])?, number(minute, &[2])?);
    let all = hour * 60 + minute;
    if minute > 59 || all > MINUTES_OF_DAY { Err(wrong()) } else { Ok(all) }
}

/// A schedule as it would be typed.
pub(crate) fn text(schedule: &PoolSchedule) -> String {
    let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let (from, to) = (time(schedule.from_minute), time(schedule.to_minute));
    let days = days_text(&schedule.days);
    let space = if days.is_empty() { "" } else { " " };
    format!("{days}{space}{from}-{to} min={}", schedule.min_size)
}

fn days_text(days: &[Weekday]) -> String {
    let name = |at: usize| format!("{:?}", Weekday::ALL[at]).to_lowercase();
    let has = |at: usize| Weekday::ALL.get(at).is_some_and(|day| days.contains(day));
    let mut parts = Vec::new();
    let mut at = 0;
    while at < 7 {
        let length = (at..7).take_while(|at| has(*at)).count();
        match length {
            0 => {}
            1 => parts.push(name(at)),
            2 => parts.extend([name(at), name(at + 1)]),
            _ => parts.push(format!("{}-{}", name(at), name(at + length - 1))),
        }
        at += length.max(1);
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};

    fn schedule(days: &[Weekday], from_minute: u32, to_minute: u32, min_size: u32) -> PoolSchedule {
        PoolSchedule { days: days.to_vec(), from_minute, to_minute, min_size }
    }

    #[test]
    fn people_write_hours_in_many_ways() {
        let week = [Mon, Tue, Wed, Thu, Fri];
        for (text, expected) in [
            ("mon-fri 08:00-18:00 min=20", schedule(&week, 480, 1080, 20)),
            ("00:00-24:00 min=3", schedule(&[], 0, 1440, 3)),
            ("  Sat,SUNDAY   9:30-10:15   min=0 ", schedule(&[Sat, Sun], 570, 615, 0)),
            ("fri-mon 22:00-06:00 min=5", schedule(&[Mon, Fri, Sat, Sun], 1320, 360, 5)),
            ("tue,mon-wed 1:00-00:00 min=1", schedule(&[Mon, Tue, Wed], 60, 0, 1)),
            ("wed-wed 1:00-2:00 min=1", schedule(&[Wed], 60, 120, 1)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_says_what_is_wrong() {
        for (text, says) in [
            ("", "mon-fri 08:00"),
            ("08:00-18:00", "write"),
            ("mon 08:00-18:00 min=2 more", "write"),
            ("mon 08:00 min=2", "no hours"),
            ("moon 08:00-18:00 min=2", "\"moon\" is no day"),
            ("mon- 08:00-18:00 min=2", "\"\" is no day"),
            ("mon, 08:00-18:00 min=2", "\"\" is no day"),
            ("ümon 08:00-18:00 min=2", "is no day"),
            ("08:00-8:60 min=2", "8:60"),
            ("08:00-24:01 min=2", "24:01"),
            ("8-18 min=2", "\"8\" is no time"),
            ("+8:00-18:00 min=2", "+8:00"),
            ("08:000-18:00 min=2", "08:000"),
            ("24:00-08:00 min=2", "begins at 00:00"),
            ("08:00-08:00 min=2", "00:00-24:00"),
            ("08:00-18:00 20", "min=N"),
            ("08:00-18:00 min=-1", "no number"),
            ("08:00-18:00 min=4294967296", "no number"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        for text in [
            "mon-fri 08:00-18:00 min=20",
            "22:00-06:00 min=1",
            "sat,sun 00:00-24:00 min=2",
            "mon,wed-fri,sun 01:05-02:00 min=3",
            "mon-sun 00:00-12:00 min=9",
        ] {
            assert_eq!(super::text(&parse(text).unwrap()), text);
        }
    }
}
