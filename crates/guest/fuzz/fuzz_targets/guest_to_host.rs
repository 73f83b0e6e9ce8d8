//! What a guest that lies may send: decoding it never panics on the host.
#![no_main]

use hostel_guest_protocol::{Decoder, FromGuest, Reply, Welcome, zygote};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    while let Ok(Some((_, payload))) = decoder.next_frame() {
        let _ = Welcome::decode(payload);
        let _ = Reply::decode(payload);
        let _ = FromGuest::decode(payload);
    }
    let _ = zygote::ZygoteRequest::decode(bytes);
    let _ = zygote::ZygoteReply::decode(bytes);
});
