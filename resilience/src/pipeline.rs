//! [`Pipeline`]: the policies around one dependency, in their order, as one object. How a call goes through them is
//! `track`'s.

mod builder;
mod call;
#[cfg(feature = "testing")]
mod inside;
mod race;
mod settings;
mod stage;
mod track;
mod unsettled;
mod way;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::builder::PipelineBuilder;
pub use self::call::Call;
pub use self::settings::{PipelineSettings, TimeoutSettings};
pub use self::stage::Part;
use self::stage::Stage;
pub use self::unsettled::Unsettled;

use crate::adaptive::AdaptiveSnapshot;
use crate::breaker::{Breaker, BreakerSnapshot};
use crate::bulkhead::BulkheadSnapshot;
use crate::deadline::Deadline;
use crate::error::{BuildError, By, Error, Scope};
use crate::event::{Event, Listener, Tell};
use crate::hedge::HedgeSnapshot;
use crate::layer::{AnyError, PipelineLayer};
use crate::rate::RateLimitSnapshot;
use crate::retry::{Retrier, RetrySnapshot};
use crate::stale::FallbackReason;
use crate::throttle::ThrottleSnapshot;
use crate::verdict::{Classify, Safety};

/// The policies around one dependency. Clones share their state.
#[derive(Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

/// What a call sees of its policy.
pub struct Inner {
    pub(crate) name: Arc<str>,
    /// The outermost first.
    stages: Box<[Stage]>,
    /// Where the hedge and the retries stand among the stages.
    hedge: Option<usize>,
    retry: Option<usize>,
    /// Whether a limit is so short that the coarse clock would not do.
    exact: AtomicBool,
    settings: Mutex<PipelineSettings>,
    listener: Option<Arc<dyn Listener>>,
    timeouts: [AtomicU64; 2],
    /// By reason.
    fallbacks: [AtomicU64; 3],
    warnings: Vec<String>,
    /// Whether it was told already that this policy repeats what another one repeats.
    nested: AtomicBool,
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
    total: Option<Deadline>,
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

    /// When the whole call will be cut off: what is still read of an answer by then comes too late.
    pub const fn total_deadline(&self) -> Option<Deadline> {
        self.total
    }

    /// Time left until [`Attempt::deadline`].
    pub fn timeout(&self) -> Option<Duration> {
        self.deadline.map(Deadline::remaining)
    }
}

/// What makes attempts: every `FnMut(Attempt) -> Future`.
pub trait Op {
    /// A good answer.
    type Value;
    /// A bad one.
    type Error;
    /// One attempt.
    type Future: Future<Output = Result<Self::Value, Self::Error>>;

    /// Begins an attempt.
    fn start(&mut self, attempt: Attempt) -> Self::Future;

    /// The answer `value` has begun ([`Verdict::Begun`](crate::Verdict::Begun)), and is about to be handed on. Whoever
    /// sees its end settles `unsettled`; dropped, it says that the call was cancelled. In a hedged call this may come
    /// once for the attempt and once for the call.
    fn begun(&mut self, value: &mut Self::Value, unsettled: Unsettled) {
        let _ = value;
        unsettled.settle(crate::Verdict::Ignore);
    }
}

impl<F, Fut, T, E> Op for F
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Error = E;
    type Future = Fut;

    fn start(&mut self, attempt: Attempt) -> Fut {
        self(attempt)
    }
}

impl Pipeline {
    /// What most dependencies need: total 30 s, attempt 10 s, 2 retries with a budget of 20 %, a breaker at half of at
    /// least 20 calls in 30 s, 100 calls at one time with 100 waiting. Change what differs.
    pub fn standard(name: impl Into<Arc<str>>) -> PipelineBuilder {
        PipelineBuilder::new(name.into(), PipelineSettings::standard())
    }

    /// Starts with nothing.
    pub fn builder(name: impl Into<Arc<str>>) -> PipelineBuilder {
        Self::from_settings(name, PipelineSettings::default())
    }

    /// Starts with settings.
    pub fn from_settings(name: impl Into<Arc<str>>, settings: PipelineSettings) -> PipelineBuilder {
        PipelineBuilder::new(name.into(), settings)
    }

