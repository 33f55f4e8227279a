//! The bytes of a change set: what is stored, and what foreign bytes must be before they are believed.
//!
//! Its envelope ([`super::super::sealed`]) is that of `OPSHIP`, version 1. The body is the length of the header (four bytes,
//! little-endian as all numbers), the header as JSON, the numbers of the pages in rising order (four bytes each), and the
//! pages in that order.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ShippingError;
use super::table::is_page_size;
use crate::error::{Damage, Error};
use crate::pitr::sealed::Envelope;
use crate::repo::{Id, Repository};

const MAGIC: &[u8; 8] = b"OPSHIP\x01\0";
const HEADER_LIMIT: usize = 64 << 10;

/// Bytes of pages that one set may hold. What changes more at one time takes several.
pub(super) const CONTENT_LIMIT: usize = 64 << 20;
const BODY_LIMIT: usize = CONTENT_LIMIT + CONTENT_LIMIT / 512 * 4 + HEADER_LIMIT + 4;
const ENVELOPE: Envelope = Envelope::new(*MAGIC, BODY_LIMIT);
/// No stored object is larger.
pub(super) const SEALED_LIMIT: u64 = ENVELOPE.sealed_limit();

/// The schema of the header.
const SCHEMA: &str = "opsctl.ship/v1";

/// What a set says of itself and of the database after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) schema: String,
    pub(super) datastore: String,
    pub(super) generation: String,
    pub(super) sequence: u64,
    /// The SHA-256 of the set before, as stored. None for the first, which has no pages and stands for the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Id>,
    pub(super) page_size: u32,
    pub(super) page_count: u32,
    /// How many pages are in the set.
    pub(super) pages: u32,
    /// The next set belongs to this one: only then this is a state of the database.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
    /// The sum over all pages of the database, in hexadecimal digits.
    pub(super) sum: String,
    /// Everything that was committed before is in.
    pub(super) complete_until: Timestamp,
    /// Nothing that was committed later is in.
    pub(super) taken_at: Timestamp,
    /// Until then the database was still what the set before says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unchanged_until: Option<Timestamp>,
    /// How often the shipper meant to look.
    pub(super) interval_ms: u64,
    /// How far the store's clock was ahead of ours when it was last asked.
    #[serde(default)]
    pub(super) store_ahead_ms: i64,
    pub(super) program: String,
}

impl Header {
    pub(super) fn schema() -> String {
        SCHEMA.to_owned()
    }

    pub(super) fn sum_of(sum: u128) -> String {
        format!("{sum:032x}")
    }

    /// Whether the numbers of pages can be those of this header, in rising order.
    fn fits(&self, numbers: &[u32]) -> bool {
        let sizes = is_page_size(self.page_size) || (self.page_size == 0 && self.page_count == 0 && self.pages == 0);
        let rising = numbers.is_sorted_by(|one, next| one < next);
        let within = numbers.first().is_none_or(|first| *first > 0)
            && numbers.last().is_none_or(|last| *last <= self.page_count);
        sizes && rising && within
    }
}

/// A set that was read and believed.
#[derive(Debug)]
pub(super) struct Set {
    /// What the next set calls `previous`.
    pub(super) id: Id,
    pub(super) header: Header,
    numbers: Vec<u32>,
    body: Vec<u8>,
    content: usize,
}

impl Set {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The pages with their numbers.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let pages = self.body[self.content..].chunks_exact((self.header.page_size as usize).max(1));
        self.numbers.iter().copied().zip(pages)
    }
}

/// The stored bytes of a set.
pub(super) fn seal(
    repository: &Repository,
    header: &Header,
    numbers: &[u32],
    content: &[u8],
) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(header).map_err(|_| Error::Internal("a header is always valid JSON"))?;
    let mut body = Vec::with_capacity(4 + json.len() + numbers.len() * 4 + content.len());
    body.extend_from_slice(&(json.len() as u32).to_le_bytes());
    body.extend_from_slice(&json);
    body.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    body.extend_from_slice(content);
    ENVELOPE.seal(repository, &body)
}

/// Reads stored bytes, and believes nothing: neither lengths nor page numbers.
pub(super) fn open(repository: &Repository, key: &str, sealed: &[u8]) -> Result<Set, Error> {
    let damaged = |damage| {
        let key = key.to_owned();
        Error::Shipping(ShippingError::Damaged { key, damage })
    };
    let body = ENVELOPE.open(repository, sealed)?.map_err(damaged)?;
    parse(Id::of(sealed), body).ok_or_else(|| damaged(Damage::Malformed))
}

pub(super) fn parse(id: Id, body: Vec<u8>) -> Option<Set> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let json = rest.get(..length).filter(|_| length <= HEADER_LIMIT)?;
    let header: Header = serde_json::from_slice(json)
        .ok()
        .filter(|header: &Header| header.schema == SCHEMA)?;
    let rest = &rest[length..];
    let pages = header.pages as usize;
    let expected = pages
        .checked_mul(4)?
        .checked_add(pages.checked_mul(header.page_size as usize)?)?;
    if rest.len() != expected {
        return None;
    }
    let numbers: Vec<u32> = rest[..pages * 4]
        .as_chunks()
        .0
        .iter()
        .map(|number| u32::from_le_bytes(*number))
        .collect();
    let content = 4 + length + pages * 4;
    header.fits(&numbers).then_some(Set {
        id,
        header,
        numbers,
        body,
        content,
    })
}

#[cfg(test)]
mod tests;
