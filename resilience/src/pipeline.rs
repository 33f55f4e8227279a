//! [`Pipeline`]: the policies around one dependency, in their order, as one object.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::breaker::{Breaker, BreakerBuilder, BreakerSnapshot};
use crate::bulkhead::{Bulkhead, BulkheadSnapshot};
use crate::deadline::Deadline;
use crate::error::{BuildError, By, Error, Rejected, Scope};
use crate::event::{Event, Listener};
use crate::layer::{AnyError, PipelineLayer};
use crate::retry::{Reason, Retry, RetrySnapshot, reason};
use crate::verdict::{Classify, Kind, Safety, Verdict};

/// The policies around one dependency. Clones share their state.
#[derive(Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    total: Option<Duration>,
    attempt: Option<Duration>,
    bulkhead: Option<Bulkhead>,
    retry: Option<Retry>,
    breaker: Option<Breaker>,
    listener: Option<Arc<dyn Listener>>,
    retries: [AtomicU64; 4],
    timeouts: [AtomicU64; 2],
    fallbacks: AtomicU64,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// One attempt of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    number: u32,
    deadline: Option<Deadline>,
}

impl Attempt {
    /// 1 for the first.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// When this attempt will be cut off; hand it to the dependency.
    pub const fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Time left until then.
    pub fn timeout(&self) -> Option<Duration> {
        self.deadline.map(Deadline::remaining)
    }
}

impl Pipeline {
    /// What most dependencies need: total 30 s, attempt 10 s, 2 retries with a budget of 20 %, a breaker at half of at
    /// least 20 calls in 30 s, 100 calls at one time with 100 waiting. Change what differs.
    pub fn standard(name: impl Into<Arc<str>>) -> PipelineBuilder {
        let name = name.into();
        let breaker = Breaker::builder(Arc::clone(&name));
        Self::builder(name)
            .total_timeout(Duration::from_secs(30))
            .attempt_timeout(Duration::from_secs(10))
            .retry(Retry::default())
            .breaker(breaker)
            .bulkhead(100, 100)
    }

    /// Starts with nothing.
    pub fn builder(name: impl Into<Arc<str>>) -> PipelineBuilder {
        PipelineBuilder {
            name: name.into(),
            total: None,
            attempt: None,
            bulkhead: None,
            retry: None,
            breaker: None,
            listener: None,
        }
    }

    /// Name of the policy.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The breaker, to look at or to force.
    pub fn breaker(&self) -> Option<&Breaker> {
        self.inner.breaker.as_ref()
    }

