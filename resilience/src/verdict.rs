//! What a result says of the dependency, and what a request allows. Policies act on these alone; where they come from
//! is `http`, `grpc` or the caller's own [`Classify`].

use std::time::Duration;

/// What one result says of the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered as it should.
    Success,
    /// It did not.
    Failure(Kind),
    /// It asked for less, perhaps with the time to wait.
    Overload {
        /// How long the server asks to wait; [`Verdict::NEVER`] when it forbids another attempt.
        hint: Option<Duration>,
    },
    /// An answer that says nothing of its health, such as "not found": no retry, no count.
    Ignore,
    /// It has begun to answer as it should; whether it does will show at the end of the answer. It is not repeated any more,
    /// and [`Op::begun`](crate::Op::begun) gets what is to be settled then.
    Begun,
    /// A policy of ours further in refused: no retry here, no count.
    LocalReject,
}

impl Verdict {
    /// A wait that never ends.
    pub const NEVER: Duration = Duration::MAX;
}

/// Kinds of failures, by what may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request was never processed (connection refused, stream refused): repeating is always safe.
    NotSent,
    /// It may work if tried again.
    Transient,
    /// No answer in time; the work may have been done.
    Timeout,
    /// It will not work if tried again.
    Permanent,
}

/// Whether a request may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// Twice has the effect of once.
    Idempotent,
    /// It must not be repeated unless it was never processed.
    Unsafe,
}

/// Tells what a result says of the dependency. Implemented by every `Fn(Result<&T, &E>) -> Verdict`.
pub trait Classify<T, E> {
    /// The verdict on one result.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;
}

impl<F, T, E> Classify<T, E> for F
where
    F: Fn(Result<&T, &E>) -> Verdict,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self(result)
    }
}

/// Tells whether a request may be repeated.
pub trait SafetyOf<Req> {
    /// The safety of one request.
    fn safety(&self, request: &Req) -> Safety;
}
