//! Policies around the handling of messages: what to tell the broker after each one. Which broker it is, and how it is
//! told, is the caller's matter; so is taking the next message.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::deadline::Deadline;
use crate::error::{BuildError, By, Error, Rejected};
use crate::layer::AnyError;
use crate::pipeline::{Attempt, Pipeline};
use crate::verdict::{Classify, Kind, Safety, Verdict};

/// No wait and no pause is longer than this.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Handles messages under a policy. Clones share, so several workers pause together.
#[derive(Debug, Clone)]
pub struct Consumer {
    pipeline: Pipeline,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    settings: Mutex<ConsumerSettings>,
    /// End of the pause, nanoseconds.
    paused_until: AtomicU64,
    acked: AtomicU64,
    nacked: AtomicU64,
    dead: AtomicU64,
    paused: AtomicU64,
}

/// Settings of a consumer: `consumer = { max_attempts = 5, base = "1s", cap = "5m", deadline = "30s" }`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct ConsumerSettings {
    /// Deliveries of a message after which it is poison. Default 5.
    pub max_attempts: u32,
    /// Wait before the second delivery; each further one is twice the one before. A quarter of it, on average, is taken
    /// off by chance, so that messages that failed together do not come back together. Default 1 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub base: Duration,
    /// The longest wait before a delivery. Default 5 min.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub cap: Duration,
    /// Time for handling one message with all that it calls; it must be shorter than the time after which the broker
    /// delivers it to somebody else. Default 25 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub deadline: Duration,
    /// Pause when a policy refuses and does not say for how long. Default 1 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub pause: Duration,
    /// The longest pause; then one message tries again. Default 30 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub max_pause: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(300),
            deadline: Duration::from_secs(25),
            pause: Duration::from_secs(1),
            max_pause: Duration::from_secs(30),
        }
    }
}

impl ConsumerSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// Zero, a first wait or pause above the longest one, anything longer than a year.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let problem = if self.max_attempts == 0 {
            ("consumer.max_attempts", "must be at least 1")
        } else if self.base.is_zero() || self.base > self.cap {
            ("consumer.base", "must be above zero and at most consumer.cap")
        } else if self.cap > LONGEST {
            ("consumer.cap", "must be at most a year")
        } else if self.deadline.is_zero() || self.deadline > LONGEST {
            ("consumer.deadline", "must be above zero and at most a year")
        } else if self.pause.is_zero() || self.pause > self.max_pause {
            ("consumer.pause", "must be above zero and at most consumer.max_pause")
        } else if self.max_pause > LONGEST {
            ("consumer.max_pause", "must be at most a year")
        } else {
            return Ok(());
        };
        Err(BuildError::new(name, problem.0, problem.1))
    }

    /// Between half of the exponential wait and the whole; `spread` in 0..1.
    fn delay(&self, delivery: u32, spread: f64) -> Duration {
        let doublings = delivery.saturating_sub(1);
        let full = self.base.saturating_mul(2_u32.saturating_pow(doublings)).min(self.cap);
        full.mul_f64(1.0 - spread / 2.0)
    }
}

/// What to tell the broker about a message.
#[derive(Debug)]
#[must_use = "the broker must be told"]
pub enum Disposition<E> {
    /// It is done.
    Ack,
    /// It failed and may work later: deliver it again.
    Nack {
        /// Not before this time.
        delay: Duration,
        /// What went wrong.
        error: Error<E>,
    },
    /// Delivering it again helps nobody: put it aside, for people to look at.
    DeadLetter {
        /// Why.
        reason: Poison,
        /// What went wrong, the last time.
        error: Error<E>,
    },
    /// The message is not to blame, and the next one would fare no better: take no messages for this time, and then
    /// handle this one again as the same delivery. A broker that counts every return as a delivery should not get it
    /// back before.
    Pause {
        /// The time; [`Consumer::ready`] waits for it.
        retry_after: Duration,
        /// What stands in the way.
        error: Error<E>,
    },
}

/// Why a message is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Poison {
    /// It will never work.
    Permanent,
    /// It was delivered too often.
    TooManyAttempts,
}

impl Poison {
    /// The name in JSON, metrics and message headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::TooManyAttempts => "too_many_attempts",
        }
    }
}

