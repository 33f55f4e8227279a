//! How many requests a verdict needs, and how long that takes at the traffic that there is: told before a canary starts.
//! Expectations, not promises; the judge does not read them.
//!
//! Evidence is kept from step to step, so that what is told of a step holds for a canary that begins there. A pass is
//! expected for a canary that is as good as the stable version is now, a fail for one that is [`WORSE`] times as bad.

use crate::analysis::{Analysis, Look, Traffic, Verdict, bound};
use crate::spec::Spec;
use opsctl_platform::{Counts, Platform};
use serde::Serialize;
use std::time::Duration;

/// A fail is forecast for so many times as many errors as the stable version has or the objective allows.
pub const WORSE: f64 = 5.0;
/// The least time that traffic is measured over.
const WINDOW: Duration = Duration::from_secs(3);
/// How long it is looked at most on a platform that counts by itself: it shows every request at once.
const SOON: Duration = Duration::from_secs(5);
/// The same where counters are scraped: two scrapes of the usual interval.
const SCRAPED: Duration = Duration::from_secs(35);
/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// Canary requests in an interval when nobody knows the traffic.
const SOME_REQUESTS: f64 = 10.0;
/// A fail that needs more intervals is none that anybody waits for.
const MOST_INTERVALS: u32 = 10_000;

/// The traffic that there is, all of it the stable version's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Present {
    /// Requests per second.
    pub requests_per_second: f64,
    /// Share of errors, 0 to 1.
    pub errors_ratio: f64,
    /// Share of answers slower than the objective, 0 to 1.
    pub slow_ratio: f64,
    /// The time that it was measured over.
    pub window_seconds: f64,
}

/// What a step would bring. Requests are the canary's; seconds are absent when the traffic is unknown or none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepForecast {
    /// Its share.
    pub percent: u8,
    /// How long it lasts at least.
    pub step_seconds: f64,
    /// Requests that it brings in that time, without those of the warm-up.
    pub requests: Option<u64>,
    /// Requests that a pass needs; absent when the stable version itself could not pass.
    pub pass_requests: Option<u64>,
    /// How long that takes.
    pub pass_seconds: Option<f64>,
    /// Requests that a fail needs.
    pub fail_requests: Option<u64>,
    /// How long that takes.
    pub fail_seconds: Option<f64>,
}

/// What every step of a canary would bring.
pub fn forecast(spec: &Spec, present: Option<&Present>) -> Vec<StepForecast> {
    let pass_requests = pass(spec, present);
    let mut warm_up = spec.warm_up;
    let steps = spec.schedule.steps.iter().map(|step| {
        let share = f64::from(step.percent) / 100.0;
        let rate = present.map(|present| present.requests_per_second * share);
        let fail_requests = fail(spec, step.percent, rate, present);
        let lost = std::mem::take(&mut warm_up);
        let takes = |requests: Option<u64>| {
            let rate = rate.filter(|rate| *rate > 0.0)?;
            Some(lost.as_secs_f64() + requests? as f64 / rate)
        };
        StepForecast {
            percent: step.percent,
            step_seconds: step.duration.as_secs_f64(),
            requests: rate.map(|rate| (rate * step.duration.saturating_sub(lost).as_secs_f64()) as u64),
            pass_requests,
            pass_seconds: takes(pass_requests),
            fail_requests,
            fail_seconds: takes(fail_requests),
        }
    });
    steps.collect()
}

/// Canary requests until every metric has passed, at the rates that the stable version has.
fn pass(spec: &Spec, present: Option<&Present>) -> Option<u64> {
    let known = |rate: fn(&Present) -> f64| present.map_or(0.0, rate);
    let errors = bound::requests_expected(
        spec.errors_allowed_ratio,
        known(|present| present.errors_ratio),
        spec.settings.pass_alpha,
    );
    let slow = spec.slow_allowed_ratio.map(|allowed| {
        bound::requests_expected(allowed, known(|present| present.slow_ratio), spec.settings.pass_alpha)
    });
    Some(errors?.max(slow.unwrap_or(Some(0))?))
}

/// Canary requests until a canary fails whose errors are [`WORSE`]: the judge itself is shown them.
fn fail(spec: &Spec, percent: u8, rate: Option<f64>, present: Option<&Present>) -> Option<u64> {
    let stable_ratio = present.map_or(0.0, |present| present.errors_ratio);
    let ratio = (WORSE * stable_ratio.max(spec.errors_allowed_ratio)).min(1.0);
    if ratio <= 0.0 {
        return None;
    }
    let requests = rate
        .map(|rate| rate * spec.interval.as_secs_f64())
        .filter(|requests| *requests > 0.0)
        .unwrap_or(SOME_REQUESTS)
        // Intervals without a request tell nothing.
        .max(1.0);
    let of_stable = requests * f64::from(100 - percent) / f64::from(percent);
    let mut analysis = Analysis::new(spec.settings, spec.errors_allowed_ratio, None);
    let (mut canary, mut stable) = (Whole::default(), Whole::default());
    for _ in 0..MOST_INTERVALS {
        analysis.add(Look {
            canary: canary.next(requests, ratio),
            stable: stable.next(of_stable, stable_ratio),
        });
        if analysis.verdict() == Verdict::Fail {
            return Some(analysis.canary_requests());
        }
    }
    None
}

/// Turns what is expected of each interval into whole requests.
#[derive(Debug, Default)]
struct Whole {
    requests: f64,
    errors: f64,
    told: Traffic,
}

