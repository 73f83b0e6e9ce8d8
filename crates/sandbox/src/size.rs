//! Sizes as people write them: bytes `512M`, `1.5G`, `4096`; cores `0.5`; spans of time `30s`, `1h30m`.

use crate::error::{Error, Result};
use std::time::Duration;

/// Reads a size in bytes. Suffixes K, M, G, T are powers of 1024; `KiB`, `MB`, `b` and case are accepted alike.
///
/// # Errors
/// [`Error::InvalidArgument`] on anything else, on negative values and on overflow.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong =
        || Error::invalid("size", format!("{text:?} is not a size: write bytes or 64K, 512M, 1.5G, 2T"));
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = trimmed[digits.len()..].to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = digits.trim().split_once('.').unwrap_or((digits.trim(), ""));
    if whole.is_empty()
        || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        || fraction.len() > 9
    {
        return Err(wrong());
    }
    let unit_bytes = 1u128 << shift;
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let mut bytes = whole.checked_mul(unit_bytes).ok_or_else(wrong)?;
    if !fraction.is_empty() {
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        bytes += fraction.parse::<u128>().map_err(|_| wrong())? * unit_bytes / scale;
    }
    u64::try_from(bytes).map_err(|_| wrong())
}

/// Reads processor cores, `0.5` or `2`, as thousandths of a core.
///
/// # Errors
/// [`Error::InvalidArgument`] on anything else, and on more than three digits after the point.
pub fn parse_cpus(text: &str) -> Result<u32> {
    let wrong = || Error::invalid("cpus", format!("{text:?} is not a number of cores: write 2, 1.5 or 0.25"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) || fraction.len() > 3
    {
        return Err(wrong());
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let thousandths: u32 = format!("{fraction:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|millis| millis.checked_add(thousandths)).ok_or_else(wrong)
}

/// Reads a span of time: `30s`, `1.5h`, `1h30m`, `500ms`; a bare number is seconds.
///
/// # Errors
/// [`Error::InvalidArgument`] on anything else, and on overflow.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid("duration", format!("{text:?} is not a duration: write 500ms, 30s, 5m, 1h30m or 2d"))
    };
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let unit =
            rest[number..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| number + end);
        let value: f64 = rest[..number].parse().map_err(|_| wrong())?;
        let seconds = match &rest[number..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(value * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Writes a size for people: `512 MiB`, `1.5 GiB`, `17 B`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..5).rev().find(|unit| bytes >> (unit * 10) > 0).unwrap_or(0);
    let tenths = (u128::from(bytes) * 10) >> (unit * 10);
    if unit == 0 || tenths % 10 == 0 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_sizes_in_many_ways() {
        for (text, bytes) in
            [("512M", 512 << 20), ("1.5G", 3 << 29), ("4096", 4096), ("64kib", 65536), (" 2 T ", 2 << 40)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "M", "-1", "1.2.3", "1X", "99999999999T", "1e3", "0x10"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(format_bytes(3 << 29), "1.5 GiB");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = (parse_bytes(&text), parse_cpus(&text), parse_duration(&text));
        }

        #[test]
        fn whole_units_survive_a_round_trip(mib in 1u64..1 << 30) {
            prop_assert_eq!(parse_bytes(&format_bytes(mib << 40 >> 20)).is_ok(), true);
        }
    }
}
