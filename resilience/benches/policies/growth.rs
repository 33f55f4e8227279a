//! What the length of a window and the traffic in it cost: nothing, as it should be.

use std::hint::black_box;
use std::time::Duration;

use resilience::{Breaker, Kind, Verdict};
use tower::{Layer, Service, service_fn};
use tower_resilience::circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::good;
use measure::{Candidate, finish};

const WINDOWS: [(&str, Duration); 3] = [
    ("1 s", Duration::from_secs(1)),
    ("30 s", Duration::from_secs(30)),
    ("10 min", Duration::from_secs(600)),
];
const MANY: u64 = 1_000_000;
/// What the peer can be given: it looks at every record in every call.
const SOME: u64 = 10_000;
const HOUR: Duration = Duration::from_secs(3600);

pub fn candidates() -> Vec<Candidate> {
    let mut all = Vec::new();
    for (window, length) in WINDOWS {
        for (traffic, records) in [("empty", 0), ("a million records", MANY)] {
            all.push(success(
                &format!("success, window of {window}, {traffic}"),
                length,
                records,
            ));
            all.push(failure(
                &format!("failure, window of {window}, {traffic}"),
                length,
                records,
            ));
        }
    }
    all.push(peer("success, window of an hour, 10,000 records", SOME));
    all
}

/// A breaker that never has enough calls to open.
fn breaker(window: Duration) -> Breaker {
    let breaker = Breaker::builder("window").window(window).min_calls(u64::MAX);
    breaker.build().expect("sound settings")
}

/// Empties the window if nothing is to be in it; otherwise sees that so many records are.
fn fill(breaker: &Breaker, records: u64) {
    if records == 0 {
        breaker.release();
    }
    for _ in breaker.snapshot().window_calls..records {
        record(breaker, Verdict::Success);
    }
}

#[inline]
fn record(breaker: &Breaker, verdict: Verdict) {
    if let Ok(pass) = black_box(breaker).try_acquire() {
        pass.record(verdict);
    }
}

fn success(what: &str, window: Duration, records: u64) -> Candidate {
    let filled = breaker(window);
    let called = filled.clone();
    let candidate = Candidate::new(what, "resilience", move || {
        let breaker = called.clone();
        move || record(&breaker, Verdict::Success)
    });
    candidate.before(move || fill(&filled, records))
}

fn failure(what: &str, window: Duration, records: u64) -> Candidate {
    let filled = breaker(window);
    let called = filled.clone();
    let candidate = Candidate::new(what, "resilience", move || {
        let breaker = called.clone();
        move || record(&breaker, Verdict::Failure(Kind::Transient))
    });
    candidate.before(move || fill(&filled, records))
}

/// Tower-resilience's window of time: with so many records at first, and those of the calls that are measured.
fn peer(what: &str, records: u64) -> Candidate {
    Candidate::new(what, "tower-resilience", move || {
        let layer = CircuitBreakerLayer::builder()
            .sliding_window_type(SlidingWindowType::TimeBased)
            .sliding_window_duration(HOUR)
            .minimum_number_of_calls(usize::MAX)
            .build();
        let mut service = layer.expect("sound settings").layer(service_fn(|(): ()| good()));
        for _ in 0..records {
            let _ = finish(service.call(()));
        }
        move || _ = finish(service.call(()))
    })
}
