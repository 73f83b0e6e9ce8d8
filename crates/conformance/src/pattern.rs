//! The probe's pattern: every byte is known from its offset, so that any piece of a stream can be checked.

/// Byte `k` is byte `k % 8` of word `k / 8`; words are SplitMix64 (Steele, Lea, Flood 2014) of `seed + k / 8`.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bytes from an offset on.
pub(crate) fn bytes(seed: u64, offset: u64, length: usize) -> Vec<u8> {
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    let words = (skip + length).div_ceil(8);
    let mut out = Vec::with_capacity(words * 8);
    for index in 0..words {
        out.extend_from_slice(&word(seed, offset / 8 + index as u64).to_le_bytes());
    }
    out.truncate(skip + length);
    out.split_off(skip)
}

/// The first offset at which data that starts at `offset` differs.
pub(crate) fn first_difference(seed: u64, offset: u64, data: &[u8]) -> Option<u64> {
    let expected = bytes(seed, offset, data.len());
    if expected == data {
        return None;
    }
    let place = expected.iter().zip(data).position(|(left, right)| left != right);
    place.map(|place| offset + place as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_and_the_suite_agree() {
        // `hostel-probe pattern 16 7 | od -An -tx1`
        assert_eq!(bytes(7, 0, 16), KNOWN);
        assert_eq!(bytes(7, 5, 6), KNOWN[5..11]);
        assert_eq!(first_difference(7, 3, &KNOWN[3..]), None);
        assert_eq!(first_difference(7, 0, &[KNOWN[0], KNOWN[1] ^ 1]), Some(1));
    }

    const KNOWN: [u8; 16] =
        [0xe1, 0x32, 0x45, 0x1f, 0xbe, 0x9a, 0x82, 0x2c, 0x3c, 0xab, 0x16, 0xc9, 0x3a, 0x13, 0x84, 0xc5];
}
