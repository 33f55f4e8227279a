//! What the counts prove about a canary: fail, pass, or not enough known. Pure: counts in, evidence and verdict out.
//! It neither fetches counts nor acts on a verdict.
//!
//! Each metric (errors; answers slower than the objective) is counted per interval for the canary and for the stable
//! version that ran beside it. Three statements are tested, each valid at every look:
//! - *worse*: odds ratio above 1.5 ([`OddsProcess::worse`]), α = 0.01 shared by the metrics (Bonferroni), bad answers in at
//!   least three intervals unless the evidence is overwhelming (e ≥ 100,000);
//! - *not twice as bad*: odds ratio below 2 ([`OddsProcess::not_twice_as_bad`]), α = 0.05;
//! - *meets its objective* ([`bound`]), α = 0.05.
//!
//! A pass needs one of the last two for **every** metric, which is why their α needs no sharing. The state is a few
//! numbers, serialisable, and goes on where it stopped.

pub mod bound;
pub mod counters;
mod hypergeometric;
mod odds;

pub use odds::{FAIL_NULL, OddsProcess, PASS_NULL};

pub use opsctl_platform::run::Verdict;
use serde::{Deserialize, Serialize};

/// What an answer can be bad at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// It was an error.
    Errors,
    /// It took longer than the objective.
    Latency,
}

impl MetricKind {
    /// The word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
        }
    }
}

/// Requests of one version and how many of them were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// All requests.
    pub requests: u64,
    /// Bad ones among them; never more than `requests`.
    pub bad: u64,
}

impl Arm {
    /// An arm with no more bad answers than answers, whatever was counted.
    pub fn new(requests: u64, bad: u64) -> Self {
        Self {
            requests: requests.max(bad),
            bad,
        }
    }

    /// Share of bad answers, absent without requests.
    pub fn ratio(self) -> Option<f64> {
        (self.requests > 0).then(|| self.bad as f64 / self.requests as f64)
    }

    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bad = self.bad.saturating_add(other.bad);
    }
}

/// One metric in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interval {
    /// The canary.
    pub canary: Arm,
    /// The stable version in the same interval.
    pub stable: Arm,
}

/// What one version did in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests that ended.
    pub requests: u64,
    /// Errors among them.
    pub errors: u64,
    /// Requests slower than the latency objective.
    pub slow: u64,
}

/// One interval: what canary and stable did side by side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The canary.
    pub canary: Traffic,
    /// The stable version.
    pub stable: Traffic,
}

impl Look {
    fn interval(self, kind: MetricKind) -> Interval {
        let arm = |traffic: Traffic| match kind {
            MetricKind::Errors => Arm::new(traffic.requests, traffic.errors),
            MetricKind::Latency => Arm::new(traffic.requests, traffic.slow),
        };
        Interval {
            canary: arm(self.canary),
            stable: arm(self.stable),
        }
    }
}

/// Levels and limits of the judgement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Chance of failing a canary that is not worse, over all metrics and all looks.
    pub fail_alpha: f64,
    /// Chance of passing a canary whose statement is untrue.
    pub pass_alpha: f64,
    /// Intervals in which the canary must have had bad answers before it fails.
    pub fail_intervals: u32,
    /// Evidence that fails it at once.
    pub fast_path: f64,
    /// Consecutive intervals that may be missing before nothing can be said any more.
    pub gap_limit: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fail_alpha: 0.01,
            pass_alpha: 0.05,
            fail_intervals: 3,
            fast_path: 1e5,
            gap_limit: 3,
        }
    }
}

/// The running state of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Metric {
    kind: MetricKind,
    /// Ratio of bad answers that the objective allows.
    allowed: f64,
    worse: OddsProcess,
    not_twice_as_bad: OddsProcess,
    /// Intervals in which the canary had a bad answer.
    bad_intervals: u32,
    canary: Arm,
    stable: Arm,
}

/// The judgement of one canary, from its first interval to now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    settings: Settings,
    metrics: Vec<Metric>,
    looks: u64,
    skipped: u64,
    missing_in_a_row: u32,
}

/// What is known of one metric, for reports. Numbers are finite; what is not known is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricEvidence {
    /// Which metric.
    pub metric: MetricKind,
    /// Ratio of bad answers that the objective allows.
    pub allowed_ratio: f64,
    /// The canary's totals.
    pub canary: Arm,
    /// The stable version's totals over the same intervals.
    pub stable: Arm,
    /// Share of bad answers of the canary.
    pub canary_ratio: Option<f64>,
    /// Share of bad answers of the stable version.
    pub stable_ratio: Option<f64>,
    /// `ln e` that the canary is worse than odds ratio 1.5.
    pub worse_ln_e: f64,
    /// `ln e` at which it fails.
    pub worse_threshold_ln_e: f64,
    /// Intervals in which the canary had bad answers.
    pub bad_intervals: u32,
    /// `ln e` that the canary is better than odds ratio 2.
    pub not_twice_as_bad_ln_e: f64,
    /// `ln e` that the canary's own ratio is under the allowed one.
    pub under_objective_ln_e: f64,
    /// `ln e` at which either of the last two passes.
    pub pass_threshold_ln_e: f64,
    /// The canary's ratio is at most this, with confidence `1 - pass_alpha`.
    pub upper_bound_ratio: f64,
    /// What this metric says by itself.
    pub verdict: Verdict,
    /// About how many more canary requests a pass needs if it goes on like this; absent when unknown or passed.
    pub more_requests_needed: Option<u64>,
}