    /// Other settings from now on, for the calls that come; windows, budgets, places and states are kept.
    ///
    /// # Errors
    /// Those of [`PipelineSettings::check`], and parts or an order other than those that the policy was built with: calls
    /// are under way between them. Nothing is changed then.
    pub fn reload(&self, settings: PipelineSettings) -> Result<(), BuildError> {
        let inner = &*self.inner;
        let name = &*inner.name;
        settings.check(name)?;
        let parts = settings.parts(name)?;
        let refuse = |key: &str, problem: &str| Err(BuildError::new(name, key, problem));
        if let Some(part) = parts.iter().find(|part| !self.parts().any(|own| own == **part)) {
            return refuse(part.key(), "cannot be added to a policy in use");
        }
        if let Some(part) = self.parts().find(|part| !parts.contains(part)) {
            return refuse(part.key(), "cannot be taken from a policy in use");
        }
        if !self.parts().eq(parts) {
            return refuse("order", "cannot be changed in a policy in use");
        }
        // One after the other; two reloads at one time must not mix.
        let mut current = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in &inner.stages {
            stage.reload(name, &settings)?;
        }
        inner
            .exact
            .store(settings.timeout.need_exact_clock(), Ordering::Relaxed);
        *current = settings;
        Ok(())
    }

    /// Its settings.
    pub fn settings(&self) -> PipelineSettings {
        self.inner
            .settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Name of the policy.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The breaker, to look at or to force.
    pub fn breaker(&self) -> Option<&Breaker> {
        self.inner.breaker()
    }

    /// The faults that are put into its calls.
    #[cfg(feature = "fault-injection")]
    pub fn faults(&self) -> Option<&crate::Faults> {
        self.inner.stages.iter().find_map(|stage| match stage {
            Stage::Faults(faults) => Some(faults),
            _ => None,
        })
    }

    /// What looked doubtful when it was built, in sentences; they were logged as warnings too.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Its parts, the outermost first.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        self.inner.stages.iter().map(Stage::part)
    }

    /// Calls `op` under the policies. `op` may be called several times, so what it does must be safe to repeat: use
    /// [`Pipeline::call_with`] and [`Safety::Unsafe`] otherwise. Every error counts as a failure that may pass.
    ///
    /// # Errors
    /// Refused here, out of time, or the last attempt's own error.
    #[inline]
    pub fn call<F, Fut, T, E>(&self, op: F) -> Call<&Inner, &AnyError, F>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.call_with(Safety::Idempotent, &AnyError, op)
    }

    /// Calls `op` under the policies; `safety` says whether it may be repeated, `classify` what its results mean.
    ///
    /// # Errors
    /// As [`Pipeline::call`].
    #[inline]
    pub fn call_with<'a, C, F, Fut, T, E>(&'a self, safety: Safety, classify: &'a C, op: F) -> Call<&'a Inner, &'a C, F>
    where
        C: Classify<T, E> + ?Sized,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        Call::new(&*self.inner, safety, classify, op)
    }

    /// A call as a future that has a name and owns what it needs; `op` may be any [`Op`].
    pub fn start<C, O>(&self, safety: Safety, classify: Arc<C>, op: O) -> Call<Arc<Inner>, Arc<C>, O>
    where
        C: Classify<O::Value, O::Error> + ?Sized,
        O: Op,
    {
        Call::new(Arc::clone(&self.inner), safety, classify, op)
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
                let reason = FallbackReason::of_error(&error);
                self.inner.fallbacks[reason as usize].fetch_add(1, Ordering::Relaxed);
                self.inner.tell(|name| Event::Fallback {
                    name,
                    reason: reason.as_str(),
                });
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
        let mut snapshot = PipelineSnapshot {
            name: inner.name.to_string(),
            parts: self.parts().map(Part::as_str).collect(),
            warnings: inner.warnings.clone(),
            breaker: None,
            bulkhead: None,
            retry: None,
            hedge: None,
            throttle: None,
            rate_limit: None,
            concurrency_limit: None,
            active_faults: 0,
            attempt_timeout_seconds: None,
            total_timeout_seconds: None,
            attempt_timeouts: inner.timeouts[Scope::Attempt as usize].load(Ordering::Relaxed),
            total_timeouts: inner.timeouts[Scope::Total as usize].load(Ordering::Relaxed),
            fallbacks: FallbackReason::ALL
                .map(|reason| {
                    (
                        reason.as_str(),
                        inner.fallbacks[reason as usize].load(Ordering::Relaxed),
                    )
                })
                .to_vec(),
        };
        for stage in &inner.stages {
            match stage {
                Stage::Deadline(limit) => {
                    snapshot.total_timeout_seconds = limit.get().map(|limit| limit.as_secs_f64());
                }
                Stage::AttemptTimeout(limit) => {
                    snapshot.attempt_timeout_seconds = limit.get().map(|limit| limit.as_secs_f64());
                }
                Stage::Bulkhead(bulkhead) => snapshot.bulkhead = Some(bulkhead.snapshot()),
                Stage::Retry(retrier) => snapshot.retry = Some(retrier.snapshot()),
                Stage::Hedge(hedger) => snapshot.hedge = Some(hedger.snapshot()),
                Stage::Breaker(breaker) => snapshot.breaker = Some(breaker.snapshot()),
                Stage::Throttle(throttle) => snapshot.throttle = Some(throttle.snapshot()),
                Stage::RateLimit(limit) => snapshot.rate_limit = Some(limit.snapshot()),
                Stage::ConcurrencyLimit(limit) => snapshot.concurrency_limit = Some(limit.snapshot()),
                #[cfg(feature = "fault-injection")]
                Stage::Faults(faults) => snapshot.active_faults = faults.snapshot().active,
                Stage::Gate(_) => {}
            }
        }
        snapshot
    }
}

