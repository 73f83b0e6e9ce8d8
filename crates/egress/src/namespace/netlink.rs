//! Messages to the kernel over netlink (netlink(7), RFC 3549): just enough for routes and packet rules.

use super::Error;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::io;
use std::os::fd::OwnedFd;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// Make it where it is not there.
pub(super) const CREATE: u16 = 0x400;
/// Take the place of what is there.
pub(super) const REPLACE: u16 = 0x100;
/// Behind the others.
pub(super) const APPEND: u16 = 0x800;

const HEADER: usize = 16;
/// Where the flags are in it.
const FLAGS: usize = 6;
/// `NLMSG_ERROR`: also says that there was none.
const ERROR: u16 = 2;
const NESTED: u16 = 0x8000;
/// More than all answers to one send.
const ANSWERS: usize = 64 << 10;

/// Several messages that go to the kernel at once.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What each message is for, by its number.
    steps: Vec<&'static str>,
    /// Number and place of the last message that can be answered.
    last: (usize, usize),
}

impl Batch {
    /// Adds a message. `fixed` is what comes before the attributes; `step` says in errors what it is for.
    pub(super) fn add(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Attributes),
    ) {
        self.last = (self.steps.len(), self.bytes.len());
        let mut body = Attributes { bytes: fixed.to_vec() };
        attributes(&mut body);
        self.push(step, kind, flags, &body.bytes);
    }

    /// Adds the beginning or the end of a transaction.
    pub(super) fn bracket(&mut self, step: &'static str, kind: u16, fixed: &[u8]) {
        self.push(step, kind, 0, fixed);
    }

    fn push(&mut self, step: &'static str, kind: u16, flags: u16, body: &[u8]) {
        let number = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&number.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(body);
        self.steps.push(step);
    }

    /// Sends everything and waits for nothing: the kernel has done it, or not, when the send returns. It answers what it
    /// refuses, and the last message in any case. → the socket, whose closing may take as long as the kernel needs to
    /// forget what was replaced.
    ///
    /// # Errors
    /// The first step that the kernel refused.
    pub(super) fn send(mut self, protocol: Option<Protocol>) -> Result<OwnedFd, Error> {
        let (last, place) = self.last;
        for (flags, more) in self.bytes.iter_mut().skip(place + FLAGS).zip(ACK.to_ne_bytes()) {
            *flags |= more;
        }
        let socket = open(protocol).map_err(|error| Error::step("talk to the kernel by netlink", error))?;
        let sent = send(&socket, &self.bytes, SendFlags::empty());
        sent.map_err(|errno| Error::step("send to the kernel by netlink", errno))?;
        let mut buffer = vec![0; ANSWERS];
        loop {
            let answer = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT);
            let (_, length) =
                answer.map_err(|errno| Error::step("hear from the kernel by netlink", errno))?;
            for (number, code) in answers(buffer.get(..length).unwrap_or_default()) {
                let step = self.steps.get(number).copied().unwrap_or("change the network namespace");
                if code != 0 {
                    return Err(Error::step(step, io::Error::from_raw_os_error(code)));
                }
                if number == last {
                    return Ok(socket);
                }
            }
        }
    }
}

fn open(protocol: Option<Protocol>) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

/// Numbers of messages that were answered, and the `errno` of each, 0 for none.
fn answers(mut bytes: &[u8]) -> Vec<(usize, i32)> {
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    let mut found = Vec::new();
    while let (Some(length), Some(flags), Some(number)) = (word(bytes, 0), word(bytes, 4), word(bytes, 8)) {
        let kind = u16::from_ne_bytes([flags[0], flags[1]]);
        if kind == ERROR
            && let Some(code) = word(bytes, HEADER)
        {
            let number = usize::try_from(u32::from_ne_bytes(number)).unwrap_or(usize::MAX);
            found.push((number, i32::from_ne_bytes(code).saturating_neg()));
        }
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX).max(HEADER);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Attributes of a message: kind, length, value, each on a multiple of four bytes.
pub(super) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A number in the order of the machine, as routes have it.
    pub(super) fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in the order of the network, as packet rules have it.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self { bytes: Vec::new() };
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_is_read_to_its_end(bytes: Vec<u8>) {
            answers(&bytes);
        }
    }

    #[test]
    fn attributes_are_padded() {
        let mut attributes = Attributes { bytes: Vec::new() };
        attributes.nested(4, |inner| {
            inner.bytes(1, &[7; 5]);
        });
        assert_eq!(attributes.bytes.len(), 16);
        assert_eq!(attributes.bytes[..4], [16u16.to_ne_bytes(), (4 | NESTED).to_ne_bytes()].concat());
        assert_eq!(attributes.bytes[4..6], 9u16.to_ne_bytes());
    }
}
