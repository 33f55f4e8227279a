//! Properties of the sums: against pods that count, restart, and are scraped one after another, at times not at all.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const INTERVAL: i64 = 10_000;
const ERRORS: &[Measure] = &[Measure::Requests, Measure::Errors];
const GOOD: &[Measure] = &[Measure::Requests];

fn reading(pod: &str, series: &str, measures: &'static [Measure], samples: Vec<(i64, f64)>) -> Reading {
    Reading {
        id: format!("{pod}/{series}"),
        target: pod.to_owned(),
        owner: Owner {
            version: "v1".to_owned(),
            instance: pod.to_owned(),
        },
        began_ms: None,
        measures,
        samples,
    }
}

fn scrapes(times: &[(&str, &[i64])]) -> Scrapes {
    times
        .iter()
        .map(|(target, times)| ((*target).to_owned(), times.to_vec()))
        .collect()
}

fn total(ledger: &Ledger) -> Counts {
    let mut total = Counts::default();
    for (_, counts) in ledger.counts() {
        total.requests += counts.requests;
        total.errors += counts.errors;
        total.over_objective += counts.over_objective;
    }
    total
}

#[test]
fn the_first_error_of_an_old_pod_counts() {
    let mut ledger = Ledger::default();
    ledger.take(
        &[reading("a", "200", GOOD, vec![(10, 5.0)])],
        &scrapes(&[("a", &[10])]),
        10,
    );
    let readings = [
        reading("a", "200", GOOD, vec![(10, 5.0), (20, 6.0)]),
        reading("a", "500", ERRORS, vec![(20, 1.0)]),
    ];
    ledger.take(&readings, &scrapes(&[("a", &[10, 20])]), 20);
    let total = total(&ledger);
    assert_eq!((total.requests, total.errors), (2, 1));
}

#[test]
fn a_pod_that_is_found_late_counts_from_its_first_sample_unless_it_is_new() {
    let empty = || {
        let mut ledger = Ledger::default();
        ledger.take(&[], &Scrapes::new(), 100);
        ledger
    };
    // Its target was not scraped before: whether its 40 requests happened since the last look is not known.
    let old = reading("b", "200", GOOD, vec![(110, 40.0), (120, 42.0)]);
    let times = scrapes(&[("b", &[110, 120])]);
    let mut ledger = empty();
    ledger.take(std::slice::from_ref(&old), &times, 120);
    assert_eq!(total(&ledger).requests, 2);
    let new = Reading {
        began_ms: Some(105),
        ..old
    };
    let mut ledger = empty();
    ledger.take(&[new], &times, 120);
    assert_eq!(total(&ledger).requests, 42);
}

#[test]
fn a_restart_counts_from_zero_and_a_vanished_pod_keeps_its_sum() {
    let mut ledger = Ledger::default();
    let times = scrapes(&[("a", &[10, 20, 30])]);
    ledger.take(&[reading("a", "200", GOOD, vec![(10, 100.0)])], &times, 10);
    ledger.take(&[reading("a", "200", GOOD, vec![(20, 110.0), (30, 4.0)])], &times, 30);
    assert_eq!(total(&ledger).requests, 14);
    ledger.take(&[], &Scrapes::new(), 40);
    assert_eq!(total(&ledger).requests, 14);
}

#[test]
fn slow_is_what_was_timed_and_not_fast() {
    let mut ledger = Ledger::default();
    let times = scrapes(&[("a", &[10, 20])]);
    ledger.take(&[], &times, 10);
    let readings = [
        reading("a", "count", &[Measure::Requests, Measure::Timed], vec![(20, 10.0)]),
        reading("a", "bucket", &[Measure::Fast], vec![(20, 7.0)]),
    ];
    ledger.take(&readings, &times, 20);
    assert_eq!(total(&ledger).over_objective, 3);
}

#[test]
fn an_owner_is_busy_until_a_scrape_without_a_rise() {
    let mut ledger = Ledger::default();
    let busy = |ledger: &Ledger| ledger.counts().map(|(_, counts)| counts.in_flight).sum::<u64>();
    let times = scrapes(&[("a", &[1_000, 2_000, 3_000])]);
    ledger.take(&[reading("a", "200", GOOD, vec![(1_000, 1.0)])], &times, 1_000);
    ledger.take(&[reading("a", "200", GOOD, vec![(2_000, 2.0)])], &times, 2_000);
    assert_eq!(busy(&ledger), 1);
    // No scrape since: still not known to be over.
    ledger.take(&[reading("a", "200", GOOD, vec![(2_000, 2.0)])], &times, 2_500);
    assert_eq!(busy(&ledger), 1);
    ledger.take(&[reading("a", "200", GOOD, vec![(3_000, 2.0)])], &times, 3_000);
    assert_eq!(busy(&ledger), 0);
}

