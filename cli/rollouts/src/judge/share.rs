//! Whether the canary really gets the share of the traffic that it was given. Granting it is not done here.

use serde::{Deserialize, Serialize};

/// Standard deviations that the observed share may be away.
const DEVIATIONS: f64 = 4.0;
/// Requests that may be on their way when the counting begins or ends.
const SLACK: f64 = 5.0;

/// Requests of both versions since a share was granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    percent: u8,
    canary: u64,
    total: u64,
}

impl Share {
    /// Counts from zero for a share of `percent`.
    pub fn of(percent: u8) -> Self {
        Self {
            percent,
            ..Self::default()
        }
    }

    /// Takes in requests of both.
    pub fn add(&mut self, canary: u64, stable: u64) {
        self.canary = self.canary.saturating_add(canary);
        self.total = self.total.saturating_add(canary).saturating_add(stable);
    }

    /// Requests of the canary.
    pub fn requests(&self) -> u64 {
        self.canary
    }

    /// The share granted, in percent.
    pub fn percent(&self) -> u8 {
        self.percent
    }

    /// The share observed, 0 to 1; absent without requests.
    pub fn observed(&self) -> Option<f64> {
        (self.total > 0).then(|| self.canary as f64 / self.total as f64)
    }

    /// Between which shares (0 to 1) the observed one is believed: the binomial interval of so many requests.
    pub fn interval(&self) -> Option<(f64, f64)> {
        if self.total == 0 {
            return None;
        }
        let (n, p) = (self.total as f64, f64::from(self.percent) / 100.0);
        let reach = DEVIATIONS * (n * p * (1.0 - p)).sqrt() + SLACK;
        Some(((p - reach / n).max(0.0), (p + reach / n).min(1.0)))
    }

    /// True when the share observed cannot be the one granted.
    pub fn refuted(&self) -> bool {
        match (self.observed(), self.interval()) {
            (Some(observed), Some((low, high))) => observed < low || observed > high,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_believed_within_its_interval() {
        let mut share = Share::of(10);
        assert!(!share.refuted() && share.observed().is_none());
        share.add(100, 900);
        assert!(!share.refuted());
        share.add(0, 1000);
        assert!(share.refuted(), "5 % of 2000 is not 10 %");
    }

    #[test]
    fn a_canary_without_requests_is_refuted_only_by_many() {
        let mut share = Share::of(1);
        share.add(0, 100);
        assert!(!share.refuted());
        share.add(0, 10_000);
        assert!(share.refuted());
    }
}
