//! One connection to a guest: greeting, questions and answers.

use crate::endpoint::Endpoint;
use crate::failure::{Fault, clean};
use crate::inbox::{Inbox, Piece};
use bytes::Bytes;
use hostel_guest_protocol::{
    Answer, Ask, Hello, MAX_MESSAGE, Reply, Request, VERSION, Welcome, frame::encode_message,
};
use hostel_sandbox::{Error, Result};
use hostel_untrusted_socket::{Descriptor, UntrustedSocket};
use prost::Message;
use std::os::fd::OwnedFd;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

/// Longest greeting, in bytes.
const MOST_WELCOME: usize = 64 << 10;
/// Most repeated and other fields in one answer: more than any honest one has, and few enough for memory.
const MOST_FIELDS: usize = 70_000;

/// A request as it goes over the wire.
pub(crate) fn encode(ask: Ask) -> Result<Bytes> {
    let request = Request { ask: Some(ask) };
    if request.encoded_len() > MAX_MESSAGE {
        return Err(Error::invalid("request", format!("more than {MAX_MESSAGE} bytes")));
    }
    Ok(encode_message(&request).into())
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: UntrustedSocket,
    pub(crate) inbox: Inbox,
    /// What has to be said first.
    hello: Option<Vec<u8>>,
    /// What goes out before the next request, with it.
    owed: Vec<u8>,
    /// Whether a byte of the answer waited for has come.
    answering: bool,
    /// Whether the guest was born with it.
    first: bool,
    /// Whether it takes requests again after an attachment.
    returns: bool,
    /// Its place among those that are in use for longer.
    place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// A new one. The greeting goes out with the first request and saves a round trip.
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Fault> {
        let stream = endpoint.connect().await?;
        let hello = Hello { version: VERSION, token: endpoint.token().to_vec() };
        Ok(Self { hello: Some(encode_message(&hello)), ..Self::of(stream) })
    }

    /// The one that a guest is born with.
    pub(crate) fn born(socket: OwnedFd) -> std::io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self { first: true, ..Self::of(UnixStream::from_std(stream)?) })
    }

    fn of(stream: UnixStream) -> Self {
        Self {
            socket: UntrustedSocket::new(stream),
            inbox: Inbox::default(),
            hello: None,
            owed: Vec::new(),
            answering: false,
            first: false,
            returns: false,
            place: None,
        }
    }

    /// It is in use for longer than an answer, and has a place for that.
    pub(crate) fn occupy(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// It no longer is.
    pub(crate) fn free(&mut self) {
        self.place = None;
    }

    /// Whether the guest was born with it.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }

    /// Says first what a guest waits for, and reads its greeting.
    pub(crate) async fn bear(&mut self, birth: &[u8]) -> Result<Welcome, Fault> {
        let sent = self.send(birth).await;
        let welcome = self.welcome().await;
        // A guest that did not get so far as to read has said why.
        if welcome.is_err() {
            sent?;
        }
        welcome
    }

    /// Whether it takes requests again after an attachment, as the greeting said.
    pub(crate) fn returns(&self) -> bool {
        self.returns
    }

    /// Reads the guest's greeting.
    pub(crate) async fn welcome(&mut self) -> Result<Welcome, Fault> {
        let message = self.message(MOST_WELCOME).await?;
        let welcome = Welcome::decode(message).map_err(|_| Fault::Rule("that is no greeting".to_owned()))?;
        if welcome.version == 0 || welcome.version > VERSION {
            return Err(Fault::Rule(format!("it speaks version {} of the protocol", welcome.version)));
        }
        self.returns = welcome.returns;
        Ok(welcome)
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(Answer, Option<Descriptor>), Fault> {
        self.answering = false;
        if let Some(mut hello) = self.hello.take() {
            hello.extend_from_slice(request);
            self.send(&hello).await?;
            let welcome = self.welcome().await?;
            if !welcome.failure.is_empty() {
                return Err(Fault::Gone(clean(&welcome.failure)));
            }
        } else {
            let mut owed = std::mem::take(&mut self.owed);
            owed.extend_from_slice(request);
            self.send(&owed).await?;
        }
        self.answer().await
    }

    /// Leaves it to the next request to send these frames first: nobody waits for them, and on their own they would
    /// wake the guest once more for each process that ends.
    pub(crate) fn owe(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        frames.into_iter().for_each(|frame| self.owed.extend_from_slice(&frame));
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = self.socket.write_all(bytes).await;
        sent.map_err(|error| Fault::Gone(format!("the connection broke: {error}")))
    }

    /// Whether the other end was gone before it could say anything to what was asked last.
    pub(crate) fn was_dead(&self) -> bool {
        !self.answering
    }

    /// Reads an answer.
    pub(crate) async fn answer(&mut self) -> Result<(Answer, Option<Descriptor>), Fault> {
        let message = self.message(MAX_MESSAGE).await?;
        let answer = decode_answer(message)?;
        // Not before: one read can bring the greeting and the answer with its descriptor.
        Ok((answer, self.inbox.take_descriptor()))
    }

    /// Reads a message of at most `most` bytes.
    pub(crate) async fn message(&mut self, most: usize) -> Result<Bytes, Fault> {
        loop {
            match self.inbox.next_piece(most)? {
                Some(Piece::Message(message)) => return Ok(message),
                Some(Piece::Data { .. }) => return Err(Fault::Rule("data that nobody asked for".to_owned())),
                None => self.inbox.fill(&self.socket).await?,
            }
            self.answering = true;
        }
    }

    /// Whether it can be asked again: nothing arrived beyond the answers, and it is not closed.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.inbox.is_quiet(&self.socket)
    }
}

