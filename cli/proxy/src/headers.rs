//! What happens to headers on the way: hop-by-hop ones go, forwarding ones come, canary marks need a signature. Not
//! the framing of messages, which is hyper's.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use opsctl_proxy_control::{CANARY_HEADER, Rule, RuleSource, token};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CANARY: HeaderName = HeaderName::from_static(CANARY_HEADER);

/// Removes what concerns only the connection that the message came on (RFC 9110 section 7.6.1). `te: trailers` stays
/// if asked for: gRPC servers insist on it.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, keep_te_trailers: bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            // Naming these cannot unframe or readdress a message.
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST && *name != "close")
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let trailers = keep_te_trailers
            && headers
                .get_all(TE)
                .iter()
                .any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Readies a request's headers for an instance: hop-by-hop headers and what the proxy answers itself go, the client's
/// address comes.
pub(crate) fn forward_request(headers: &mut HeaderMap, client: &HeaderValue, grpc: bool) {
    strip_hop_by_hop(headers, grpc);
    headers.remove(EXPECT);
    headers.remove(HTTP2_SETTINGS);
    let forwarded = match headers.get(FORWARDED_FOR) {
        None => client.clone(),
        Some(before) => {
            let list = [before.as_bytes(), b", ", client.as_bytes()].concat();
            HeaderValue::from_bytes(&list).unwrap_or_else(|_| client.clone())
        }
    };
    headers.insert(FORWARDED_FOR, forwarded);
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Whether the client asks for a WebSocket. Other upgrades may be ignored (RFC 9110 section 7.8), this one must not:
/// its client would take the answer for the service's.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    })
}

/// Whether the message is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the response is an event stream, which ends when the client leaves.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Takes the canary marks off a request that are not validly signed, and says which version the signed one asks of
/// `service`. A valid mark for another service stays: it is meant for a call further down.
pub(crate) fn canary_mark(
    headers: &mut HeaderMap,
    secret: &[u8],
    service: &str,
    now_unix_seconds: impl Fn() -> u64,
) -> Option<String> {
    let marked_header = headers.contains_key(CANARY);
    let marked_cookie = headers
        .get_all(COOKIE)
        .iter()
        .any(|value| contains(value.as_bytes(), CANARY_HEADER.as_bytes()));
    if !marked_header && !marked_cookie {
        return None;
    }
    let now = now_unix_seconds();
    let mut version = None;
    let mut check = |value: &str| match token::verify(secret, value, now) {
        None => false,
        Some(claim) => {
            if claim.service == service && version.is_none() {
                version = Some(claim.version.to_owned());
            }
            true
        }
    };
    if marked_header {
        let values: Vec<HeaderValue> = headers.get_all(CANARY).iter().cloned().collect();
        headers.remove(CANARY);
        for value in values {
            if value.to_str().is_ok_and(&mut check) {
                headers.append(CANARY, value);
            }
        }
    }
    if marked_cookie {
        let cookies: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        for cookie in cookies {
            let kept: Vec<&[u8]> = cookie
                .as_bytes()
                .split(|byte| *byte == b';')
                .map(<[u8]>::trim_ascii)
                .filter(|pair| match split_cookie(pair) {
                    Some((name, value)) if name == CANARY_HEADER.as_bytes() => {
                        std::str::from_utf8(value).is_ok_and(&mut check)
                    }
                    _ => !pair.is_empty(),
                })
                .collect();
            if let Ok(cookie) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
                && !cookie.is_empty()
            {
                headers.append(COOKIE, cookie);
            }
        }
    }
    version
}

/// Whether a rule matches the request.
pub(crate) fn matches(rule: &Rule, headers: &HeaderMap) -> bool {
    match rule.source {
        RuleSource::Header => headers
            .get_all(rule.name.as_str())
            .iter()
            .any(|value| value.as_bytes() == rule.value.as_bytes()),
        RuleSource::Cookie => headers.get_all(COOKIE).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b';')
                .filter_map(|pair| split_cookie(pair.trim_ascii()))
                .any(|(name, value)| name == rule.name.as_bytes() && value == rule.value.as_bytes())
        }),
    }
}

fn split_cookie(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    Some((&pair[..at], &pair[at + 1..]))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).expect("valid"),
                )
            })
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_go_and_framing_cannot_be_named_away() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, content-length, host"),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("host", "h"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers, false);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
        let mut headers = map(&[("te", "trailers")]);
        strip_hop_by_hop(&mut headers, true);
        assert_eq!(headers.get(TE).map(HeaderValue::as_bytes), Some(&b"trailers"[..]));
    }

    #[test]
    fn the_clients_address_is_appended() {
        let client = HeaderValue::from_static("127.0.0.1");
        let mut headers = map(&[("x-forwarded-for", "10.0.0.1"), ("host", "shop")]);
        forward_request(&mut headers, &client, false);
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1, 127.0.0.1");
        assert_eq!(headers[FORWARDED_HOST], "shop");
        assert_eq!(headers[FORWARDED_PROTO], "http");
    }

    #[test]
    fn unsigned_marks_are_stripped_and_signed_ones_obeyed() {
        let good = token::sign(b"s", "orders", "v2", 100);
        let other = token::sign(b"s", "payments", "v9", 100);
        let cookie = format!("a=1; x-opsctl-canary={good}; b=2");
        let cases = [
            (map(&[("x-opsctl-canary", "v2")]), None, 0),
            (map(&[("x-opsctl-canary", &good)]), Some("v2"), 1),
            (map(&[("x-opsctl-canary", &other)]), None, 1),
            (map(&[("cookie", &cookie)]), Some("v2"), 1),
            (map(&[("cookie", "x-opsctl-canary=v2")]), None, 0),
            (map(&[("cookie", "a=1")]), None, 1),
        ];
        for (mut headers, version, left) in cases {
            let shown = format!("{headers:?}");
            let asked = canary_mark(&mut headers, b"s", "orders", || 50);
            assert_eq!(asked.as_deref(), version, "{shown}");
            assert_eq!(headers.len(), left, "{shown}");
        }
        let mut headers = map(&[("cookie", "a=1; x-opsctl-canary=forged; b=2")]);
        assert_eq!(canary_mark(&mut headers, b"s", "orders", || 50), None);
        assert_eq!(headers[COOKIE], "a=1; b=2");
    }
}
