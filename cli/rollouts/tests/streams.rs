//! The judgement against simulated streams whose truth is known: false aborts, power, wrong promotions.

#![expect(clippy::print_stdout, reason = "seeds and figures, for whoever reads a failure")]

use opsctl_rollouts::analysis::{Analysis, Look, Settings, Traffic, Verdict};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const STREAMS: usize = 1000;

fn settings() -> Settings {
    Settings::default()
}

/// Successes among `n` trials, by skipping from success to success.
fn binomial(rng: &mut StdRng, n: u64, p: f64) -> u64 {
    if p <= 0.0 {
        return 0;
    }
    if p >= 1.0 {
        return n;
    }
    let scale = (1.0 - p).ln();
    let mut at = 0.0;
    let mut count = 0;
    loop {
        let u: f64 = 1.0 - rng.random::<f64>();
        at += (u.ln() / scale).floor() + 1.0;
        if at > n as f64 {
            return count;
        }
        count += 1;
    }
}

/// A gamma variate with mean 1 and the given coefficient of variation (Marsaglia & Tsang 2000).
fn wander(rng: &mut StdRng, cv: f64) -> f64 {
    let shape = 1.0 / (cv * cv);
    let d = shape + 2.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let (u1, u2): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        let z = (-2.0 * u1.ln()).sqrt() * (std::f64::consts::TAU * u2).cos();
        let v = (1.0 + c * z).powi(3);
        if v > 0.0 && (1.0 - rng.random::<f64>()).ln() < 0.5 * z * z + d - d * v + d * v.ln() {
            let boost = (1.0 - rng.random::<f64>()).powf(1.0 / shape);
            return d * v * boost / shape;
        }
    }
}

struct Rates {
    canary: f64,
    stable: f64,
}

struct Stream {
    /// Requests per interval.
    canary: u64,
    stable: u64,
    looks: usize,
}

/// Runs streams and gives, for each, the verdict that ended it and the canary requests until then.
fn run(
    seed: u64,
    streams: usize,
    shape: &Stream,
    stop: &dyn Fn(Verdict) -> bool,
    allowed: f64,
    mut rates: impl FnMut(&mut StdRng, usize) -> Rates,
) -> Vec<(Verdict, u64)> {
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    (0..streams)
        .map(|_| {
            let mut analysis = Analysis::new(settings(), allowed, None);
            for look in 0..shape.looks {
                let now = rates(&mut rng, look);
                let traffic = |requests, errors| Traffic {
                    requests,
                    errors,
                    slow: 0,
                };
                analysis.add(Look {
                    canary: traffic(shape.canary, binomial(&mut rng, shape.canary, now.canary)),
                    stable: traffic(shape.stable, binomial(&mut rng, shape.stable, now.stable)),
                });
                if stop(analysis.verdict()) {
                    break;
                }
            }
            (analysis.verdict(), analysis.canary_requests())
        })
        .collect()
}

fn share(results: &[(Verdict, u64)], verdict: Verdict) -> f64 {
    results.iter().filter(|(v, _)| *v == verdict).count() as f64 / results.len() as f64
}

fn failed(verdict: Verdict) -> bool {
    verdict == Verdict::Fail
}

const SHAPES: [(f64, Stream); 3] = [
    (
        0.01,
        Stream {
            canary: 10,
            stable: 90,
            looks: 30,
        },
    ),
    (
        0.01,
        Stream {
            canary: 50,
            stable: 450,
            looks: 30,
        },
    ),
    (
        0.005,
        Stream {
            canary: 200,
            stable: 1800,
            looks: 30,
        },
    ),
];

#[test]
fn equal_versions_are_hardly_ever_aborted() {
    for (rate, shape) in &SHAPES {
        let results = run(11, STREAMS, shape, &failed, 0.01, |_, _| Rates {
            canary: *rate,
            stable: *rate,
        });
        let aborted = share(&results, Verdict::Fail);
        println!("same rate {rate}, {}/{}: {aborted}", shape.canary, shape.stable);
        assert!(aborted <= 0.01, "{aborted}");
    }
}