impl Consumer {
    /// A consumer with the default settings.
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            inner: Arc::default(),
        }
    }

    /// A consumer with settings of its own.
    ///
    /// # Errors
    /// As [`ConsumerSettings::check`].
    pub fn with_settings(pipeline: Pipeline, settings: ConsumerSettings) -> Result<Self, BuildError> {
        let consumer = Self::new(pipeline);
        consumer.reload(settings)?;
        Ok(consumer)
    }

    /// Other settings, from the next message on.
    ///
    /// # Errors
    /// As [`ConsumerSettings::check`]; then nothing is changed.
    pub fn reload(&self, settings: ConsumerSettings) -> Result<(), BuildError> {
        settings.check(self.pipeline.name())?;
        *self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// Waits while the consumer pauses. Every worker calls it before it takes a message.
    pub async fn ready(&self) {
        loop {
            let until = Duration::from_nanos(self.inner.paused_until.load(Ordering::Relaxed));
            let left = until.saturating_sub(clock::now());
            if left.is_zero() {
                return;
            }
            // Somebody else may make the pause longer meanwhile.
            tokio::time::sleep(left).await;
        }
    }

    /// Handles one message; `delivery` is 1 when it is delivered for the first time. Every error counts as a failure
    /// that may pass.
    pub async fn handle<F, Fut, E>(&self, delivery: u32, op: F) -> Disposition<E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        self.handle_with(&AnyError, delivery, op).await
    }

    /// Handles one message; `classify` says what its errors mean. An error that it ignores is an answer, and the same one
    /// would come again: the message is poison, as with a permanent failure. Messages are delivered again by nature, so
    /// `op` may be called several times.
    pub async fn handle_with<C, F, Fut, E>(&self, classify: &C, delivery: u32, op: F) -> Disposition<E>
    where
        C: Classify<(), E> + ?Sized,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let settings = self.settings();
        let call = self.pipeline.call_with(Safety::Idempotent, classify, op);
        let result = Deadline::after(settings.deadline).scope(call).await;
        let disposition = match result {
            Ok(()) => Disposition::Ack,
            Err(error) => Self::judge(&settings, classify, delivery, error),
        };
        self.count(&disposition);
        disposition
    }

    fn judge<C, E>(settings: &ConsumerSettings, classify: &C, delivery: u32, error: Error<E>) -> Disposition<E>
    where
        C: Classify<(), E> + ?Sized,
    {
        let verdict = match &error {
            Error::Inner(error) => classify.classify(Err(error)),
            Error::Timeout { .. } | Error::Rejected(Rejected { by: By::Deadline, .. }) => {
                Verdict::Failure(Kind::Timeout)
            }
            Error::Rejected(_) => Verdict::LocalReject,
        };
        let refused_for = match &error {
            Error::Rejected(rejected) => rejected.retry_after,
            Error::Inner(_) | Error::Timeout { .. } => None,
        };
        let pause = |hint: Option<Duration>| hint.unwrap_or(settings.pause).min(settings.max_pause);
        match verdict {
            Verdict::Success | Verdict::Begun => Disposition::Ack,
            Verdict::Ignore | Verdict::Failure(Kind::Permanent) => Disposition::DeadLetter {
                reason: Poison::Permanent,
                error,
            },
            Verdict::LocalReject => Disposition::Pause {
                retry_after: pause(refused_for),
                error,
            },
            Verdict::Overload { hint: Some(hint) } => Disposition::Pause {
                retry_after: pause(Some(hint)),
                error,
            },
            Verdict::Failure(_) | Verdict::Overload { hint: None } if delivery >= settings.max_attempts => {
                Disposition::DeadLetter {
                    reason: Poison::TooManyAttempts,
                    error,
                }
            }
            Verdict::Failure(_) | Verdict::Overload { hint: None } => Disposition::Nack {
                delay: settings.delay(delivery, fastrand::f64()),
                error,
            },
        }
    }

    fn count<E>(&self, disposition: &Disposition<E>) {
        let inner = &*self.inner;
        let counter = match disposition {
            Disposition::Ack => &inner.acked,
            Disposition::Nack { .. } => &inner.nacked,
            Disposition::DeadLetter { .. } => &inner.dead,
            Disposition::Pause { retry_after, .. } => {
                let until = (clock::now() + *retry_after).as_nanos();
                let until = u64::try_from(until).unwrap_or(u64::MAX);
                inner.paused_until.fetch_max(until, Ordering::Relaxed);
                &inner.paused
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn settings(&self) -> ConsumerSettings {
        let settings = self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.clone()
    }

    /// Figures now.
    pub fn snapshot(&self) -> ConsumerSnapshot {
        let inner = &*self.inner;
        let until = Duration::from_nanos(inner.paused_until.load(Ordering::Relaxed));
        ConsumerSnapshot {
            acked: inner.acked.load(Ordering::Relaxed),
            nacked: inner.nacked.load(Ordering::Relaxed),
            dead_lettered: inner.dead.load(Ordering::Relaxed),
            paused: inner.paused.load(Ordering::Relaxed),
            is_paused: until > clock::now(),
        }
    }
}

/// Figures of a consumer, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ConsumerSnapshot {
    /// Messages that are done.
    pub acked: u64,
    /// Deliveries that failed and will be repeated.
    pub nacked: u64,
    /// Messages put aside.
    pub dead_lettered: u64,
    /// Deliveries that met a pause.
    pub paused: u64,
    /// Whether it pauses now.
    pub is_paused: bool,
}
