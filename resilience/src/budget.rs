//! The retry budget: what retries may add to a dependency's load, shared by all that retry against it. Either a share
//! of the requests of the last ten seconds plus a few a second, so that a quiet client may retry too; or the tokens of
//! gRPC's retry throttling. It does not know when to retry or how long to wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::error::BuildError;
use crate::sharded::Sharded;
use crate::verdict::Verdict;
use crate::window::Window;

/// Window of the budget.
const LENGTH: Duration = Duration::from_secs(10);
const BUCKET_MILLIS: u64 = 1_000;
/// Tokens are counted in thousandths.
const TOKEN: u64 = 1_000;
const MOST_TOKENS: f64 = 1_000.0;
const MOST_PER_SECOND: f64 = 1e6;

/// A shared retry budget. Clones share.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: Sharded<1, 0>,
    /// Whether it is a budget of tokens: what every attempt looks at, and nothing more where it is not.
    has_tokens: AtomicBool,
    /// Thousandths of tokens.
    tokens: AtomicU64,
    guarded: Mutex<Guarded>,
    exhausted: AtomicU64,
}

#[derive(Debug)]
struct Guarded {
    settings: BudgetSettings,
    retries: Window<1>,
}

/// Settings of a retry budget; in TOML `budget = { ratio = 0.2, min_per_sec = 3 }` or
/// `budget = { tokens = { max = 10, ratio = 0.1 } }`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct BudgetSettings {
    /// Retries per request over ten seconds, from 0 to 1. Default 0.2.
    pub ratio: f64,
    /// Retries a second besides. Default 3.
    pub min_per_sec: f64,
    /// Tokens in place of a share.
    pub tokens: Option<Tokens>,
}

/// gRPC's retry throttling (grpc/proposal, A6): a failure takes a token, a success gives a part of one back, and
/// retries are made while more than half of them are left.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields))]
pub struct Tokens {
    /// Tokens at the start, and the most there can be: above 0, at most 1000.
    pub max: f64,
    /// What a success gives back: above 0, at most 1000; decimals after the third are cut off.
    pub ratio: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_per_sec: 3.0,
            tokens: None,
        }
    }
}

impl BudgetSettings {
    /// Whether these settings make sense, for the policy `name`.
    ///
    /// # Errors
    /// Names the first key that does not, and refuses a budget that can never be spent.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let need = |holds: bool, key: &str, problem: &str| {
            if holds {
                Ok(())
            } else {
                Err(BuildError::new(name, &format!("retry.budget{key}"), problem))
            }
        };
        // NaN lies in no range.
        need((0.0..=1.0).contains(&self.ratio), ".ratio", "must be from 0 to 1")?;
        need(
            (0.0..=MOST_PER_SECOND).contains(&self.min_per_sec),
            ".min_per_sec",
            "must be from 0 to 1000000",
        )?;
        if let Some(Tokens { max, ratio }) = self.tokens {
            need(
                max > 0.0 && max <= MOST_TOKENS,
                ".tokens.max",
                "must be above 0 and at most 1000",
            )?;
            need(
                thousandths(ratio) > 0 && ratio <= MOST_TOKENS,
                ".tokens.ratio",
                "must be at least 0.001 and at most 1000",
            )?;
        } else {
            // Less than one retry in ten seconds is none.
            let of_time = self.min_per_sec * LENGTH.as_secs_f64();
            need(
                self.ratio > 0.0 || of_time >= 1.0,
                "",
                "can never be spent: it needs a ratio above 0 or a min_per_sec of at least 0.1",
            )?;
        }
        Ok(())
    }
}

impl Budget {
    /// At most `ratio` retries per request over ten seconds, and `min_per_second` besides. What is negative or not a
    /// number counts as zero; [`Budget::from_settings`] refuses it.
    pub fn new(ratio: f64, min_per_second: f64) -> Self {
        Self::of(BudgetSettings {
            ratio: ratio.max(0.0),
            min_per_sec: min_per_second.max(0.0),
            tokens: None,
        })
    }

    /// gRPC's retry throttling with `max` tokens, of which a success gives `ratio` back; for [`Budget::record`].
    ///
    /// # Errors
    /// See [`BudgetSettings::check`].
    pub fn tokens(max: f64, ratio: f64) -> Result<Self, BuildError> {
        Self::from_settings(
            "budget",
            BudgetSettings {
                tokens: Some(Tokens { max, ratio }),
                ..BudgetSettings::default()
            },
        )
    }

    /// The budget of these settings, for the policy `name`.
    ///
    /// # Errors
    /// See [`BudgetSettings::check`].
    pub fn from_settings(name: &str, settings: BudgetSettings) -> Result<Self, BuildError> {
        settings.check(name)?;
        Ok(Self::of(settings))
    }

    fn of(settings: BudgetSettings) -> Self {
        Self {
            inner: Arc::new(Inner {
                requests: Sharded::new(BUCKET_MILLIS),
                has_tokens: AtomicBool::new(settings.tokens.is_some()),
                tokens: AtomicU64::new(settings.tokens.map_or(0, |tokens| thousandths(tokens.max))),
                guarded: Mutex::new(Guarded {
                    settings,
                    retries: Window::new(LENGTH),
                }),
                exhausted: AtomicU64::new(0),
            }),
        }
    }