    /// Calls `op` under the policies. `op` may be called several times, so what it does must be safe to repeat: use
    /// [`Pipeline::call_with`] and [`Safety::Unsafe`] otherwise. Every error counts as a failure that may pass.
    ///
    /// # Errors
    /// Refused here, out of time, or the last attempt's own error.
    pub async fn call<F, Fut, T, E>(&self, op: F) -> Result<T, Error<E>>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.call_with(Safety::Idempotent, &AnyError, op).await
    }

    /// Calls `op` under the policies; `safety` says whether it may be repeated, `classify` what its results mean.
    ///
    /// # Errors
    /// As [`Pipeline::call`].
    pub async fn call_with<C, F, Fut, T, E>(&self, safety: Safety, classify: &C, op: F) -> Result<T, Error<E>>
    where
        C: Classify<T, E> + ?Sized,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let own = self.inner.total.map(Deadline::after);
        let deadline = match (own, Deadline::current()) {
            (Some(own), Some(outer)) => Some(own.min(outer)),
            (own, outer) => own.or(outer),
        };
        let Some(deadline) = deadline else {
            return self.attempts(safety, classify, op, None).await;
        };
        let limit = deadline.remaining();
        if limit.is_zero() {
            self.event(&Event::Rejected {
                name: &self.inner.name,
                by: By::Deadline,
            });
            return Err(Rejected {
                by: By::Deadline,
                name: Arc::clone(&self.inner.name),
                retry_after: None,
            }
            .into());
        }
        let attempts = self.attempts(safety, classify, op, Some(deadline));
        match tokio::time::timeout_at(deadline.instant(), attempts).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(Scope::Total, limit)),
        }
    }

    /// [`Pipeline::call`] with an answer for when it fails.
    ///
    /// # Errors
    /// The fallback's.
    pub async fn call_or_else<F, Fut, G, GFut, T, E>(&self, op: F, fallback: G) -> Result<T, Error<E>>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        G: FnOnce(Error<E>) -> GFut,
        GFut: Future<Output = Result<T, Error<E>>>,
    {
        match self.call(op).await {
            Ok(value) => Ok(value),
            Err(error) => {
                self.inner.fallbacks.fetch_add(1, Ordering::Relaxed);
                self.event(&Event::Fallback { name: &self.inner.name });
                fallback(error).await
            }
        }
    }

    /// A tower layer over this policy. Requests must be `Clone`; errors count as failures, and requests are repeated
    /// only when they were not sent: see [`PipelineLayer::classify`] and [`PipelineLayer::idempotent`].
    pub fn layer(&self) -> PipelineLayer<AnyError> {
        PipelineLayer::new(self.clone())
    }

    /// Figures now.
    pub fn snapshot(&self) -> PipelineSnapshot {
        let inner = &*self.inner;
        PipelineSnapshot {
            name: inner.name.to_string(),
            breaker: inner.breaker.as_ref().map(Breaker::snapshot),
            bulkhead: inner.bulkhead.as_ref().map(Bulkhead::snapshot),
            retry: inner.retry.as_ref().map(|retry| RetrySnapshot {
                retries: Reason::ALL
                    .into_iter()
                    .map(|reason| (reason.as_str(), inner.retries[reason as usize].load(Ordering::Relaxed)))
                    .collect(),
                budget: retry.budget.as_ref().map(crate::Budget::snapshot),
            }),
            attempt_timeouts: inner.timeouts[Scope::Attempt as usize].load(Ordering::Relaxed),
            total_timeouts: inner.timeouts[Scope::Total as usize].load(Ordering::Relaxed),
            fallbacks: inner.fallbacks.load(Ordering::Relaxed),
        }
    }

    async fn attempts<C, F, Fut, T, E>(
        &self,
        safety: Safety,
        classify: &C,
        mut op: F,
        deadline: Option<Deadline>,
    ) -> Result<T, Error<E>>
    where
        C: Classify<T, E> + ?Sized,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let inner = &*self.inner;
        let _place = match &inner.bulkhead {
            Some(bulkhead) => Some(bulkhead.enter().await.inspect_err(|rejected| {
                self.event(&Event::Rejected {
                    name: &inner.name,
                    by: rejected.by,
                });
            })?),
            None => None,
        };
        if let Some(budget) = inner.retry.as_ref().and_then(|retry| retry.budget.as_ref()) {
            budget.deposit();
        }
        let mut number = 1;
        // The last result stands when the breaker opens between two attempts.
        let mut last: Option<Result<T, Error<E>>> = None;
        loop {
            let permit = match inner.breaker.as_ref().map(Breaker::acquire).transpose() {
                Ok(permit) => permit,
                Err(rejected) => return last.unwrap_or_else(|| Err(rejected.into())),
            };
            let result = self.attempt(number, deadline, &mut op).await;
            let verdict = match &result {
                Ok(value) => classify.classify(Ok(value)),
                Err(Error::Inner(error)) => classify.classify(Err(error)),
                Err(Error::Timeout { .. }) => Verdict::Failure(Kind::Timeout),
                Err(Error::Rejected(_)) => Verdict::LocalReject,
            };
            if let Some(permit) = permit {
                permit.record(verdict);
            }
            let Some(delay) = self.next(verdict, safety, number, deadline) else {
                return result;
            };
            tokio::time::sleep(delay).await;
            last = Some(result);
            number += 1;
        }
    }

    async fn attempt<F, Fut, T, E>(&self, number: u32, deadline: Option<Deadline>, op: &mut F) -> Result<T, Error<E>>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let own = self.inner.attempt.map(Deadline::after);
        let own_is_earlier = match (own, deadline) {
            (Some(own), Some(total)) => own < total,
            (own, _) => own.is_some(),
        };
        let ends = if own_is_earlier { own } else { deadline };
        let attempt = Attempt { number, deadline: ends };
        let Some(ends) = ends else {
            return op(attempt).await.map_err(Error::Inner);
        };
        let future = ends.scope(op(attempt));
        if !own_is_earlier {
            // The total limit is around all attempts already.
            return future.await.map_err(Error::Inner);
        }
        match tokio::time::timeout_at(ends.instant(), future).await {
            Ok(result) => result.map_err(Error::Inner),
            Err(_) => Err(self.timed_out(Scope::Attempt, self.inner.attempt.unwrap_or_default())),
        }
    }

    /// Whether there is another attempt after number `number`, and the wait before it.
    fn next(&self, verdict: Verdict, safety: Safety, number: u32, deadline: Option<Deadline>) -> Option<Duration> {
        let retry = self.inner.retry.as_ref()?;
        let (reason, hint) = reason(verdict, safety)?;
        if number > retry.max {
            return None;
        }
        let own = retry.delay(number - 1, &mut rand::rng());
        let delay = hint.map_or(own, |hint| hint.max(own));
        // Waiting for what comes too late helps nobody: the last result is the answer.
        if hint.is_some_and(|hint| hint > retry.hint_cap)
            || deadline.is_some_and(|deadline| delay >= deadline.remaining())
        {
            return None;
        }
        if retry.budget.as_ref().is_some_and(|budget| !budget.try_withdraw()) {
            self.event(&Event::BudgetExhausted { name: &self.inner.name });
            return None;
        }
        self.inner.retries[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.event(&Event::Retry {
            name: &self.inner.name,
            attempt: number,
            reason: reason.as_str(),
            delay,
        });
        Some(delay)
    }

    fn timed_out<E>(&self, scope: Scope, limit: Duration) -> Error<E> {
        self.inner.timeouts[scope as usize].fetch_add(1, Ordering::Relaxed);
        self.event(&Event::Timeout {
            name: &self.inner.name,
            scope,
        });
        Error::Timeout { scope, limit }
    }

    fn event(&self, event: &Event<'_>) {
        if let Some(listener) = &self.inner.listener {
            listener.event(event);
        }
    }
}