#[test]
fn a_shared_outage_is_not_the_canarys_fault() {
    for (rate, shape) in &SHAPES {
        let results = run(12, STREAMS, shape, &failed, 0.01, |_, look| {
            let rate = if (10..15).contains(&look) { 0.3 } else { *rate };
            Rates {
                canary: rate,
                stable: rate,
            }
        });
        let aborted = share(&results, Verdict::Fail);
        println!("shared outage: {aborted}");
        assert!(aborted <= 0.01, "{aborted}");
    }
}

#[test]
fn rates_that_wander_are_forgiven() {
    for (rate, shape) in &SHAPES {
        let results = run(13, STREAMS, shape, &failed, 0.01, |rng, _| Rates {
            canary: (rate * wander(rng, 1.0)).min(1.0),
            stable: (rate * wander(rng, 1.0)).min(1.0),
        });
        let aborted = share(&results, Verdict::Fail);
        println!("rates with CV 1, {}/{}: {aborted}", shape.canary, shape.stable);
        // Chance grows with the counts of one interval: there the wandering itself becomes a finding.
        let bound = if shape.canary < 100 { 0.015 } else { 0.04 };
        assert!(aborted <= bound, "{aborted}");
    }
}

#[test]
fn bad_canaries_fail_soon() {
    // Rates of stable and canary, median and 95th percentile of canary requests until the abort.
    let cases = [
        (0.01, 1.0, 10, 10),
        (0.01, 0.20, 30, 60),
        (0.0, 0.05, 80, 150),
        (0.001, 0.05, 90, 190),
        (0.01, 0.05, 275, 645),
        (0.001, 0.01, 750, 1900),
        (0.01, 0.03, 1200, 2700),
    ];
    for (stable, canary, median, p95) in cases {
        let shape = Stream {
            canary: 10,
            stable: 90,
            looks: 1000,
        };
        let results = run(14, 300, &shape, &failed, 0.01, |_, _| Rates { canary, stable });
        let mut requests: Vec<u64> = results.iter().map(|(_, n)| *n).collect();
        requests.sort_unstable();
        let (m, p) = (requests[150], requests[285]);
        println!("{stable} -> {canary}: median {m} (expected {median}), p95 {p} (expected {p95})");
        let near =
            |got: u64, wanted: u64, tolerance: f64| (got as f64 - wanted as f64).abs() <= tolerance * wanted as f64;
        assert!(results.iter().all(|(v, _)| *v == Verdict::Fail));
        assert!(near(m, median, 0.2), "median {m} instead of {median}");
        assert!(near(p, p95, 0.25), "95th percentile {p} instead of {p95}");
    }
}

#[test]
fn twice_as_bad_is_hardly_ever_promoted() {
    for (rate, shape) in [
        (0.01, (10, 90)),
        (0.01, (50, 450)),
        (0.03, (50, 450)),
        (0.005, (200, 1800)),
    ] {
        let shape = Stream {
            canary: shape.0,
            stable: shape.1,
            looks: 200,
        };
        let results = run(15, STREAMS, &shape, &|v| v != Verdict::Inconclusive, 0.01, |_, _| {
            Rates {
                canary: 2.0 * rate,
                stable: rate,
            }
        });
        let promoted = share(&results, Verdict::Pass);
        println!(
            "twice {rate}, {}/{}: promoted {promoted}, failed {}",
            shape.canary,
            shape.stable,
            share(&results, Verdict::Fail)
        );
        assert!(promoted <= 0.05, "{promoted}");
    }
}

