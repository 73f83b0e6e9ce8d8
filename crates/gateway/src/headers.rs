//! Which headers go on, and which end here.

use crate::scrub::Pattern;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers of one connection (RFC 9110 §7.6.1), besides those that `connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What a client inside must not choose: who asks, whom, and through whom; and what the gateway sets itself.
const OURS: [HeaderName; 13] = [
    HeaderName::from_static("x-api-key"),
    header::AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::ACCEPT_ENCODING,
    header::EXPECT,
    header::TRAILER,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    // Part of an answer tells no usage, and could be made to begin in the middle of a key.
    header::RANGE,
    header::IF_RANGE,
];

/// The headers of a request as they go upstream, but for the key. The upstream must not compress what is read here.
pub(crate) fn upstream(headers: &HeaderMap) -> HeaderMap {
    let mut kept = without_hop_by_hop(headers);
    for name in OURS {
        kept.remove(name);
    }
    let forwarded: Vec<HeaderName> =
        kept.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in forwarded {
        kept.remove(name);
    }
    kept.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    kept
}

/// The headers of a response as they go to the client, without the upstream's key.
pub(crate) fn downstream(headers: &HeaderMap, key: Option<&Pattern>) -> HeaderMap {
    let mut kept = without_hop_by_hop(headers);
    if let Some(key) = key {
        key.clean(&mut kept);
    }
    kept
}

fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for named in headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()) {
        for name in named.split(',') {
            if let Ok(name) = HeaderName::try_from(name.trim()) {
                kept.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_two_ends_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("x-api-key", "dummy"),
            ("authorization", "Bearer dummy"),
            ("cookie", "a=b"),
            ("host", "evil.example.com"),
            ("x-forwarded-for", "10.0.0.1"),
            ("accept-encoding", "gzip, br"),
            ("range", "bytes=9-"),
            ("transfer-encoding", "chunked"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "one"),
            ("anthropic-beta", "two"),
            ("x-stainless-retry-count", "0"),
            ("user-agent", "claude-cli"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let kept = upstream(&headers);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "accept-encoding",
            "anthropic-beta",
            "anthropic-version",
            "user-agent",
            "x-stainless-retry-count",
        ];
        assert_eq!(names, expected);
        assert_eq!(kept["accept-encoding"], "identity");
        assert_eq!(kept.get_all("anthropic-beta").iter().count(), 2);
    }

    #[test]
    fn the_key_does_not_come_back() {
        let mut headers = HeaderMap::new();
        for value in ["Bearer sk-ant-real", "key=sk-ant-real; again=sk-ant-real", "sk-ant-"] {
            headers.append("x-debug", HeaderValue::from_static(value));
        }
        let clean = downstream(&headers, Pattern::new("sk-ant-real").as_ref());
        let values: Vec<&[u8]> = clean.get_all("x-debug").iter().map(HeaderValue::as_bytes).collect();
        let expected: [&[u8]; 3] = [b"Bearer ***********", b"key=***********; again=***********", b"sk-ant-"];
        assert_eq!(values, expected);
        assert_eq!(downstream(&headers, None), headers);
    }
}
