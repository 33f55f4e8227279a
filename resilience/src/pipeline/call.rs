//! One call under a policy, as a future with a name: nothing is boxed, and nothing more is asked of the caller's types
//! than that they make attempts.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::track::Track;
use super::way::{NEVER, Trip};
use super::{Inner, Op};
use crate::clock;
use crate::deadline::Surroundings;
use crate::error::Error;
use crate::verdict::{Classify, Safety, Verdict};

pin_project! {
    /// A call under a policy; made by [`Pipeline::start`](super::Pipeline::start). `P` and `K` point to the policy and to
    /// what classifies its results, `O` makes the attempts.
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<P, K, O>
    where
        P: Deref<Target = Inner>,
        O: Op,
    {
        #[pin]
        track: Track<O>,
        policy: P,
        classify: K,
        op: O,
        safety: Safety,
        // When it was polled first, and within what.
        begun: Option<Instant>,
        surroundings: Surroundings,
        attempts: u32,
        total_end: Option<u64>,
    }

    impl<P, K, O> PinnedDrop for Call<P, K, O>
    where
        P: Deref<Target = Inner>,
        O: Op,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.track.abandon(&this.policy.stages);
        }
    }
}

impl<P, K, O> Call<P, K, O>
where
    P: Deref<Target = Inner>,
    O: Op,
{
    pub(super) fn new(policy: P, safety: Safety, classify: K, op: O) -> Self {
        let end = match policy.hedge {
            Some(hedge) if safety == Safety::Idempotent => hedge,
            _ => policy.stages.len(),
        };
        Self {
            track: Track::new(0, end),
            policy,
            classify,
            op,
            safety,
            begun: None,
            surroundings: Surroundings::default(),
            attempts: 0,
            total_end: None,
        }
    }
}

impl<P, K, O> Future for Call<P, K, O>
where
    P: Deref<Target = Inner>,
    K: Deref,
    K::Target: Classify<O::Value, O::Error>,
    O: Op,
{
    type Output = Result<O::Value, Error<O::Error>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner: &Inner = this.policy;
        let repeats = inner.repeats(*this.safety);
        let mut coarse = None;
        let (started, now) = if let Some(started) = *this.begun {
            (started, None)
        } else {
            *this.surroundings = Surroundings::current();
            if this.surroundings.retried && repeats {
                inner.warn_of_nesting();
            }
            let started = if inner.exact.load(Ordering::Relaxed) {
                Instant::now()
            } else {
                let (started, millis) = clock::coarse();
                coarse = Some(millis);
                started
            };
            *this.begun = Some(started);
            (started, Some(0))
        };
        let mut trip = Trip {
            inner,
            safety: *this.safety,
            repeats,
            started,
            now,
            coarse,
            surroundings: *this.surroundings,
            attempts: *this.attempts,
            outer_end: NEVER,
            total_end: *this.total_end,
            verdict: Verdict::Ignore,
        };
        let polled = this.track.poll(context, &mut trip, this.op, &**this.classify);
        *this.attempts = trip.attempts;
        *this.total_end = trip.total_end;
        polled
    }
}

impl<P, K, O> std::fmt::Debug for Call<P, K, O>
where
    P: Deref<Target = Inner>,
    O: Op,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("policy", &self.policy.name)
            .finish_non_exhaustive()
    }
}
