//! Load shedding of a server: when there is too much to do, what matters least is refused first. It decides by how many
//! requests are inside; there is no queue here, as what waits in one grows old.
//!
//! Each priority may use a share of the limit. Low requests come in while half of it is free, critical ones while
//! anything is: so every step towards overload costs the next lower priority, and what is critical has places left to
//! itself. Sources: failsafe-go `priority`, Netflix `AbstractPartitionedLimiter`, here without a part that is set aside
//! for the low, since a server that cannot serve what is critical serves nobody.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::adaptive::{AdaptiveLimit, AdaptiveSettings, Token};
use crate::error::{BuildError, By, Rejected};
use crate::gate::MAX_LIMIT;
use crate::verdict::Verdict;

/// How much a request matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Without it nothing works: health checks, payments that are under way.
    Critical,
    /// A user waits for it.
    High,
    /// Anything that does not say.
    #[default]
    Normal,
    /// It can come later: batches, prefetching, crawlers.
    Low,
}

impl Priority {
    /// All, from what matters most.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The name in headers, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl From<u8> for Priority {
    /// 0 is critical, 1 high, 2 normal, everything above low.
    fn from(level: u8) -> Self {
        Self::ALL.get(usize::from(level)).copied().unwrap_or(Self::Low)
    }
}

/// The text is neither the name nor the number of a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a priority is critical, high, normal, low or a number from 0 to 255")]
pub struct NoPriority;

impl FromStr for Priority {
    type Err = NoPriority;

    /// A name in any case, or a number as in [`Priority::from`].
    fn from_str(text: &str) -> Result<Self, NoPriority> {
        let text = text.trim();
        let named = Self::ALL
            .into_iter()
            .find(|priority| text.eq_ignore_ascii_case(priority.as_str()));
        named
            .or_else(|| text.parse::<u8>().ok().map(Self::from))
            .ok_or(NoPriority)
    }
}

/// What part of the limit each priority may use, in (0, 1]. None may have more than one that matters more.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct Shares {
    /// 1.
    pub critical: f64,
    /// 0.9.
    pub high: f64,
    /// 0.8.
    pub normal: f64,
    /// 0.5.
    pub low: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            critical: 1.0,
            high: 0.9,
            normal: 0.8,
            low: 0.5,
        }
    }
}

impl Shares {
    const fn all(&self) -> [f64; 4] {
        [self.critical, self.high, self.normal, self.low]
    }
}

/// How much is too much, and for whom. By default nothing is: nobody is refused until a limit is set.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct ShedSettings {
    /// A fixed limit on requests at one time.
    pub limit: Option<usize>,
    /// Or one that finds itself by the latency of the answers.
    pub adaptive: Option<AdaptiveSettings>,
    /// Who may use what part of it.
    pub shares: Shares,
    /// When a refused client may come again: 1 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub retry_after: Duration,
}

impl Default for ShedSettings {
    fn default() -> Self {
        Self {
            limit: None,
            adaptive: None,
            shares: Shares::default(),
            retry_after: Duration::from_secs(1),
        }
    }
}

impl ShedSettings {
    /// Whether they make sense, alone and together.
    ///
    /// # Errors
    /// Two limits, a limit of zero or above 2³¹ - 1, adaptive settings that make no sense, a share outside (0, 1] or
    /// above that of a higher priority, a `retry_after` of zero.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let refuse = |key: &str, problem: &str| Err(BuildError::new(name, key, problem));
        match (self.limit, &self.adaptive) {
            (Some(_), Some(_)) => return refuse("shed.limit", "must not be set beside shed.adaptive"),
            (Some(0), None) => return refuse("shed.limit", "must be at least 1"),
            (Some(limit), None) if limit > MAX_LIMIT => return refuse("shed.limit", "must be below 2147483648"),
            (None, Some(adaptive)) => adaptive.check(name)?,
            _ => {}
        }
        let mut most = 1.0;
        for (priority, share) in Priority::ALL.into_iter().zip(self.shares.all()) {
            let key = format!("shed.shares.{}", priority.as_str());
            if !(share > 0.0 && share <= 1.0) {
                return refuse(&key, "must be above 0 and at most 1");
            }
            if share > most {
                return refuse(&key, "must not be above that of a higher priority");
            }
            most = share;
        }
        if self.retry_after.is_zero() {
            return refuse("shed.retry_after", "must be above zero");
        }
        Ok(())
    }

    /// Every kind of limit as one that adapts itself within bounds, which are one number where it is fixed.
    fn base(&self) -> AdaptiveSettings {
        let limit = self.limit.unwrap_or(MAX_LIMIT);
        self.adaptive.clone().unwrap_or(AdaptiveSettings {
            initial: limit,
            min: limit,
            max: limit,
            ..AdaptiveSettings::default()
        })
    }
}