/// Everything known, for reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The verdict over all metrics.
    pub verdict: Verdict,
    /// One line each: why the verdict is what it is.
    pub reasons: Vec<String>,
    /// Intervals taken in.
    pub looks: u64,
    /// Intervals missing or unusable.
    pub skipped: u64,
    /// One for each metric.
    pub metrics: Vec<MetricEvidence>,
    /// About how many more canary requests a pass needs.
    pub more_requests_needed: Option<u64>,
}

impl Analysis {
    /// Begins a judgement. `errors_allowed` and `slow_allowed` are ratios (99.9 % availability allows 0.001; a p95
    /// objective allows 0.05 to be slower); without a latency objective only errors are judged.
    pub fn new(settings: Settings, errors_allowed: f64, slow_allowed: Option<f64>) -> Self {
        let metric = |kind, allowed: f64| Metric {
            kind,
            allowed: if allowed.is_finite() {
                allowed.clamp(0.0, 1.0)
            } else {
                0.0
            },
            worse: OddsProcess::worse(),
            not_twice_as_bad: OddsProcess::not_twice_as_bad(),
            bad_intervals: 0,
            canary: Arm::default(),
            stable: Arm::default(),
        };
        let mut metrics = vec![metric(MetricKind::Errors, errors_allowed)];
        metrics.extend(slow_allowed.map(|allowed| metric(MetricKind::Latency, allowed)));
        Self {
            settings,
            metrics,
            looks: 0,
            skipped: 0,
            missing_in_a_row: 0,
        }
    }

    /// Takes in one interval.
    pub fn add(&mut self, look: Look) {
        self.looks += 1;
        self.missing_in_a_row = 0;
        for metric in &mut self.metrics {
            let interval = look.interval(metric.kind);
            metric.worse.add(interval);
            metric.not_twice_as_bad.add(interval);
            metric.canary.add(interval.canary);
            metric.stable.add(interval.stable);
            metric.bad_intervals += u32::from(interval.canary.bad > 0);
        }
    }

    /// Notes that `intervals` of them are missing: they count for nothing but the gap.
    pub fn miss(&mut self, intervals: u32) {
        self.skipped += u64::from(intervals);
        self.missing_in_a_row = self.missing_in_a_row.saturating_add(intervals);
    }

    /// Levels and limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Canary requests taken in so far.
    pub fn canary_requests(&self) -> u64 {
        self.metrics[0].canary.requests
    }

    /// The verdict now.
    pub fn verdict(&self) -> Verdict {
        let each: Vec<Verdict> = self.metrics.iter().map(|m| self.verdict_of(m)).collect();
        if each.contains(&Verdict::Fail) {
            Verdict::Fail
        } else if self.missing_in_a_row > self.settings.gap_limit {
            Verdict::Inconclusive
        } else if each.iter().all(|v| *v == Verdict::Pass) {
            Verdict::Pass
        } else {
            Verdict::Inconclusive
        }
    }

    /// True when a state that was read back can be gone on with.
    pub fn is_sound(&self) -> bool {
        !self.metrics.is_empty()
            && self
                .metrics
                .iter()
                .all(|m| m.worse.is_sound() && m.not_twice_as_bad.is_sound())
    }

    /// Everything known now, with reasons in words.
    pub fn evidence(&self) -> Evidence {
        let verdict = self.verdict();
        let metrics: Vec<MetricEvidence> = self.metrics.iter().map(|m| self.evidence_of(m)).collect();
        let mut reasons: Vec<String> = metrics.iter().filter_map(|m| reason(m, verdict)).collect();
        if self.canary_requests() == 0 {
            reasons = vec!["the canary had no requests".to_owned()];
        } else if verdict != Verdict::Fail && self.missing_in_a_row > self.settings.gap_limit {
            reasons.insert(0, format!("no data for {} intervals", self.missing_in_a_row));
        }
        let more = if verdict == Verdict::Inconclusive {
            metrics
                .iter()
                .filter(|m| m.verdict != Verdict::Pass)
                .map(|m| m.more_requests_needed)
                .collect::<Option<Vec<u64>>>()
                .and_then(|needs| needs.into_iter().max())
        } else {
            None
        };
        Evidence {
            verdict,
            reasons,
            looks: self.looks,
            skipped: self.skipped,
            metrics,
            more_requests_needed: more,
        }
    }

