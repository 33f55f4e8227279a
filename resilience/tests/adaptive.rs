//! The limit that finds itself, against simulated servers in virtual time. In the spirit of Netflix concurrency-limits'
//! `AIMDLimitTest`, `VegasLimitTest` and its reported faults, and of Envoy's #38338, written afresh.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use proptest::prelude::*;
use resilience::{AdaptiveLimit, AdaptiveSettings, By, Kind, Sample, Verdict};
use tokio::time::{Instant, advance};

const OVERLOAD: Verdict = Verdict::Overload { hint: None };
const TIMEOUT: Verdict = Verdict::Failure(Kind::Timeout);
/// Two of these make a window. Shorter ones would make more calls in the same windows, and show nothing else.
const BASE: Duration = Duration::from_millis(50);

fn limit(settings: AdaptiveSettings) -> AdaptiveLimit {
    AdaptiveLimit::new("l", settings).unwrap()
}

/// `workers` calls at one time take `base` each, the others queue in front of them. It is idle between two answers, so a
/// minute of it costs as many steps as there are moments at which something is answered.
struct Server {
    free: BinaryHeap<Reverse<Instant>>,
    base: Duration,
    /// Every so many calls one times out instead.
    timeouts: Option<usize>,
    /// By the moment of their answers, with their numbers.
    inside: BTreeMap<Instant, Vec<(usize, Sample)>>,
    calls: usize,
}

impl Server {
    fn new(workers: usize, base: Duration) -> Self {
        Self {
            free: vec![Reverse(Instant::now()); workers].into(),
            base,
            timeouts: None,
            inside: BTreeMap::new(),
            calls: 0,
        }
    }

    /// Callers that keep up to `demand` calls inside, for `length`.
    async fn run(&mut self, limit: &AdaptiveLimit, demand: usize, length: Duration) {
        let stop = Instant::now() + length;
        let mut inside: usize = self.inside.values().map(Vec::len).sum();
        loop {
            let now = Instant::now();
            while let Some(entry) = self.inside.first_entry().filter(|entry| *entry.key() <= now) {
                for (number, sample) in entry.remove() {
                    let timed_out = self.timeouts.is_some_and(|every| number % every == 0);
                    sample.record(if timed_out { TIMEOUT } else { Verdict::Success });
                    inside -= 1;
                }
            }
            while inside < demand {
                let Ok(sample) = limit.acquire() else { break };
                let begin = self.free.pop().unwrap().0.max(now);
                let end = begin + self.base;
                self.free.push(Reverse(end));
                self.calls += 1;
                inside += 1;
                self.inside.entry(end).or_default().push((self.calls, sample));
            }
            let next = self.inside.keys().next().map_or(stop, |next| stop.min(*next));
            if next <= now {
                return;
            }
            advance(next - now).await;
        }
    }
}