/// Understands an answer.
pub(crate) fn decode_answer(message: Bytes) -> Result<Answer, Fault> {
    if count_fields(&message).is_none_or(|count| count > MOST_FIELDS) {
        return Err(Fault::Rule("an answer that is broken or has too many parts".to_owned()));
    }
    let reply = Reply::decode(message).ok().and_then(|reply| reply.answer);
    reply.ok_or_else(|| Fault::Rule("that is no answer".to_owned()))
}

/// Number of fields of the messages in a message. `None` where it is malformed. An empty entry takes two bytes on
/// the wire and a hundred in memory, so this is looked at before memory is taken.
fn count_fields(message: &[u8]) -> Option<usize> {
    let mut count = 0;
    for_each_field(message, |field| {
        for_each_field(field, |_| {
            count += 1;
            Some(())
        })
    })?;
    Some(count)
}

/// Calls `each` with every length-delimited field, and with nothing for others.
fn for_each_field(mut bytes: &[u8], mut each: impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let key = prost::decode_length_delimiter(&mut bytes).ok()?;
        let length = match key & 7 {
            0 => {
                prost::decode_length_delimiter(&mut bytes).ok()?;
                0
            }
            1 => 8,
            2 => prost::decode_length_delimiter(&mut bytes).ok()?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = bytes.split_at_checked(length)?;
        each(if key & 7 == 2 { field } else { &[] })?;
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_guest_protocol::{File, Files};

    #[test]
    fn parts_are_counted_before_memory_is_taken() {
        let files = |count| {
            let files = Files { files: vec![File::default(); count], next: None };
            Reply { answer: Some(Answer::Files(files)) }.encode_to_vec()
        };
        assert_eq!(count_fields(&files(3)), Some(3));
        assert_eq!(count_fields(&files(100_000)), Some(100_000));
        let imported = Reply { answer: Some(Answer::Imported(u64::MAX)) }.encode_to_vec();
        assert_eq!(count_fields(&imported), Some(0));
        assert_eq!(count_fields(&[0x0a, 5, 1]), None);
    }
}
