//! Paths and authorities as rules see them.

use super::Target;
use super::denied::Denied;
use hostel_sandbox::network::normal_name;
use http::StatusCode;
use std::net::IpAddr;

/// The path that rules are held against. With `strict` it is decoded, and one that servers read in different ways is
/// refused: dot segments, `//`, encoded separators, parameters (RFC 3986 §3.3) before the last segment: some servers pass
/// over them, and a rule about what is below would not match.
pub(super) fn for_rules(path: &str, strict: bool) -> Result<String, Denied> {
    if !strict {
        return Ok(path.to_owned());
    }
    let ambiguous = |what: &str| {
        let message = format!("the path {path:.200?} has {what}: servers read it in different ways");
        Err(Denied::bad("ambiguous_path", message))
    };
    let Some(rest) = path.strip_prefix('/') else { return ambiguous("no / at its beginning") };
    let Some(decoded) = decode(path) else { return ambiguous("a broken % in it") };
    let mut rest = decoded.strip_prefix('/').unwrap_or(rest);
    // Only at its end may a path have an empty segment.
    rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return if decoded.len() <= 1 { Ok(decoded) } else { ambiguous("an empty segment") };
    }
    for segment in rest.split('/') {
        let plain = segment.split(';').next().unwrap_or(segment);
        match plain {
            "" => return ambiguous("an empty segment"),
            "." | ".." => return ambiguous("a dot segment"),
            _ => {}
        }
    }
    if decoded.rsplit_once('/').is_some_and(|(before, _)| before.contains(';')) {
        return ambiguous("parameters before its last segment");
    }
    if decoded.contains('\\') {
        return ambiguous("a backslash");
    }
    Ok(decoded)
}

/// Undoes percent-encoding once. `None` for a `%` without two digits, and for what would be a separator, a control or
/// another `%`, which are not the same before and after.
fn decode(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = u8::try_from(digit()? * 16 + digit()?).ok()?;
        if matches!(value, 0..=0x1f | 0x7f | b'%' | b'/' | b'\\' | b';' | b'?' | b'#') {
            return None;
        }
        out.push(value);
    }
    // Bytes that are not UTF-8 cannot match a rule, which is ASCII; they need no exact form.
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Checks that an authority, `host` or `host:port`, is the target's.
pub(super) fn check_authority(text: &str, target: &Target) -> Result<(), Denied> {
    let shown: String = text.chars().take(80).collect();
    let malformed = || Denied::bad("bad_request", format!("{shown:?} is not a host"));
    let (host, port) = split(text).ok_or_else(malformed)?;
    let same = match (host.parse::<IpAddr>(), target.host.parse::<IpAddr>()) {
        (Ok(asked), Ok(own)) => asked.to_canonical() == own.to_canonical(),
        (Err(_), Err(_)) => normal_name(host).map_err(|_| malformed())? == target.host,
        _ => false,
    };
    let default = if target.tls { 443 } else { 80 };
    if same && port.unwrap_or(default) == target.port {
        return Ok(());
    }
    let message =
        format!("the request is for {shown:?}, but the connection is to {}:{}", target.host, target.port);
    Err(Denied::new(StatusCode::MISDIRECTED_REQUEST, "name_mismatch", message))
}

/// Splits an authority (RFC 3986 §3.2, without user information) into host and port.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
    };
    (!host.is_empty()).then_some((host, port))
}

/// The target's authority as it is sent: the port only where it is not the scheme's own.
pub(super) fn authority(target: &Target) -> String {
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    match (target.tls, target.port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_read_two_ways_are_refused() {
        for (path, seen) in [
            ("/", "/"),
            ("/v1/messages", "/v1/messages"),
            ("/%76%31/x", "/v1/x"),
            ("/a/", "/a/"),
            ("/a.b/..c;v=1", "/a.b/..c;v=1"),
        ] {
            assert_eq!(for_rules(path, true).unwrap(), seen);
        }
        for path in [
            "//",
            "//a",
            "/a//b",
            "/a/../b",
            "/a/..",
            "/./a",
            "/%2e%2e/a",
            "/a/%2E",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%252e",
            "/..;/a",
            "/;x/a",
            "/admin;x/users",
            "/admin;x/",
            "/%",
            "/%4",
            "/%zz",
            "*",
            "",
        ] {
            assert_eq!(for_rules(path, true).unwrap_err().reason, "ambiguous_path", "{path}");
        }
        assert_eq!(for_rules("/@scope%2fname", false).unwrap(), "/@scope%2fname");
    }

    #[test]
    fn an_authority_is_the_targets_or_not() {
        let target = Target { host: "api.example.com".to_owned(), port: 443, tls: true, once: false };
        for same in ["api.example.com", "API.Example.COM.", "api.example.com:443", "api.example.com:"] {
            assert!(check_authority(same, &target).is_ok(), "{same}");
        }
        for (other, status) in [
            ("example.com", 421),
            ("api.example.com:8443", 421),
            ("api.example.com.evil.example", 421),
            ("127.0.0.1", 421),
            ("[::1]", 421),
            ("user@api.example.com", 400),
            ("api.example.com:443:443", 400),
            ("api.example.com:+443", 400),
            ("api.example.com/", 400),
            ("", 400),
            ("[::1", 400),
        ] {
            assert_eq!(check_authority(other, &target).unwrap_err().status, status, "{other}");
        }
        let target = Target { host: "::1".to_owned(), port: 80, tls: false, once: false };
        assert!(check_authority("[0:0::1]:80", &target).is_ok());
        assert_eq!(authority(&target), "[::1]");
    }
}