    /// Goes by other settings from now on. What was counted stays; tokens above a new maximum are lost, and a budget
    /// that had none starts with all.
    ///
    /// # Errors
    /// See [`BudgetSettings::check`]; then nothing changed.
    pub fn reload(&self, name: &str, settings: BudgetSettings) -> Result<(), BuildError> {
        settings.check(name)?;
        let mut guarded = self.lock();
        if let Some(tokens) = settings.tokens {
            let max = thousandths(tokens.max);
            if guarded.settings.tokens.is_some() {
                self.inner.tokens.fetch_min(max, Ordering::Relaxed);
            } else {
                self.inner.tokens.store(max, Ordering::Relaxed);
            }
        }
        self.inner
            .has_tokens
            .store(settings.tokens.is_some(), Ordering::Relaxed);
        guarded.settings = settings;
        Ok(())
    }

    /// Counts a request (not its retries). Takes no lock.
    #[inline]
    pub fn deposit(&self) {
        self.deposit_at(clock::coarse_millis());
    }

    /// [`Budget::deposit`] by one who knows the time on the coarse clock.
    pub(crate) fn deposit_at(&self, now: u64) {
        self.inner.requests.write(move |shard| {
            if let Some(bucket) = shard.bucket(BUCKET_MILLIS, 0, now) {
                bucket.add(0);
            }
        });
    }

    /// Says how an attempt ended, for a budget of tokens; any other takes no notice. To be told of every attempt, the
    /// first ones and the retries, before the next retry is asked for.
    pub fn record(&self, verdict: Verdict) {
        if !self.inner.has_tokens.load(Ordering::Relaxed) {
            return;
        }
        let is_failure = match verdict {
            // An answer that has begun is not repeated, however it ends.
            Verdict::Success | Verdict::Begun => false,
            Verdict::Failure(_) | Verdict::Overload { .. } => true,
            Verdict::Ignore | Verdict::LocalReject => return,
        };
        let guarded = self.lock();
        if let Some(Tokens { max, ratio }) = guarded.settings.tokens {
            let tokens = self.inner.tokens.load(Ordering::Relaxed);
            let left = if is_failure {
                tokens.saturating_sub(TOKEN)
            } else {
                (tokens + thousandths(ratio)).min(thousandths(max))
            };
            self.inner.tokens.store(left, Ordering::Relaxed);
        }
    }

    /// Takes one retry out of the budget; false when it is spent. Two callers never get the same one.
    pub fn try_withdraw(&self) -> bool {
        let now = clock::now();
        let requests = self.requests();
        let mut guarded = self.lock();
        let granted = match guarded.settings.tokens {
            Some(tokens) => self.inner.tokens.load(Ordering::Relaxed) * 2 > thousandths(tokens.max),
            None => guarded.left(requests, now) >= 1.0,
        };
        if granted {
            guarded.retries.add(now, 0);
        } else {
            self.inner.exhausted.fetch_add(1, Ordering::Relaxed);
        }
        granted
    }

    /// What was counted.
    pub fn snapshot(&self) -> BudgetSnapshot {
        let now = clock::now();
        let requests = self.requests();
        let guarded = self.lock();
        let [retries] = guarded.retries.sums(now);
        let tokens = self.inner.tokens.load(Ordering::Relaxed);
        let left = match guarded.settings.tokens {
            // Each retry takes a token once it fails, and more than half of them must be there before.
            Some(Tokens { max, .. }) => (tokens * 2).saturating_sub(thousandths(max)).div_ceil(2 * TOKEN),
            None => guarded.left(requests, now).max(0.0) as u64,
        };
        BudgetSnapshot {
            left,
            limit_ratio: guarded.settings.ratio,
            ratio: if requests == 0 {
                0.0
            } else {
                retries as f64 / requests as f64
            },
            exhausted: self.inner.exhausted.load(Ordering::Relaxed),
            tokens_left: guarded.settings.tokens.map(|_| tokens as f64 / TOKEN as f64),
        }
    }

    /// Requests of the last ten seconds.
    fn requests(&self) -> u64 {
        let [requests] = self.inner.requests.sums(0, clock::coarse_millis());
        requests
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.inner.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guarded {
    /// Retries of the share that are left.
    fn left(&self, requests: u64, now: Duration) -> f64 {
        let [retries] = self.retries.sums(now);
        let allowed = self.settings.ratio * requests as f64 + self.settings.min_per_sec * LENGTH.as_secs_f64();
        // The slack is for sums such as 0.6 * 5, which is a little under 3.
        allowed + 1e-9 - retries as f64
    }
}

fn thousandths(tokens: f64) -> u64 {
    // The slack is for figures such as 0.007, which is a little under seven thousandths.
    (tokens * TOKEN as f64 + 1e-6) as u64
}

/// Figures of a budget.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct BudgetSnapshot {
    /// Retries that could be made now, if each of them failed.
    pub left: u64,
    /// Retries per request that are allowed.
    pub limit_ratio: f64,
    /// Retries per request in the last ten seconds.
    pub ratio: f64,
    /// Retries refused since the start.
    pub exhausted: u64,
    /// Tokens left, where the budget is one of tokens.
    pub tokens_left: Option<f64>,
}