#[test]
fn good_canaries_pass() {
    // True rate, allowed rate, median of requests needed.
    for (rate, allowed, median) in [
        (0.01, 0.01, 1040),
        (0.001, 0.01, 380),
        (0.001, 0.001, 10_480),
        (0.0, 0.01, 380),
    ] {
        let shape = Stream {
            canary: 20,
            stable: 180,
            looks: 2000,
        };
        let results = run(16, 100, &shape, &|v| v != Verdict::Inconclusive, allowed, |_, _| {
            Rates {
                canary: rate,
                stable: rate,
            }
        });
        let mut requests: Vec<u64> = results.iter().map(|(_, n)| *n).collect();
        requests.sort_unstable();
        println!(
            "good {rate}, allowed {allowed}: passed {}, median {} p95 {}",
            share(&results, Verdict::Pass),
            requests[50],
            requests[95]
        );
        assert!(share(&results, Verdict::Pass) >= 0.97);
        assert!((requests[50] as f64 / f64::from(median) - 1.0).abs() < 0.2);
    }
}

#[test]
fn a_resumed_judgement_is_the_same() {
    let mut rng = StdRng::seed_from_u64(17);
    let mut whole = Analysis::new(settings(), 0.01, Some(0.05));
    let mut resumed = whole.clone();
    for _ in 0..50 {
        let mut traffic = |requests| Traffic {
            requests,
            errors: binomial(&mut rng, requests, 0.02),
            slow: binomial(&mut rng, requests, 0.04),
        };
        let look = Look {
            canary: traffic(20),
            stable: traffic(180),
        };
        whole.add(look);
        resumed.add(look);
        let stored = serde_json::to_string(&resumed).unwrap();
        resumed = serde_json::from_str(&stored).unwrap();
        assert!(resumed.is_sound());
    }
    let (a, b) = (whole.evidence(), resumed.evidence());
    assert_eq!(a.verdict, b.verdict);
    for (a, b) in a.metrics.iter().zip(&b.metrics) {
        assert!((a.worse_ln_e - b.worse_ln_e).abs() < 1e-9);
        assert!((a.not_twice_as_bad_ln_e - b.not_twice_as_bad_ln_e).abs() < 1e-9);
    }
}

#[test]
fn silence_is_neither_pass_nor_fail() {
    let mut analysis = Analysis::new(settings(), 0.01, None);
    let quiet = Look {
        canary: Traffic::default(),
        stable: Traffic {
            requests: 200,
            errors: 0,
            slow: 0,
        },
    };
    for _ in 0..1000 {
        analysis.add(quiet);
    }
    let evidence = analysis.evidence();
    assert_eq!(evidence.verdict, Verdict::Inconclusive);
    assert_eq!(evidence.reasons, ["the canary had no requests"]);
    assert_eq!(evidence.more_requests_needed, Some(369));
}

#[test]
fn a_gap_withholds_a_pass_until_data_is_back() {
    let mut analysis = Analysis::new(settings(), 0.01, None);
    let busy = Look {
        canary: Traffic {
            requests: 400,
            errors: 0,
            slow: 0,
        },
        stable: Traffic {
            requests: 3600,
            errors: 0,
            slow: 0,
        },
    };
    analysis.add(busy);
    assert_eq!(analysis.verdict(), Verdict::Pass);
    analysis.miss(3);
    assert_eq!(analysis.verdict(), Verdict::Pass);
    analysis.miss(1);
    assert_eq!(analysis.verdict(), Verdict::Inconclusive);
    analysis.add(busy);
    assert_eq!(analysis.verdict(), Verdict::Pass);
    assert_eq!(analysis.evidence().skipped, 4);
}

#[test]
fn the_verdict_holds_over_all_metrics() {
    // No errors, but the canary is slow: a third of its answers against a hundredth.
    let mut analysis = Analysis::new(settings(), 0.01, Some(0.05));
    for _ in 0..20 {
        analysis.add(Look {
            canary: Traffic {
                requests: 30,
                errors: 0,
                slow: 10,
            },
            stable: Traffic {
                requests: 300,
                errors: 0,
                slow: 3,
            },
        });
    }
    let evidence = analysis.evidence();
    assert_eq!(evidence.verdict, Verdict::Fail);
    assert!(
        evidence.reasons[0].starts_with("slow answers: canary 200 of 600"),
        "{:?}",
        evidence.reasons
    );
}