impl Inner {
    fn breaker(&self) -> Option<&Breaker> {
        self.stages.iter().find_map(|stage| match stage {
            Stage::Breaker(breaker) => Some(breaker),
            _ => None,
        })
    }

    fn retrier(&self) -> Option<&Retrier> {
        match self.retry.map(|at| &self.stages[at]) {
            Some(Stage::Retry(retrier)) => Some(retrier),
            _ => None,
        }
    }

    /// Whether calls of this safety are repeated.
    fn repeats(&self, safety: Safety) -> bool {
        safety == Safety::Idempotent && self.retrier().is_some_and(Retrier::repeats)
    }

    /// Takes an extra attempt out of the retry budget.
    fn may_hedge(&self) -> bool {
        let budget = self.retrier().and_then(Retrier::budget);
        let may = budget.is_none_or(crate::Budget::try_withdraw);
        if !may {
            self.tell(|name| Event::BudgetExhausted { name });
        }
        may
    }

    fn timed_out(&self, scope: Scope) {
        self.timeouts[scope as usize].fetch_add(1, Ordering::Relaxed);
        self.tell(|name| Event::Timeout { name, scope });
    }

    fn rejected(&self, by: By) {
        // A breaker tells it by itself, since it is used without a pipeline too.
        if by != By::Breaker {
            self.tell(|name| Event::Rejected { name, by });
        }
    }

    /// Told once: attempts of policies that lie in each other multiply.
    fn warn_of_nesting(&self) {
        if !self.nested.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                name = &*self.name,
                "this policy retries inside a policy that retries: the attempts multiply"
            );
        }
    }
}

impl Tell for Inner {
    fn tell<'a>(&'a self, event: impl FnOnce(&'a str) -> Event<'a>) {
        if let Some(listener) = &self.listener {
            listener.event(&event(&self.name));
        }
    }
}

/// Figures of a policy.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PipelineSnapshot {
    /// Name of the policy.
    pub name: String,
    /// Its parts, the outermost first.
    pub parts: Vec<&'static str>,
    /// What looked doubtful when it was built.
    pub warnings: Vec<String>,
    /// Its breaker.
    pub breaker: Option<BreakerSnapshot>,
    /// Its bulkhead.
    pub bulkhead: Option<BulkheadSnapshot>,
    /// Its retries.
    pub retry: Option<RetrySnapshot>,
    /// Its hedging.
    pub hedge: Option<HedgeSnapshot>,
    /// Its throttle.
    pub throttle: Option<ThrottleSnapshot>,
    /// Its rate limit.
    pub rate_limit: Option<RateLimitSnapshot>,
    /// Its limit that finds itself.
    pub concurrency_limit: Option<AdaptiveSnapshot>,
    /// Faults that are put in now.
    pub active_faults: usize,
    /// Time for an attempt, in seconds.
    pub attempt_timeout_seconds: Option<f64>,
    /// Time for a call, in seconds.
    pub total_timeout_seconds: Option<f64>,
    /// Attempts cut off since the start.
    pub attempt_timeouts: u64,
    /// Calls cut off since the start.
    pub total_timeouts: u64,
    /// Fallbacks since the start, by reason (`rejected`, `timeout`, `failure`).
    pub fallbacks: Vec<(&'static str, u64)>,
}
