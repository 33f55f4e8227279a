//! `traceparent` and `tracestate` of the W3C recommendation, <https://www.w3.org/TR/trace-context/>: parsed by the
//! letter, since a lax parser passes broken ids on to everybody below.

use opentelemetry::trace::{SpanId, TraceId};

use super::ReadHeaders;
use super::headers::members;
use crate::trace::{Parent, SpanIds};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Longest `tracestate` that is passed on, in bytes. The recommendation asks for at least 512 characters.
const STATE_LIMIT: usize = 8 * 1024;
/// Most members of a `tracestate` (3.3.1.1).
const MEMBERS: usize = 32;

/// What the two headers say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// There is no `traceparent`.
    Absent,
    /// There is one that is malformed, or more than one.
    Refused,
    /// The caller's span and its `tracestate`, or that this is malformed.
    Found {
        parent: Parent,
        state: Result<Option<String>, ()>,
    },
}

pub(crate) fn read(headers: &(impl ReadHeaders + ?Sized)) -> Read {
    let mut values = headers.header_values(TRACEPARENT);
    let parent = match (values.next(), values.next()) {
        (None, _) => return Read::Absent,
        (Some(one), None) => traceparent(one),
        (Some(_), Some(_)) => None,
    };
    match parent {
        None => Read::Refused,
        Some(parent) => Read::Found {
            parent,
            state: state(headers.header_values(TRACESTATE)),
        },
    }
}

/// Parses `version-trace-span-flags`: exact lengths 2-32-16-2 in lower hex, ids not zero, version not `ff`. Later
/// versions may append fields (3.2.4); of the flags only "sampled" is known here.
pub(crate) fn traceparent(text: &[u8]) -> Option<Parent> {
    // Optional white space around a header's value is not part of it (RFC 9110, 5.5).
    let text = text.trim_ascii();
    if text.len() < 55 || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return None;
    }
    let [version] = hex(&text[..2])?;
    if version == 0xff {
        return None;
    }
    if text.len() > 55 && (version == 0 || text[55] != b'-') {
        return None;
    }
    let trace_id = TraceId::from_bytes(hex(&text[3..35])?);
    let span_id = SpanId::from_bytes(hex(&text[36..52])?);
    let [flags] = hex(&text[53..55])?;
    let valid = trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    valid.then_some(Parent {
        trace_id,
        span_id,
        sampled: flags & 1 == 1,
        remote: true,
    })
}

/// Exactly `N` bytes of lower hex.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Joins and checks the list members of all `tracestate` headers. `None` when there is nothing in them.
fn state<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<String>, ()> {
    let members = members(values)?;
    let mut keys = Vec::with_capacity(members.len());
    for member in &members {
        let (key, value) = member.split_once('=').ok_or(())?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MEMBERS {
            return Err(());
        }
        keys.push(key);
    }
    let joined = members.join(",");
    if joined.len() > STATE_LIMIT {
        return Err(());
    }
    Ok(Some(joined).filter(|joined| !joined.is_empty()))
}

/// 3.3.1.3.1: `simple-key` or `tenant-id@system-id`.
fn is_key(key: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/');
    let part = |text: &str, longest: usize, digit_first: bool| {
        let first = text.bytes().next();
        first.is_some_and(|byte| byte.is_ascii_lowercase() || digit_first && byte.is_ascii_digit())
            && text.len() <= longest
            && text.bytes().all(allowed)
    };
    match key.split_once('@') {
        None => part(key, 256, true),
        Some((tenant, system)) => part(tenant, 241, true) && part(system, 14, false),
    }
}

/// 3.3.1.3.2: up to 256 printable ASCII characters without `,` and `=`, not ending with a space.
fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && !value.ends_with(' ')
        && value
            .bytes()
            .all(|byte| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=')
}

/// Makes a `traceparent` of version 00.
pub(crate) fn write_traceparent<T>(ids: SpanIds, with: impl FnOnce(&str) -> T) -> T {
    let mut text = [b'-'; 55];
    let mut put = |at: usize, bytes: &[u8]| {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (index, byte) in bytes.iter().enumerate() {
            text[at + 2 * index] = DIGITS[usize::from(byte >> 4)];
            text[at + 2 * index + 1] = DIGITS[usize::from(byte & 15)];
        }
    };
    put(0, &[0]);
    put(3, &ids.trace_id.to_bytes());
    put(36, &ids.span_id.to_bytes());
    put(53, &[u8::from(ids.sampled)]);
    with(std::str::from_utf8(&text).unwrap_or_default())
}
