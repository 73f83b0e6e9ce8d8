//! What a host may send, cut anywhere: the guest's decoder finds the same frames however the bytes arrive,
//! and decoding what is in them never panics.
#![no_main]

use hostel_guest_protocol::{Decoder, Frame, GuestConfig, Hello, MAX_MESSAGE, Request, ToGuest};
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// Frames, and whether the bytes broke a rule.
fn frames(bytes: &[u8], cut: usize) -> (Vec<(Frame, Vec<u8>)>, bool) {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(cut) {
        decoder.extend(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some((frame, payload))) => found.push((frame, payload.to_vec())),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        decoder.release();
    }
    (found, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let (found, broken) = frames(bytes, usize::from(cut).max(1));
    assert_eq!((&found, broken), (&frames(bytes, bytes.len().max(1)).0, broken));
    for (frame, payload) in found {
        assert_eq!(frame.length(), payload.len());
        assert!(payload.len() <= MAX_MESSAGE);
        let _ = Hello::decode(&payload[..]);
        let _ = GuestConfig::decode(&payload[..]);
        let _ = ToGuest::decode(&payload[..]);
        if let Ok(request) = Request::decode(&payload[..]) {
            assert_eq!(Request::decode(&request.encode_to_vec()[..]).as_ref(), Ok(&request));
        }
    }
});