/// The limit outside of the short times at which it is halved to measure.
async fn settled(limit: &AdaptiveLimit, server: &mut Server) -> usize {
    let now = limit.snapshot().limit;
    server.run(limit, 1_000, Duration::from_millis(300)).await;
    now.max(limit.snapshot().limit)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn what_is_above_the_limit_is_refused() {
    let limit = limit(AdaptiveSettings::default());
    let samples: Vec<_> = (0..20).map(|_| limit.acquire().unwrap()).collect();
    let refused = limit.acquire().unwrap_err();
    assert_eq!((refused.by, &*refused.name), (By::ConcurrencyLimit, "l"));
    let snapshot = limit.snapshot();
    assert_eq!((snapshot.limit, snapshot.in_flight, snapshot.rejected), (20, 20, 1));
    drop(samples);
    assert_eq!(limit.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn steady_latency_raises_the_limit_to_its_top() {
    let limit = limit(AdaptiveSettings::default());
    Server::new(1_000, BASE).run(&limit, 1_000, MINUTE).await;
    assert_eq!(limit.snapshot().limit, 200);
    assert_eq!(limit.snapshot().usual_latency, Some(BASE));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_used_does_not_rise() {
    let limit = limit(AdaptiveSettings::default());
    Server::new(1_000, BASE).run(&limit, 9, MINUTE).await;
    assert_eq!(limit.snapshot().limit, 20);
}

#[tokio::test(start_paused = true)]
async fn the_capacity_is_found_and_kept() {
    for workers in [30, 60, 110] {
        let limit = limit(AdaptiveSettings::default());
        let mut server = Server::new(workers, BASE);
        for minute in 1..=4 {
            server.run(&limit, 1_000, MINUTE).await;
            let found = settled(&limit, &mut server).await;
            assert!(
                (workers..=workers * 2).contains(&found),
                "{found} for {workers} workers after {minute} minutes"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn twice_the_latency_lowers_the_limit() {
    let limit = limit(AdaptiveSettings::default());
    let mut server = Server::new(1_000, BASE);
    server.run(&limit, 1_000, MINUTE).await;
    server.base = BASE * 2;
    server.run(&limit, 1_000, MINUTE / 10).await;
    let lowered = limit.snapshot().limit;
    assert!((20..150).contains(&lowered), "{lowered}");
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_has_become_slower_for_good_is_believed_in_the_end() {
    let limit = limit(AdaptiveSettings::default());
    let mut server = Server::new(1_000, BASE);
    server.run(&limit, 1_000, MINUTE).await;
    server.base = BASE * 4;
    server.run(&limit, 1_000, MINUTE / 4).await;
    assert_eq!(limit.snapshot().limit, 20);
    server.run(&limit, 1_000, MINUTE * 3).await;
    assert_eq!(limit.snapshot().limit, 200);
}

#[tokio::test(start_paused = true)]
async fn a_latency_that_was_measured_under_overload_is_forgotten() {
    let limit = limit(AdaptiveSettings::default());
    let mut server = Server::new(60, BASE * 10);
    server.run(&limit, 1_000, MINUTE).await;
    assert!(limit.snapshot().usual_latency.unwrap() >= BASE * 10);
    // From now on it is the callers themselves who keep the server from ever showing its best.
    server.base = BASE;
    server.run(&limit, 1_000, MINUTE * 5).await;
    let usual = limit.snapshot().usual_latency.unwrap();
    assert!(usual < BASE * 6 / 5, "{usual:?}");
    let found = settled(&limit, &mut server).await;
    assert!((60..120).contains(&found), "{found}");
}

#[tokio::test(start_paused = true)]
async fn steady_timeouts_lower_the_limit_and_never_raise_it() {
    let limit = limit(AdaptiveSettings {
        initial: 100,
        ..AdaptiveSettings::default()
    });
    let mut server = Server::new(1_000, BASE);
    server.timeouts = Some(20);
    server.run(&limit, 1_000, MINUTE).await;
    let snapshot = limit.snapshot();
    assert!(snapshot.limit < 30 && snapshot.dropped > 1_000, "{snapshot:?}");
    server.timeouts = None;
    server.run(&limit, 1_000, MINUTE).await;
    assert_eq!(limit.snapshot().limit, 200, "it comes back without them");
}

#[tokio::test(start_paused = true)]
async fn what_fails_together_lowers_the_limit_once() {
    for verdict in [TIMEOUT, OVERLOAD] {
        let limit = limit(AdaptiveSettings {
            initial: 100,
            ..AdaptiveSettings::default()
        });
        for expected in [90, 81, 72] {
            let samples: Vec<_> = (0..50).map(|_| limit.acquire().unwrap()).collect();
            advance(BASE).await;
            for sample in samples {
                sample.record(verdict);
                advance(Duration::from_millis(1)).await;
            }
            assert_eq!(limit.snapshot().limit, expected, "{verdict:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_or_fails_quickly_says_nothing() {
    let limit = limit(AdaptiveSettings::default());
    for round in 0..1_000 {
        let samples: Vec<_> = (0..20).map(|_| limit.acquire().unwrap()).collect();
        advance(Duration::from_millis(10)).await;
        for (index, sample) in samples.into_iter().enumerate() {
            match (round + index) % 5 {
                0 => drop(sample),
                1 => sample.record(Verdict::Failure(Kind::NotSent)),
                2 => sample.record(Verdict::Failure(Kind::Transient)),
                3 => sample.record(Verdict::Failure(Kind::Permanent)),
                _ => sample.record(Verdict::LocalReject),
            }
        }
    }
    let snapshot = limit.snapshot();
    assert_eq!(
        (snapshot.limit, snapshot.in_flight, snapshot.usual_latency),
        (20, 0, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_limit_within_the_new_bounds() {
    let limit = limit(AdaptiveSettings::default());
    Server::new(1_000, BASE).run(&limit, 1_000, MINUTE).await;
    let bounds = |min, initial, max| AdaptiveSettings {
        min,
        initial,
        max,
        ..AdaptiveSettings::default()
    };
    limit.reload(bounds(1, 10, 400)).unwrap();
    assert_eq!(limit.snapshot().limit, 200);
    limit.reload(bounds(1, 10, 50)).unwrap();
    assert_eq!(
        (limit.snapshot().limit, limit.snapshot().usual_latency),
        (50, Some(BASE))
    );
    assert!(limit.reload(bounds(0, 10, 50)).is_err());
    assert_eq!(limit.snapshot().limit, 50);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_key() {
    type Change = fn(&mut AdaptiveSettings);
    let cases: [(&str, Change); 13] = [
        ("min", |s| s.min = 0),
        ("min", |s| s.min = 201),
        ("max", |s| s.max = usize::MAX),
        ("initial", |s| s.initial = 19),
        ("initial", |s| s.initial = 201),
        ("smoothing", |s| s.smoothing = 0.0),
        ("smoothing", |s| s.smoothing = 1.1),
        ("smoothing", |s| s.smoothing = f64::NAN),
        ("tolerance", |s| s.tolerance = 0.9),
        ("tolerance", |s| s.tolerance = f64::INFINITY),
        ("growth", |s| s.growth = -1.0),
        ("window", |s| s.window = Duration::ZERO),
        ("long_window", |s| s.long_window = 9),
    ];
    for (key, change) in cases {
        let mut settings = AdaptiveSettings::default();
        change(&mut settings);
        let error = AdaptiveLimit::new("l", settings).unwrap_err();
        assert_eq!(
            (error.name.as_str(), error.key),
            ("l", format!("concurrency_limit.{key}"))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_limit_never_leaves_its_bounds(
        (min, max) in (1..50_usize).prop_flat_map(|min| (Just(min), min..200)),
        waves in proptest::collection::vec((0..4_u8, 1..60_usize, 0..500_u64), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let limit = limit(AdaptiveSettings {
                initial: min,
                min,
                max,
                window: Duration::from_millis(10),
                growth: 40.0,
                ..AdaptiveSettings::default()
            });
            for (verdict, calls, millis) in waves {
                let samples: Vec<_> = (0..calls).map_while(|_| limit.acquire().ok()).collect();
                prop_assert!(samples.len() == calls.min(limit.snapshot().limit));
                advance(Duration::from_millis(millis)).await;
                for sample in samples {
                    sample.record([Verdict::Success, Verdict::Ignore, TIMEOUT, OVERLOAD][usize::from(verdict)]);
                    let now = limit.snapshot().limit;
                    prop_assert!((min..=max).contains(&now), "{} is outside of {}..={}", now, min, max);
                }
                prop_assert_eq!(limit.snapshot().in_flight, 0);
            }
            Ok(())
        })?;
    }
}
