//! W3C baggage, <https://www.w3.org/TR/baggage/>: what callers want to go along. It is checked, passed on as it came, and
//! never written to logs, spans or metrics by itself: anybody outside may put anything there.

use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::{Context, KeyValue, StringValue};

use super::ReadHeaders;
use super::headers::members;
use crate::trace::kept;

/// Longest header that is passed on, in bytes (3.3.2).
const LIMIT: usize = 8 * 1024;
/// Most members that are passed on; the recommendation asks for at least 64.
const MEMBERS: usize = 180;

/// A checked `baggage` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baggage(String);

impl Baggage {
    /// The baggage of the request that is being handled here, if any.
    pub fn current() -> Option<Self> {
        kept::current()?.carried?.baggage.clone()
    }

    /// Checks a header's value.
    pub fn parse(text: &str) -> Option<Self> {
        from([text.as_bytes()].into_iter()).ok().flatten()
    }

    /// The decoded value of a key.
    pub fn get(&self, key: &str) -> Option<String> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Keys with their decoded values, in order. Properties behind a value are not shown.
    pub fn iter(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.split(',').filter_map(|member| {
            let (key, value) = member.split(';').next()?.split_once('=')?;
            Some((key.trim(), decode(value.trim())))
        })
    }

    /// The header.
    pub(crate) fn header(&self) -> &str {
        &self.0
    }

    pub(crate) fn of_context(context: &Context) -> Option<Self> {
        let members: Vec<_> = context
            .baggage()
            .iter()
            .map(|(key, (value, _))| format!("{}={}", key.as_str(), encode(value.as_str())))
            .collect();
        Self::parse(&members.join(","))
    }

    pub(crate) fn in_context(&self, context: &Context) -> Context {
        let pairs = self
            .iter()
            .map(|(key, value)| KeyValue::new(key.to_owned(), StringValue::from(value)));
        context.with_baggage(pairs.collect::<Vec<_>>())
    }
}

pub(crate) fn read(headers: &(impl ReadHeaders + ?Sized)) -> Result<Option<Baggage>, ()> {
    from(headers.header_values("baggage"))
}

fn from<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Baggage>, ()> {
    let members = members(values)?;
    let joined = members.join(",");
    if members.len() > MEMBERS || joined.len() > LIMIT || !members.iter().all(|member| is_member(member)) {
        return Err(());
    }
    Ok(Some(joined).filter(|joined| !joined.is_empty()).map(Baggage))
}

/// `key=value` with properties behind (3.3.1): the key a token, the value of baggage-octets.
fn is_member(member: &str) -> bool {
    let mut parts = member.split(';');
    let Some((key, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
        return false;
    };
    is_token(key.trim())
        && is_value(value.trim())
        && parts.all(|property| match property.split_once('=') {
            None => is_token(property.trim()),
            Some((key, value)) => is_token(key.trim()) && is_value(value.trim()),
        })
}

/// A token of RFC 9110.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_value(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e))
}

pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte != b'%' && is_value(&char::from(byte).to_string()) && byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
