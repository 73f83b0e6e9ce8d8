//! zstd (RFC 8878), a bounded step at a time.

use bytes::{Buf, Bytes};
use hostel_sandbox::file::ZSTD_WINDOW_LOG;
use hostel_sandbox::{Error, Result};
use std::io;
use zstd::stream::raw::{DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// Bytes that one step makes at most.
const CHUNK: usize = 256 << 10;
const LEVEL: i32 = 3;

fn refused(error: &io::Error) -> Error {
    Error::invalid("archive", format!("not valid zstd: {error}"))
}

/// Unpacks.
pub(crate) struct Unpacker {
    decoder: Decoder<'static>,
    input: Bytes,
    /// The last step filled its output, so there may be more without further input.
    is_full: bool,
    /// A frame has begun and not ended.
    in_frame: bool,
}

impl Unpacker {
    pub(crate) fn new() -> Result<Self> {
        let mut decoder = Decoder::new().map_err(|error| Error::internal("start zstd", error))?;
        decoder
            .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
            .map_err(|error| Error::internal("start zstd", error))?;
        Ok(Self { decoder, input: Bytes::new(), is_full: false, in_frame: false })
    }

    /// Gives it more. What was given before has to be unpacked.
    pub(crate) fn push(&mut self, input: Bytes) {
        self.input = input;
    }

    /// The next bytes; nothing where it needs more input.
    pub(crate) fn step(&mut self) -> Result<Bytes> {
        let mut made = Vec::with_capacity(CHUNK);
        while made.len() < CHUNK && (!self.input.is_empty() || (self.is_full && self.in_frame)) {
            let mut input = InBuffer::around(&self.input);
            let mut output = OutBuffer::around_pos(&mut made, 0);
            let hint = self.decoder.run(&mut input, &mut output).map_err(|error| refused(&error))?;
            let consumed = input.pos();
            self.input.advance(consumed);
            self.in_frame = hint != 0;
            self.is_full = made.len() >= CHUNK;
            if !made.is_empty() {
                break;
            }
        }
        Ok(made.into())
    }

    /// Checks that nothing is missing.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.in_frame { Err(Error::invalid("archive", "the zstd stream is cut short")) } else { Ok(()) }
    }
}

/// Packs.
pub(crate) struct Packer {
    encoder: Encoder<'static>,
}

impl Packer {
    pub(crate) fn new() -> Result<Self> {
        let encoder = Encoder::new(LEVEL).map_err(|error| Error::internal("start zstd", error))?;
        Ok(Self { encoder })
    }

    /// Packs a piece; what comes out may be of earlier ones, or nothing yet.
    pub(crate) fn step(&mut self, piece: &[u8]) -> Result<Bytes> {
        let mut made = Vec::with_capacity(piece.len() + (1 << 10));
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            self.make_room(&mut made);
            let end = made.len();
            let mut output = OutBuffer::around_pos(&mut made, end);
            self.encoder.run(&mut input, &mut output).map_err(|error| Error::internal("pack", error))?;
        }
        Ok(made.into())
    }

    /// The rest.
    pub(crate) fn finish(mut self) -> Result<Bytes> {
        let mut made = Vec::new();
        loop {
            self.make_room(&mut made);
            let end = made.len();
            let mut output = OutBuffer::around_pos(&mut made, end);
            let left = self.encoder.finish(&mut output, true);
            if left.map_err(|error| Error::internal("pack", error))? == 0 {
                return Ok(made.into());
            }
        }
    }

    fn make_room(&self, made: &mut Vec<u8>) {
        if made.capacity() - made.len() < 1 << 10 {
            made.reserve(CHUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8], cut: usize) -> Result<Vec<u8>> {
        let (mut unpacker, mut all) = (Unpacker::new()?, Vec::new());
        for piece in packed.chunks(cut) {
            unpacker.push(Bytes::copy_from_slice(piece));
            loop {
                let made = unpacker.step()?;
                if made.is_empty() {
                    break;
                }
                assert!(made.len() <= CHUNK);
                all.extend_from_slice(&made);
            }
        }
        unpacker.finish().map(|()| all)
    }

    fn pack(data: &[u8], cut: usize) -> Vec<u8> {
        let mut packer = Packer::new().unwrap();
        let mut packed: Vec<u8> = data.chunks(cut).flat_map(|piece| packer.step(piece).unwrap()).collect();
        packed.extend_from_slice(&packer.finish().unwrap());
        packed
    }

    #[test]
    fn what_is_packed_unpacks_however_it_is_cut() {
        let noise = (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        for data in [Vec::new(), b"x".to_vec(), vec![0; 5_000_000], noise.collect()] {
            for cut in [1 << 10, 100_003, 10 << 20] {
                let packed = pack(&data, cut);
                assert_eq!(unpack(&packed, cut).unwrap(), data);
                let twice = [packed.clone(), packed.clone()].concat();
                assert_eq!(unpack(&twice, cut).unwrap().len(), 2 * data.len());
                let reason = unpack(&packed[..packed.len() - 1], cut).unwrap_err();
                assert!(matches!(reason, Error::InvalidArgument { .. }), "{reason}");
            }
        }
    }

    #[test]
    fn garbage_and_huge_windows_are_refused() {
        assert!(unpack(b"not zstd at all", 4).is_err());
        let mut encoder = Encoder::new(1).unwrap();
        encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(28)).unwrap();
        let mut packer = Packer { encoder };
        let mut packed = packer.step(b"small").unwrap().to_vec();
        packed.extend_from_slice(&packer.finish().unwrap());
        assert!(unpack(&packed, 100).is_err());
    }
}
