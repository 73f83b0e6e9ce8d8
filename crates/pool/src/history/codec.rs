//! Histories as bytes.

use super::durations::CLASSES;
use super::{Durations, History, LAST_SECOND, MAX_BYTES, MAX_SPAN};

const MARK: &[u8; 4] = b"HPH1";
/// Stands before a record that does not fit into one byte.
const ESCAPE: u8 = 0x80;
/// The mark, two seconds, all durations, at most 10 bytes each, and the records.
const MAX_ENCODED: usize = 4 + 10 * (3 + CLASSES) + MAX_BYTES + 32;

/// Why bytes are not a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// They do not begin as one does: something else, or a format of another version.
    #[error("this is not a recorded demand of a version known here")]
    Unknown,
    /// They end too early, go on too long, or contradict themselves.
    #[error("the recorded demand is damaged")]
    Damaged,
}

fn write_number(mut number: u64, mut put: impl FnMut(u8)) {
    while number >= 0x80 {
        put((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    put(number as u8);
}

fn read_number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Writes a record: near and small ones as `0gggcccc` with the gap less 1 and the count less 1.
pub(super) fn write_record(gap: u64, count: u32, mut put: impl FnMut(u8)) {
    if (1..=8).contains(&gap) && (1..=16).contains(&count) {
        put((gap as u8 - 1) << 4 | (count as u8 - 1));
        return;
    }
    put(ESCAPE);
    write_number(gap, &mut put);
    write_number(u64::from(count), &mut put);
}

/// Reads a record: the gap in seconds and the count. Nothing at the end, or where the bytes are not one.
pub(super) fn read_record(bytes: &mut impl Iterator<Item = u8>) -> Option<(u64, u32)> {
    let first = bytes.next()?;
    if first < ESCAPE {
        return Some((u64::from(first >> 4) + 1, u32::from(first & 0x0f) + 1));
    }
    if first != ESCAPE {
        return None;
    }
    let gap = read_number(bytes)?;
    let count = u32::try_from(read_number(bytes)?).ok()?;
    (gap <= LAST_SECOND && count > 0).then_some((gap, count))
}

/// Writes a history without an open second.
pub(super) fn encode(history: &History) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    write_number(history.start, |byte| bytes.push(byte));
    for count in history.durations.counts {
        write_number(u64::from(count), |byte| bytes.push(byte));
    }
    bytes.extend(&history.records);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<History, HistoryError> {
    let body = bytes.strip_prefix(MARK).ok_or(HistoryError::Unknown)?;
    if bytes.len() > MAX_ENCODED {
        return Err(HistoryError::Damaged);
    }
    let mut rest = body.iter().copied();
    let start = read_number(&mut rest).filter(|start| *start <= LAST_SECOND).ok_or(HistoryError::Damaged)?;
    let mut durations = Durations::default();
    for count in &mut durations.counts {
        let number = read_number(&mut rest).ok_or(HistoryError::Damaged)?;
        *count = u32::try_from(number).map_err(|_| HistoryError::Damaged)?;
    }
    let records = rest.clone();
    let (mut last, mut first) = (start, None);
    while rest.len() > 0 {
        let (gap, _) = read_record(&mut rest).ok_or(HistoryError::Damaged)?;
        last = last.saturating_add(gap);
        // What is recorded never spans more, and who replays it counts on that.
        let first = *first.get_or_insert(last);
        if last > LAST_SECOND || last - first > MAX_SPAN.as_secs() {
            return Err(HistoryError::Damaged);
        }
    }
    Ok(History { records: records.collect(), start, last, open: None, durations })
}
