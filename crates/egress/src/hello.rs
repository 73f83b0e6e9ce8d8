//! Reads the name out of a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3) without taking part in the handshake.

use hostel_sandbox::network::normal_name;

/// The largest ClientHello that is looked at, in bytes of handshake.
pub(crate) const MAX_HELLO: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// What came before it, in drafts; some servers still read it.
const ENCRYPTED_SERVER_NAME: u16 = 0xffce;
/// Longest record (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;

/// What a ClientHello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server's name in normal form.
    pub(crate) name: Option<String>,
    /// Whether there may be another name that only the server can read (encrypted ClientHello).
    pub(crate) hidden: bool,
}

/// How far reading came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read<T> {
    Done(T),
    /// More bytes are needed.
    More,
    /// It is wrong, and why.
    Bad(&'static str),
}

/// Reads the ClientHello at the beginning of a connection.
pub(crate) fn read(bytes: &[u8]) -> Read<Hello> {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(whole) = message(&handshake) {
            return match whole {
                Ok(body) => {
                    hello(body).map_or(Read::Bad("a ClientHello that is cut or badly framed"), |hello| hello)
                }
                Err(why) => Read::Bad(why),
            };
        }
        let Some((head, after)) = rest.split_first_chunk::<5>() else { return Read::More };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != HANDSHAKE || head[1] != 3 || length == 0 || length > MAX_RECORD {
            return Read::Bad("not a TLS handshake record");
        }
        let here = after.get(..length.min(after.len())).unwrap_or_default();
        handshake.extend_from_slice(here);
        if here.len() < length {
            // The last record may be cut and yet hold the end of the message.
            return match message(&handshake) {
                Some(Err(why)) => Read::Bad(why),
                _ => Read::More,
            };
        }
        rest = after.get(length..).unwrap_or_default();
    }
}

/// The body of the first handshake message, once it is there whole.
fn message(handshake: &[u8]) -> Option<Result<&[u8], &'static str>> {
    let (head, body) = handshake.split_first_chunk::<4>()?;
    if head[0] != CLIENT_HELLO {
        return Some(Err("a handshake that does not begin with a ClientHello"));
    }
    let length = usize::try_from(u32::from_be_bytes([0, head[1], head[2], head[3]])).unwrap_or(usize::MAX);
    if length > MAX_HELLO {
        return Some(Err("a ClientHello that is too large"));
    }
    body.get(..length).map(Ok)
}

/// Reads fields one after another; `None` where they are cut.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector(&mut self) -> Option<Self> {
        let length = usize::from(self.short()?);
        self.take(length).map(Self)
    }
}

fn hello(body: &[u8]) -> Option<Read<Hello>> {
    let mut fields = Fields(body);
    fields.take(2 + 32)?;
    let session = usize::from(fields.byte()?);
    fields.take(session)?;
    fields.vector()?;
    let compressions = usize::from(fields.byte()?);
    fields.take(compressions)?;
    let mut found = Hello { name: None, hidden: false };
    if fields.0.is_empty() {
        return Some(Read::Done(found));
    }
    let mut extensions = fields.vector()?;
    if !fields.0.is_empty() {
        return None;
    }
    let mut named = false;
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let value = extensions.vector()?;
        match kind {
            SERVER_NAME if named => return Some(Read::Bad("two server names")),
            SERVER_NAME => {
                named = true;
                match server_name(value)? {
                    Ok(name) => found.name = Some(name),
                    Err(why) => return Some(Read::Bad(why)),
                }
            }
            ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME => found.hidden = true,
            _ => {}
        }
    }
    Some(Read::Done(found))
}

fn server_name(mut value: Fields<'_>) -> Option<Result<String, &'static str>> {
    let mut list = value.vector()?;
    let kind = list.byte()?;
    let name = list.vector()?;
    if kind != 0 || !list.0.is_empty() || !value.0.is_empty() {
        return Some(Err("a server name that is not one host name"));
    }
    let name = std::str::from_utf8(name.0).ok().filter(|name| name.is_ascii());
    let normal = name.and_then(|name| normal_name(name).ok());
    Some(normal.ok_or("a server name that is not a host name"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello of the TLS library's.
    pub(crate) fn client_hello(name: &str) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same with one more extension.
    fn with_extension(bytes: &[u8], kind: u16, value: &[u8]) -> Vec<u8> {
        let mut fields = Fields(&bytes[9..]);
        fields.take(34).unwrap();
        let session = fields.byte().unwrap();
        fields.take(usize::from(session)).unwrap();
        fields.vector().unwrap();
        let compressions = fields.byte().unwrap();
        fields.take(usize::from(compressions)).unwrap();
        let before = bytes.len() - 9 - fields.0.len();
        let short = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        let more = [&kind.to_be_bytes()[..], &short(value.len()), value].concat();
        let extensions = [&fields.0[2..], &more].concat();
        let body = [&bytes[9..9 + before], &short(extensions.len()), &extensions].concat();
        let message = [&[1, 0][..], &short(body.len()), &body].concat();
        [&[22, 3, 1][..], &short(message.len()), &message].concat()
    }

    #[test]
    fn a_second_name_is_found_or_suspected() {
        let bytes = client_hello("api.example.com");
        let name = Some("api.example.com".to_owned());
        for kind in [ENCRYPTED_CLIENT_HELLO, ENCRYPTED_SERVER_NAME] {
            let hidden = with_extension(&bytes, kind, &[0; 40]);
            assert_eq!(read(&hidden), Read::Done(Hello { name: name.clone(), hidden: true }), "{kind:#x}");
        }
        let harmless = with_extension(&bytes, 0x1234, &[0; 40]);
        assert_eq!(read(&harmless), Read::Done(Hello { name, hidden: false }));
        let twice = with_extension(&bytes, SERVER_NAME, b"\0\x08\0\0\x05a.com");
        assert_eq!(read(&twice), Read::Bad("two server names"));
    }

    /// The same handshake in records of another size.
    fn in_records(bytes: &[u8], size: usize) -> Vec<u8> {
        let length = |part: &[u8]| u16::try_from(part.len()).unwrap().to_be_bytes();
        bytes[5..].chunks(size).flat_map(|part| [&[22, 3, 1], &length(part)[..], part].concat()).collect()
    }

    #[test]
    fn the_name_is_found() {
        let done = Read::Done(Hello { name: Some("api.example.com".to_owned()), hidden: false });
        assert_eq!(read(&client_hello("API.example.com")), done);
        assert_eq!(read(&client_hello("192.0.2.1")), Read::Done(Hello { name: None, hidden: false }));
        assert_eq!(read(&in_records(&client_hello("api.example.com"), 7)), done);
        assert_eq!(read(b"GET / HTTP/1.1"), Read::Bad("not a TLS handshake record"));
        assert_eq!(
            read(&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]),
            Read::Bad("a ClientHello that is too large")
        );
    }

    proptest! {
        #[test]
        fn a_part_is_never_enough(cut in 0usize..200, size in 1usize..300) {
            let whole = in_records(&client_hello("api.example.com"), size);
            prop_assert_eq!(read(&whole[..cut.min(whole.len() - 1)]), Read::More);
        }

        #[test]
        fn changed_bytes_do_no_harm(index in 0usize..400, byte: u8) {
            let mut bytes = client_hello("api.example.com");
            let index = index % bytes.len();
            bytes[index] = byte;
            let _ = read(&bytes);
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
            let _ = read(&[&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc], &bytes[..]].concat());
        }
    }
}
