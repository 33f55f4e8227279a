//! What was counted in a stretch of time, and whether it kept the objectives. Pure; nothing is measured here.

use opsctl_platform::Objectives;
pub use opsctl_platform::run::Verdict;
use serde::{Deserialize, Serialize};

/// Requests of a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests that ended.
    pub requests: u64,
    /// Errors among them.
    pub errors: u64,
    /// Answers slower than the latency objective.
    pub slow: u64,
}

impl Figures {
    /// The figures since an earlier reading; everything when the counters began anew since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        if self.requests < before.requests || self.errors < before.errors || self.slow < before.slow {
            return self;
        }
        Self {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            slow: self.slow - before.slow,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            errors: self.errors + other.errors,
            slow: self.slow + other.slow,
        }
    }

    /// Share of errors; absent without requests.
    pub fn error_ratio(self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 / self.requests as f64)
    }

    /// Share of slow answers; absent without requests.
    pub fn slow_ratio(self) -> Option<f64> {
        (self.requests > 0).then(|| self.slow as f64 / self.requests as f64)
    }
}

/// One named expectation and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was expected to hold, such as `availability (probe)`.
    pub name: String,
    /// The expected value, in words.
    pub expected: String,
    /// The value observed, in words.
    pub observed: String,
    /// Met, not met, or not known.
    pub met: Option<bool>,
}

/// Checks the figures of one kind of requests (`who`: `clients` or `probe`) against the objectives. No requests, no checks.
pub fn check_objectives(who: &str, figures: Figures, objectives: &Objectives) -> Vec<Check> {
    let mut checks: Vec<Check> = check_availability(who, figures, objectives).into_iter().collect();
    if figures.requests == 0 {
        return checks;
    }
    if let (Some(limit), Some(ratio)) = (objectives.latency_seconds, objectives.latency_ratio) {
        let seen = 1.0 - figures.slow_ratio().unwrap_or(0.0);
        checks.push(Check {
            name: format!("latency ({who})"),
            expected: format!("{} within {}", percent(ratio), duration(limit)),
            observed: format!(
                "{}, {} of {} were slower",
                percent(seen),
                figures.slow,
                figures.requests
            ),
            met: Some(seen >= ratio - 1e-12),
        });
    }
    checks
}

/// Of the objectives, whether requests succeeded: what is asked of a service that may be slow.
pub fn check_availability(who: &str, figures: Figures, objectives: &Objectives) -> Option<Check> {
    let availability = objectives.availability_ratio?;
    let seen = 1.0 - figures.error_ratio()?;
    Some(Check {
        name: format!("availability ({who})"),
        expected: format!("at least {}", percent(availability)),
        observed: format!("{}, {} of {} failed", percent(seen), figures.errors, figures.requests),
        met: Some(seen >= availability - 1e-12),
    })
}

/// The verdict over named expectations: a failed one fails all, an unknown one leaves it open, none says nothing.
pub fn verdict(checks: &[Check]) -> Verdict {
    if checks.iter().any(|check| check.met == Some(false)) {
        Verdict::Fail
    } else if checks.is_empty() || checks.iter().any(|check| check.met.is_none()) {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    }
}

/// A ratio in percent with as many decimals as it needs to differ from 100 %.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if (percent - percent.round()).abs() < 1e-9 {
        format!("{percent:.0} %")
    } else if percent > 99.0 {
        format!("{percent:.3} %")
    } else {
        format!("{percent:.2} %")
    }
}

/// A duration in the unit that reads best.
pub fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.1} min", seconds / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objectives() -> Objectives {
        Objectives {
            availability_ratio: Some(0.99),
            latency_seconds: Some(0.3),
            latency_ratio: Some(0.95),
        }
    }

    fn figures(requests: u64, errors: u64, slow: u64) -> Figures {
        Figures { requests, errors, slow }
    }

    #[test]
    fn objectives_are_kept_up_to_and_including_their_bound() {
        let checks = check_objectives("probe", figures(100, 1, 5), &objectives());
        assert!(checks.iter().all(|check| check.met == Some(true)), "{checks:?}");
        let checks = check_objectives("probe", figures(100, 2, 6), &objectives());
        assert!(checks.iter().all(|check| check.met == Some(false)), "{checks:?}");
        assert_eq!(checks[0].observed, "98 %, 2 of 100 failed");
    }

    #[test]
    fn nothing_seen_is_nothing_known() {
        assert!(check_objectives("clients", figures(0, 0, 0), &objectives()).is_empty());
        assert_eq!(verdict(&[]), Verdict::Inconclusive);
    }

    #[test]
    fn counters_that_began_anew_count_from_zero() {
        assert_eq!(figures(5, 0, 0).since(figures(100, 3, 0)), figures(5, 0, 0));
        assert_eq!(figures(105, 3, 1).since(figures(100, 3, 0)), figures(5, 0, 1));
    }
}
