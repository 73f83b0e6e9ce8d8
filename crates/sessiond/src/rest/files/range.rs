//! Parts of files (RFC 9110 §14). One part at a time; what is no such range is taken for none, as the RFC has it.

use axum::http::HeaderMap;

/// What part of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes, the last included.
    Bytes { first: u64, last: u64 },
    /// None that it has.
    Nothing,
}

/// The part of a file of `size` bytes.
pub(super) fn part(headers: &HeaderMap, size: u64) -> Part {
    // Who has a part of an earlier version wants all of this one; times in seconds do not tell versions apart
    // (RFC 9110 §13.1.5 and §8.8.2.2), so that the whole is always right.
    if headers.contains_key("if-range") {
        return Part::Whole;
    }
    let text = headers.get("range").and_then(|value| value.to_str().ok());
    let Some((first, last)) = text.and_then(|text| text.strip_prefix("bytes=")?.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        // The last so many bytes.
        (Err(_), Ok(0)) if first.is_empty() => Part::Nothing,
        (Err(_), Ok(length)) if first.is_empty() => match size {
            0 => Part::Nothing,
            size => Part::Bytes { first: size.saturating_sub(length), last: size - 1 },
        },
        (Ok(first), _) if first >= size && (last.is_empty() || last.parse::<u64>().is_ok()) => Part::Nothing,
        (Ok(first), Err(_)) if last.is_empty() => Part::Bytes { first, last: size - 1 },
        (Ok(first), Ok(last)) if first <= last => Part::Bytes { first, last: last.min(size - 1) },
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (range, size, expected) in [
            ("bytes=0-4", 10, Part::Bytes { first: 0, last: 4 }),
            ("bytes=5-", 10, Part::Bytes { first: 5, last: 9 }),
            ("bytes=-3", 10, Part::Bytes { first: 7, last: 9 }),
            ("bytes=-30", 10, Part::Bytes { first: 0, last: 9 }),
            ("bytes=5-500", 10, Part::Bytes { first: 5, last: 9 }),
            ("bytes=10-", 10, Part::Nothing),
            ("bytes=-0", 10, Part::Nothing),
            ("bytes=0-", 0, Part::Nothing),
            ("bytes=-1", 0, Part::Nothing),
            ("bytes=4-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("lines=0-1", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
        ] {
            let headers = HeaderMap::from_iter([(axum::http::header::RANGE, range.parse().unwrap())]);
            assert_eq!(part(&headers, size), expected, "{range} of {size}");
        }
        assert_eq!(part(&HeaderMap::new(), 10), Part::Whole);
        let range = (axum::http::header::RANGE, "bytes=5-".parse().unwrap());
        let of_which = (axum::http::header::IF_RANGE, "Sun, 22 Nov 2026 10:00:00 GMT".parse().unwrap());
        assert_eq!(part(&HeaderMap::from_iter([range, of_which]), 10), Part::Whole);
    }
}
