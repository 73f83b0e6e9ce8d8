//! A fast pattern in which every byte is known from its offset, so that any piece of it can be checked.
//!
//! Byte `k` is byte `k % 8` of the little-endian word `mix(seed + k / 8)`, where `mix` is the finaliser of
//! SplitMix64 (Steele, Lea, Flood 2014). The conformance suite has the same function.

use std::io::{Read, Write};

const CHUNK: usize = 256 << 10;

/// The pattern's word at an index.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills a buffer that starts at an offset divisible by eight.
fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    for (index, piece) in (offset / 8..).zip(buffer.chunks_mut(8)) {
        piece.copy_from_slice(&word(seed, index).to_le_bytes()[..piece.len()]);
    }
}

/// Writes that many bytes to stdout.
pub(crate) fn write(bytes: u64, seed: u64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < bytes {
        let length = usize::try_from(bytes - offset).unwrap_or(CHUNK).min(CHUNK);
        fill(seed, offset, &mut buffer[..length]);
        out.write_all(&buffer[..length])?;
        offset += length as u64;
    }
    out.flush()
}

/// Reads stdin to its end and prints `ok COUNT`, or `wrong at OFFSET` and fails.
pub(crate) fn verify(seed: u64) -> std::io::Result<()> {
    let mut input = std::io::stdin().lock();
    let (mut buffer, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut offset = 0_u64;
    loop {
        let mut length = 0;
        while length < CHUNK {
            match input.read(&mut buffer[length..])? {
                0 => break,
                count => length += count,
            }
        }
        fill(seed, offset, &mut expected[..length]);
        if let Some(place) = (0..length).find(|&place| buffer[place] != expected[place]) {
            println!("wrong at {}", offset + place as u64);
            return Err(std::io::Error::other("the input is not the pattern"));
        }
        offset += length as u64;
        if length < CHUNK {
            println!("ok {offset}");
            return Ok(());
        }
    }
}
