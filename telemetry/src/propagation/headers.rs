//! What headers are to propagation: names with values. Implemented for `http::HeaderMap` (axum, reqwest, hyper), tonic's
//! metadata, and the plain maps in which message brokers' clients have theirs. Clients' own header types are two short
//! `impl`s away:
//!
//! ```
//! use telemetry::propagation::{ReadHeaders, WriteHeaders};
//!
//! /// As `async_nats::HeaderMap`, `rdkafka::message::OwnedHeaders` or `lapin::types::FieldTable`.
//! struct Theirs(Vec<(String, String)>);
//!
//! struct Message(Theirs);
//! impl ReadHeaders for Message {
//!     fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
//!         self.0.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
//!     }
//! }
//! impl WriteHeaders for Message {
//!     fn set(&mut self, name: &str, value: &str) {
//!         self.0.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
//!         self.0.0.push((name.to_owned(), value.to_owned()));
//!     }
//! }
//! ```

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

/// Headers that came in.
pub trait ReadHeaders {
    /// Every value of `name`, which is in lower case; names are compared without regard to case.
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a;
}

/// Headers that go out.
pub trait WriteHeaders {
    /// Sets a header, in place of any that it has already. Names are in lower case, values printable ASCII.
    fn set(&mut self, name: &str, value: &str);
}

/// The members of a list that stands in one header or several, as `a=1, b=2`: without the white space around them and
/// without empty ones. What is not UTF-8 is an error.
pub(super) fn members<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Vec<&'a str>, ()> {
    let mut members = Vec::new();
    for value in values {
        let value = std::str::from_utf8(value).map_err(drop)?;
        let trimmed = value.split(',').map(|member| member.trim_matches([' ', '\t']));
        members.extend(trimmed.filter(|member| !member.is_empty()));
    }
    Ok(members)
}

impl ReadHeaders for HeaderMap {
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

impl WriteHeaders for HeaderMap {
    fn set(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            self.insert(name, value);
        }
    }
}

impl ReadHeaders for MetadataMap {
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let headers: &HeaderMap = self.as_ref();
        headers.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

impl WriteHeaders for MetadataMap {
    fn set(&mut self, name: &str, value: &str) {
        self.as_mut().set(name, value);
    }
}

/// One value a name: message attributes of SQS, headers of NATS in their simple form.
impl<S: BuildHasher> ReadHeaders for HashMap<String, String, S> {
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_bytes())
    }
}

impl<S: BuildHasher> WriteHeaders for HashMap<String, String, S> {
    fn set(&mut self, name: &str, value: &str) {
        self.retain(|key, _| !key.eq_ignore_ascii_case(name));
        self.insert(name.to_owned(), value.to_owned());
    }
}

/// The same, sorted.
impl ReadHeaders for BTreeMap<String, String> {
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_bytes())
    }
}

impl WriteHeaders for BTreeMap<String, String> {
    fn set(&mut self, name: &str, value: &str) {
        self.retain(|key, _| !key.eq_ignore_ascii_case(name));
        self.insert(name.to_owned(), value.to_owned());
    }
}

/// Headers of Kafka: names may repeat, values are bytes.
impl ReadHeaders for Vec<(String, Vec<u8>)> {
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }
}

impl WriteHeaders for Vec<(String, Vec<u8>)> {
    fn set(&mut self, name: &str, value: &str) {
        self.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.push((name.to_owned(), value.as_bytes().to_vec()));
    }
}