impl Whole {
    fn next(&mut self, requests: f64, ratio: f64) -> Traffic {
        self.requests += requests;
        self.errors += requests * ratio;
        let now = Traffic {
            requests: self.requests as u64,
            errors: self.errors as u64,
            slow: 0,
        };
        let before = std::mem::replace(&mut self.told, now);
        Traffic {
            requests: now.requests - before.requests,
            errors: now.errors - before.errors,
            slow: 0,
        }
    }
}

/// Measures the traffic of a version for a few seconds; for as long as two scrapes are apart where counters are scraped.
/// Absent when nobody can tell.
pub async fn measure(platform: &dyn Platform, service: &str, version: &str) -> Option<Present> {
    let pause = platform.pace().max(POLL);
    let limit = if platform.pace().is_zero() { SOON } else { SCRAPED };
    let began = tokio::time::Instant::now();
    // From one change to another: what is scraped stands still between.
    let mut last: Option<Counts> = None;
    let mut first: Option<(jiff::Timestamp, Counts)> = None;
    loop {
        let traffic = platform.traffic(service).await.ok();
        if traffic.is_none() && last.is_none() {
            return None;
        }
        if let Some(traffic) = traffic {
            let now = traffic.version(version);
            let changed = last.as_ref().is_some_and(|last| last.requests != now.requests);
            if changed {
                let (at, from) = first.get_or_insert((traffic.at, now));
                let window = traffic.at.duration_since(*at).as_secs_f64();
                if window >= WINDOW.as_secs_f64() {
                    return present(*from, now, window);
                }
            }
            last = Some(now);
        }
        if began.elapsed() >= limit {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    // Counters that never moved: there is no traffic. Those that moved once: nobody can tell how fast.
    let still = first.is_none().then_some(Present {
        requests_per_second: 0.0,
        errors_ratio: 0.0,
        slow_ratio: 0.0,
        window_seconds: limit.as_secs_f64(),
    });
    still.filter(|_| last.is_some())
}

fn present(from: Counts, to: Counts, window: f64) -> Option<Present> {
    let requests = to
        .requests
        .checked_sub(from.requests)
        .filter(|requests| *requests > 0)? as f64;
    let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / requests;
    Some(Present {
        requests_per_second: requests / window,
        errors_ratio: share(from.errors, to.errors).min(1.0),
        slow_ratio: share(from.over_objective, to.over_objective).min(1.0),
        window_seconds: window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opsctl_platform::{Objectives, VersionSpec};

    fn spec(steps: &str) -> Spec {
        let version = VersionSpec {
            version: "v2".to_owned(),
            command: Vec::new(),
            image: None,
            env: std::collections::BTreeMap::new(),
            replicas: 1,
        };
        let objectives = Objectives {
            availability_ratio: Some(0.99),
            latency_seconds: None,
            latency_ratio: None,
        };
        let schedule = steps.parse().expect("steps");
        Spec::new("orders", "v1", version, schedule, &objectives).looking_every(Duration::from_secs(10))
    }

    fn present(requests_per_second: f64, errors_ratio: f64) -> Present {
        Present {
            requests_per_second,
            errors_ratio,
            slow_ratio: 0.0,
            window_seconds: 3.0,
        }
    }

    #[test]
    fn requests_become_time_at_the_present_traffic() {
        let steps = forecast(&spec("10:15m,50:15m,100"), Some(&present(100.0, 0.0)));
        let pass = steps[0].pass_requests.expect("it can pass");
        assert!((360..=380).contains(&pass), "{pass}");
        // 10 a second after a warm-up of 10 s; then 50 a second.
        let close = |seconds: Option<f64>, expected: f64| (seconds.expect("a time") - expected).abs() < 1e-9;
        assert!(close(steps[0].pass_seconds, 10.0 + pass as f64 / 10.0));
        assert!(close(steps[1].pass_seconds, pass as f64 / 50.0));
        assert_eq!(steps[0].requests, Some(8_900));
        assert_eq!(steps[1].requests, Some(45_000));
    }

    #[test]
    fn errors_of_the_stable_version_make_a_pass_dearer() {
        let of = |ratio: f64| forecast(&spec("10:15m,100"), Some(&present(100.0, ratio)))[0].pass_requests;
        assert!(of(0.003) > of(0.0));
        // As bad as allowed: by comparison, which needs about ten errors.
        let by_odds = of(0.01).expect("it can pass");
        assert!((900..=1100).contains(&by_odds), "{by_odds}");
    }

    #[test]
    fn a_fail_needs_what_the_judge_needs() {
        // Five errors in a hundred against none: about 80 by simulation.
        let fail = forecast(&spec("10:15m,100"), Some(&present(10.0, 0.0)))[0].fail_requests;
        assert!((40..=160).contains(&fail.expect("it fails")), "{fail:?}");
        // One in a hundred there: the same share of errors tells less.
        let more = forecast(&spec("10:15m,100"), Some(&present(10.0, 0.01)))[0].fail_requests;
        assert!(more > fail, "{more:?}");
    }

    #[test]
    fn without_traffic_requests_are_known_and_times_are_not() {
        for known in [None, Some(present(0.0, 0.0))] {
            let step = forecast(&spec("10:15m,100"), known.as_ref())[0];
            assert!(step.pass_requests.is_some() && step.fail_requests.is_some());
            assert_eq!((step.pass_seconds, step.fail_seconds), (None, None));
        }
        assert_eq!(forecast(&spec("10:15m,100"), None)[0].requests, None);
    }
}