    fn fail_threshold(&self) -> f64 {
        (self.metrics.len() as f64 / self.settings.fail_alpha).ln()
    }

    fn pass_threshold(&self) -> f64 {
        -self.settings.pass_alpha.ln()
    }

    fn verdict_of(&self, metric: &Metric) -> Verdict {
        let worse = metric.worse.ln_e();
        let sustained = metric.bad_intervals >= self.settings.fail_intervals;
        if worse >= self.settings.fast_path.ln() || (sustained && worse >= self.fail_threshold()) {
            return Verdict::Fail;
        }
        let under = bound::ln_evidence_under(metric.allowed, metric.canary.requests, metric.canary.bad);
        if metric.canary.requests > 0 && under.max(metric.not_twice_as_bad.ln_e()) >= self.pass_threshold() {
            return Verdict::Pass;
        }
        Verdict::Inconclusive
    }

    fn evidence_of(&self, metric: &Metric) -> MetricEvidence {
        let Arm { requests, bad } = metric.canary;
        let alpha = self.settings.pass_alpha;
        let verdict = self.verdict_of(metric);
        MetricEvidence {
            metric: metric.kind,
            allowed_ratio: metric.allowed,
            canary: metric.canary,
            stable: metric.stable,
            canary_ratio: metric.canary.ratio(),
            stable_ratio: metric.stable.ratio(),
            worse_ln_e: metric.worse.ln_e(),
            worse_threshold_ln_e: self.fail_threshold(),
            bad_intervals: metric.bad_intervals,
            not_twice_as_bad_ln_e: metric.not_twice_as_bad.ln_e(),
            under_objective_ln_e: bound::ln_evidence_under(metric.allowed, requests, bad),
            pass_threshold_ln_e: self.pass_threshold(),
            upper_bound_ratio: bound::upper_bound(requests, bad, alpha),
            verdict,
            more_requests_needed: (verdict == Verdict::Inconclusive)
                .then(|| more_requests_needed(metric, alpha))
                .flatten(),
        }
    }
}

/// The cheaper of the two ways to a pass, supposing that the canary goes on as it did.
fn more_requests_needed(metric: &Metric, alpha: f64) -> Option<u64> {
    let Arm { requests, bad } = metric.canary;
    let rate = metric.canary.ratio().unwrap_or(0.0);
    // Under the objective: only a hope while the rate seen is clearly below it.
    let by_bound = (rate < 0.7 * metric.allowed || bad <= 2)
        .then(|| bound::requests_needed(metric.allowed, bad, alpha))
        .flatten();
    // Compared with stable: about ten bad answers are needed at equal rates.
    let by_odds = (bad > 0).then(|| (bound::BAD_FOR_ODDS / rate).ceil() as u64);
    let total = match (by_bound, by_odds) {
        (Some(a), Some(b)) if b > requests => a.min(b),
        (Some(a), _) => a,
        (None, b) => b?,
    };
    Some(total.saturating_sub(requests).max(1))
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "no data".to_owned(), |r| format!("{:.2} %", r * 100.0))
}

fn reason(m: &MetricEvidence, verdict: Verdict) -> Option<String> {
    let name = match m.metric {
        MetricKind::Errors => "errors",
        MetricKind::Latency => "slow answers",
    };
    let counts = format!(
        "{name}: canary {} of {} ({}), stable {} of {} ({})",
        m.canary.bad,
        m.canary.requests,
        percent(m.canary_ratio),
        m.stable.bad,
        m.stable.requests,
        percent(m.stable_ratio),
    );
    match (verdict, m.verdict) {
        (Verdict::Fail, Verdict::Fail) => Some(format!(
            "{counts}; worse than stable, evidence {} against a threshold of {}",
            odds(m.worse_ln_e),
            odds(m.worse_threshold_ln_e),
        )),
        (Verdict::Fail, _) => None,
        (_, Verdict::Pass) if m.under_objective_ln_e >= m.pass_threshold_ln_e => Some(format!(
            "{counts}; at most {} with 95 % confidence, {} are allowed",
            percent(Some(m.upper_bound_ratio)),
            percent(Some(m.allowed_ratio)),
        )),
        (_, Verdict::Pass) => Some(format!(
            "{counts}; not twice as bad as stable, evidence {} against a threshold of {}",
            odds(m.not_twice_as_bad_ln_e),
            odds(m.pass_threshold_ln_e),
        )),
        (_, _) => Some(match m.more_requests_needed {
            Some(more) => format!("{counts}; needs about {more} more canary requests"),
            None => format!("{counts}; not enough to decide"),
        }),
    }
}

/// An e-value in words, from its logarithm.
fn odds(ln_e: f64) -> String {
    if ln_e > 13.0 {
        format!("10^{:.0}", ln_e / std::f64::consts::LN_10)
    } else {
        format!("{:.1}", ln_e.exp())
    }
}