/// Figures of a policy.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PipelineSnapshot {
    /// Name of the policy.
    pub name: String,
    /// Its breaker.
    pub breaker: Option<BreakerSnapshot>,
    /// Its bulkhead.
    pub bulkhead: Option<BulkheadSnapshot>,
    /// Its retries.
    pub retry: Option<RetrySnapshot>,
    /// Attempts cut off since the start.
    pub attempt_timeouts: u64,
    /// Calls cut off since the start.
    pub total_timeouts: u64,
    /// Fallbacks since the start.
    pub fallbacks: u64,
}

/// Describes a policy; see [`Pipeline::standard`] and [`Pipeline::builder`].
#[derive(Clone)]
#[must_use]
pub struct PipelineBuilder {
    name: Arc<str>,
    total: Option<Duration>,
    attempt: Option<Duration>,
    bulkhead: Option<(usize, usize)>,
    retry: Option<Retry>,
    breaker: Option<BreakerBuilder>,
    listener: Option<Arc<dyn Listener>>,
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl PipelineBuilder {
    /// Time for the call with all its attempts and waits.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Time for one attempt.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt = Some(limit);
        self
    }

    /// Retries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// No retries.
    pub fn without_retry(mut self) -> Self {
        self.retry = None;
        self
    }

    /// A breaker of its own.
    pub fn breaker(mut self, breaker: BreakerBuilder) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// No breaker.
    pub fn without_breaker(mut self) -> Self {
        self.breaker = None;
        self
    }

    /// `limit` calls at one time and `queue` more waiting.
    pub fn bulkhead(mut self, limit: usize, queue: usize) -> Self {
        self.bulkhead = Some((limit, queue));
        self
    }

    /// No bulkhead.
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = None;
        self
    }

    /// Is told of everything that happens.
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// Settings that make no sense alone or together: an attempt longer than the total, a breaker's window shorter
    /// than two attempts, a ratio outside (0, 1], no probes, no places.
    pub fn build(self) -> Result<Pipeline, BuildError> {
        let refuse = |key: &str, problem: &str| Err(BuildError::new(&self.name, key, problem));
        if self.total.is_some_and(|total| total.is_zero()) || self.attempt.is_some_and(|attempt| attempt.is_zero()) {
            return refuse("timeout", "must be above zero");
        }
        if let (Some(attempt), Some(total)) = (self.attempt, self.total) {
            if attempt > total {
                return refuse("timeout.attempt", "must not be longer than timeout.total");
            }
        }
        if let Some(retry) = &self.retry {
            if retry.base > retry.cap {
                return refuse("retry.base", "must not be longer than retry.cap");
            }
        }
        let window = self.breaker.as_ref().and_then(BreakerBuilder::window_length);
        if let (Some(attempt), Some(window)) = (self.attempt, window) {
            if window < attempt.saturating_mul(2) {
                return refuse("breaker.window", "must be at least twice timeout.attempt");
            }
        }
        let breaker = self
            .breaker
            .map(|breaker| {
                breaker
                    .shared_listener(self.listener.clone())
                    .attempt_limit(self.attempt)
                    .build()
            })
            .transpose()?;
        let bulkhead = self
            .bulkhead
            .map(|(limit, queue)| Bulkhead::new(Arc::clone(&self.name), limit, queue))
            .transpose()?;
        Ok(Pipeline {
            inner: Arc::new(Inner {
                name: self.name,
                total: self.total,
                attempt: self.attempt,
                bulkhead,
                retry: self.retry,
                breaker,
                listener: self.listener,
                retries: std::array::from_fn(|_| AtomicU64::new(0)),
                timeouts: std::array::from_fn(|_| AtomicU64::new(0)),
                fallbacks: AtomicU64::new(0),
            }),
        })
    }
}
