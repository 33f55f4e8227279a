//! Rights to make one call: [`Permit`] owns a share of its breaker and may go anywhere; [`Pass`] borrows it and costs
//! less; a token is the plain value behind both, for those who keep the breaker themselves.

use std::sync::Arc;
use std::time::Duration;

use super::Breaker;
use crate::error::{By, Rejected};
use crate::verdict::Verdict;

/// Right to make one call, as a plain value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(super) generation: u32,
    pub(super) kind: Kind,
    /// Nanoseconds of the crate's clock; 0 when nobody wants to know how long the call takes.
    pub(super) started: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counted.
    Plain,
    /// Decides whether the breaker closes.
    Probe(u32),
    /// Would have been refused if the breaker did more than observe; decides nothing.
    Spared,
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
    #[inline]
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