/// A pod that counts requests and errors, and what a Prometheus has seen of it.
#[derive(Default)]
struct Pod {
    name: String,
    phase: i64,
    good: f64,
    bad: Option<f64>,
    /// All requests that ever were, at each time they changed.
    truth: f64,
    seen: Vec<(i64, f64)>,
    seen_bad: Vec<(i64, f64)>,
    scrapes: Vec<(i64, f64)>,
}

impl Pod {
    fn run(&mut self, random: &mut StdRng, at: i64, restarts: f64, misses: f64) {
        if random.random_bool(restarts) {
            (self.good, self.bad) = (0.0, None);
        }
        if random.random_bool(0.4) {
            self.good += 1.0;
            self.truth += 1.0;
        }
        if random.random_bool(0.01) {
            self.bad = Some(self.bad.unwrap_or(0.0) + 1.0);
            self.truth += 1.0;
        }
        if at % INTERVAL == self.phase && !random.random_bool(misses) {
            self.seen.push((at, self.good));
            self.seen_bad.extend(self.bad.map(|bad| (at, bad)));
            self.scrapes.push((at, self.truth));
        }
    }

    /// What a range selector over `from..=to` gives.
    fn readings(&self, from: i64, to: i64) -> Vec<Reading> {
        let within = |samples: &[(i64, f64)]| -> Vec<_> {
            samples
                .iter()
                .copied()
                .filter(|(at, _)| (from..=to).contains(at))
                .collect()
        };
        [("good", GOOD, &self.seen), ("bad", ERRORS, &self.seen_bad)]
            .into_iter()
            .map(|(name, measures, samples)| reading(&self.name, name, measures, within(samples)))
            .filter(|reading| !reading.samples.is_empty())
            .collect()
    }

    fn scraped(&self, from: i64, to: i64) -> Vec<i64> {
        self.scrapes
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| (from..=to).contains(at))
            .collect()
    }

    /// Requests that had happened at its last scrape up to `to`.
    fn truth_at(&self, to: i64) -> f64 {
        self.scrapes
            .iter()
            .rfind(|(at, _)| *at <= to)
            .map_or(0.0, |(_, truth)| *truth)
    }
}

/// Runs three pods for ten minutes with looks at odd times; gives what the ledger says and what happened between the first
/// and the last instant counted.
fn simulate(seed: u64, restarts: f64, misses: f64) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pods: Vec<Pod> = (0..3)
        .map(|number| Pod {
            name: format!("pod-{number}"),
            phase: random.random_range(0..10) * 1000,
            ..Pod::default()
        })
        .collect();
    let mut ledger = Ledger::default();
    let mut began = 0.0;
    let mut next_look = 30_000;
    for second in 0..600 {
        let at = second * 1000;
        for pod in &mut pods {
            pod.run(&mut random, at, restarts, misses);
        }
        let Some(cut) = pods
            .iter()
            .map(|pod| pod.scrapes.last().map(|(at, _)| *at))
            .min()
            .flatten()
        else {
            continue;
        };
        if at < next_look {
            continue;
        }
        next_look = at + random.random_range(1..40) * 1000;
        let from = ledger.counted_to().unwrap_or(cut) - 3 * INTERVAL;
        let readings: Vec<Reading> = pods.iter().flat_map(|pod| pod.readings(from, at)).collect();
        let scrapes = pods
            .iter()
            .map(|pod| (pod.name.clone(), pod.scraped(from, at)))
            .collect();
        let first = ledger.counted_to().is_none();
        let before = total(&ledger).requests;
        ledger.take(&readings, &scrapes, cut);
        assert!(total(&ledger).requests >= before, "a sum fell (seed {seed})");
        if first {
            began = pods.iter().map(|pod| pod.truth_at(cut)).sum();
        }
    }
    let end = ledger.counted_to().unwrap_or_default();
    let truth: f64 = pods.iter().map(|pod| pod.truth_at(end)).sum();
    (total(&ledger).requests as f64, truth - began)
}

proptest! {
    #[test]
    fn without_restarts_nothing_is_lost_and_nothing_invented(seed in any::<u64>()) {
        let (counted, truth) = simulate(seed, 0.0, 0.0);
        prop_assert!((counted - truth).abs() < f64::EPSILON, "{counted} of {truth}");
    }

    #[test]
    fn with_restarts_and_missing_scrapes_nothing_is_invented(seed in any::<u64>()) {
        let (counted, truth) = simulate(seed, 0.01, 0.2);
        prop_assert!(counted <= truth, "{} counted, {} happened", counted, truth);
        // What is lost lies between a scrape and the restart after it.
        prop_assert!(counted >= truth * 0.5, "{} counted, {} happened", counted, truth);
    }
}
