//! Rights to make one call: [`Permit`] owns a share of its breaker and may go anywhere; [`Pass`] borrows it and costs
//! less; a token is the plain value behind both, for those who keep the breaker themselves.

use std::sync::Arc;
use std::time::Duration;

use super::Breaker;
use crate::error::{By, Rejected};
use crate::verdict::Verdict;

/// Right to make one call, as a plain value. Two whole words, each written and read at once: in smaller fields a token
/// costs more to move than the rest of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    /// Generation, and below it the probe's number, [`PLAIN`] or [`SPARED`].
    call: u64,
    /// Nanoseconds of the crate's clock; 0 when nobody wants to know how long the call takes.
    pub(super) started: u64,
}

/// In place of a probe's number: counted.
const PLAIN: u32 = 0;
/// In place of a probe's number: would have been refused if the breaker did more than observe; decides nothing.
const SPARED: u32 = u32::MAX;

/// What a call is to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    Spared,
    /// Decides whether the breaker closes.
    Probe(u32),
}

impl Token {
    #[inline]
    pub(super) const fn plain(generation: u32, started: u64) -> Self {
        Self {
            call: (generation as u64) << 32 | PLAIN as u64,
            started,
        }
    }

    pub(super) const fn new(generation: u32, role: Role, started: u64) -> Self {
        let number = match role {
            Role::Plain => PLAIN,
            Role::Spared => SPARED,
            Role::Probe(number) => number,
        };
        Self {
            call: (generation as u64) << 32 | number as u64,
            started,
        }
    }

    #[inline]
    pub(super) const fn is_plain_of(self, generation: u32) -> bool {
        self.call == (generation as u64) << 32 | PLAIN as u64
    }

    #[inline]
    pub(super) const fn generation(self) -> u32 {
        (self.call >> 32) as u32
    }

    pub(super) const fn role(self) -> Role {
        match self.call as u32 {
            PLAIN => Role::Plain,
            SPARED => Role::Spared,
            number => Role::Probe(number),
        }
    }
}

/// Right to make one call.
#[derive(Debug)]
#[must_use = "dropping a permit says that the call was cancelled"]
pub struct Permit {
    breaker: Breaker,
    token: Token,
    ended: bool,
}

impl Permit {
    pub(super) const fn new(breaker: Breaker, token: Token) -> Self {
        Self {
            breaker,
            token,
            ended: false,
        }
    }

    /// Says how the call ended.
    pub fn record(mut self, verdict: Verdict) {
        self.ended = true;
        self.breaker.settle(self.token, Some(verdict));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.breaker.settle(self.token, None);
        }
    }
}

/// Right to make one call, borrowed from the breaker: no counter of references is touched.
#[derive(Debug)]
#[must_use = "dropping a pass says that the call was cancelled"]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    token: Token,
    ended: bool,
}

impl<'a> Pass<'a> {
    pub(super) const fn new(breaker: &'a Breaker, token: Token) -> Self {
        Self {
            breaker,
            token,
            ended: false,
        }
    }

    /// Says how the call ended.
    #[expect(
        clippy::inline_always,
        reason = "out of line the verdict goes through memory: 5 ns of 13"
    )]
    #[inline(always)]
    pub fn record(mut self, verdict: Verdict) {
        self.ended = true;
        self.breaker.settle(self.token, Some(verdict));
    }
}

impl Drop for Pass<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.breaker.settle(self.token, None);
        }
    }
}

/// A breaker refused, in the few bytes that cost nothing to make; [`Refusal::named`] makes an error of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// When it is worth trying again, if known.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The refusal as an error that says which breaker it was.
    pub fn named(self, breaker: &Breaker) -> Rejected {
        Rejected {
            by: By::Breaker,
            name: Arc::clone(&breaker.inner.name),
            retry_after: self.retry_after,
        }
    }
}