/// Lets requests into a server by their priority. Clones share.
#[derive(Debug, Clone)]
pub struct Shedder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    limit: AdaptiveLimit,
    /// The bits of an `f64` for each priority.
    shares: [AtomicU64; 4],
    retry_after_nanos: AtomicU64,
    shed: [AtomicU64; 4],
}

impl Shedder {
    /// As the settings say.
    ///
    /// # Errors
    /// Those of [`ShedSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: &ShedSettings) -> Result<Self, BuildError> {
        let name = name.into();
        settings.check(&name)?;
        let inner = Inner {
            limit: AdaptiveLimit::new(Arc::clone(&name), settings.base())?,
            name,
            shares: Default::default(),
            retry_after_nanos: AtomicU64::new(0),
            shed: Default::default(),
        };
        inner.set(settings);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Changes the settings; who is inside stays, and a limit that found itself stays as near as the new bounds allow.
    ///
    /// # Errors
    /// Those of [`ShedSettings::check`]; nothing is changed then.
    pub fn reload(&self, settings: &ShedSettings) -> Result<(), BuildError> {
        settings.check(&self.inner.name)?;
        self.inner.limit.reload(settings.base())?;
        self.inner.set(settings);
        Ok(())
    }

    /// Lets a request in, or not. It is inside until the result is dropped.
    ///
    /// # Errors
    /// When as many are inside as this priority's share of the limit is.
    pub fn admit(&self, priority: Priority) -> Result<Admission, Rejected> {
        let share = f64::from_bits(self.inner.shares[priority as usize].load(Ordering::Relaxed));
        match self.inner.limit.admit_share(share) {
            Some(token) => Ok(Admission::new(&self.inner.limit, token)),
            None => Err(self.refuse(priority)),
        }
    }

    /// What is inside, and who was refused.
    pub fn snapshot(&self) -> ShedSnapshot {
        let base = self.inner.limit.snapshot();
        let counts = self.inner.shed.iter().map(|count| count.load(Ordering::Relaxed));
        ShedSnapshot {
            limit: (base.limit < MAX_LIMIT).then_some(base.limit),
            in_flight: base.in_flight,
            shed: Priority::ALL.into_iter().map(Priority::as_str).zip(counts).collect(),
        }
    }

    fn refuse(&self, priority: Priority) -> Rejected {
        self.inner.shed[priority as usize].fetch_add(1, Ordering::Relaxed);
        Rejected {
            by: By::Shed,
            name: Arc::clone(&self.inner.name),
            retry_after: Some(Duration::from_nanos(
                self.inner.retry_after_nanos.load(Ordering::Relaxed),
            )),
        }
    }
}

impl Inner {
    fn set(&self, settings: &ShedSettings) {
        for (known, share) in self.shares.iter().zip(settings.shares.all()) {
            known.store(share.to_bits(), Ordering::Relaxed);
        }
        let nanos = u64::try_from(settings.retry_after.as_nanos()).unwrap_or(u64::MAX);
        self.retry_after_nanos.store(nanos, Ordering::Relaxed);
    }
}

/// A request inside. It counts until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    limit: AdaptiveLimit,
    token: Token,
    answered: bool,
}

impl Admission {
    pub(crate) fn new(limit: &AdaptiveLimit, token: Token) -> Self {
        Self {
            limit: limit.clone(),
            token,
            answered: false,
        }
    }

    /// The answer begins now. A limit that finds itself goes by this latency; the body that may follow takes as long as
    /// the client reads. Only the first call counts, and none does for a request that was cancelled.
    pub fn answered(&mut self, verdict: Verdict) {
        if !std::mem::replace(&mut self.answered, true) {
            self.limit.measure(self.token, verdict);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limit.leave();
    }
}

/// Figures of a shedder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShedSnapshot {
    /// The limit now, for critical requests; none when it is off.
    pub limit: Option<usize>,
    /// Requests inside.
    pub in_flight: usize,
    /// Requests refused since the start, of every priority.
    pub shed: BTreeMap<&'static str, u64>,
}
