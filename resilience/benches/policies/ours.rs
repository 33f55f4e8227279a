//! This crate's policies.

use std::hint::black_box;
use std::time::Duration;

use resilience::{
    AdaptiveLimit, AdaptiveSettings, Breaker, Budget, Bulkhead, Kind, Pipeline, PipelineBuilder, RateLimit,
    RateLimitSettings, Retry, Throttle, ThrottleSettings, Verdict,
};
use tower::{Layer, Service, service_fn};

use crate::{Later, good};
use measure::{Candidate, finish};

const OURS: &str = "resilience";
const AS_LAYER: &str = "resilience, as a layer";
const HOUR: Duration = Duration::from_secs(3600);
/// A break whose end is known without a lock; see `NEAR` in src/breaker/word.rs.
const BREAK: Duration = Duration::from_secs(600);

pub fn candidates() -> Vec<Candidate> {
    let mut all = Vec::new();
    all.extend(breakers());
    all.extend(pipelines());
    all.extend(limits());
    all
}

/// An open breaker.
fn open() -> Breaker {
    let breaker = Breaker::builder("open").consecutive(1).open(BREAK, BREAK);
    let breaker = breaker.build().expect("sound settings");
    breaker
        .acquire()
        .expect("it is closed")
        .record(Verdict::Failure(Kind::Transient));
    assert!(breaker.acquire().is_err());
    breaker
}

fn breakers() -> impl IntoIterator<Item = Candidate> {
    let plain = Breaker::builder("plain").build().expect("sound settings");
    let slow = Breaker::builder("slow")
        .slow_calls(HOUR, 0.5)
        .build()
        .expect("sound settings");
    let exact = Breaker::builder("exact")
        .last_calls(100)
        .build()
        .expect("sound settings");
    let passes = |what, breaker: &Breaker| {
        let breaker = breaker.clone();
        Candidate::new(what, OURS, move || {
            let breaker = breaker.clone();
            move || {
                if let Ok(pass) = black_box(&breaker).try_acquire() {
                    pass.record(Verdict::Success);
                }
            }
        })
    };
    let permits = |what, breaker: Breaker| {
        Candidate::new(what, "resilience, owned permit", move || {
            let breaker = breaker.clone();
            move || {
                if let Ok(permit) = black_box(&breaker).acquire() {
                    permit.record(Verdict::Success);
                }
            }
        })
    };
    [
        passes("closed breaker", &plain),
        permits("closed breaker", plain),
        service(
            "closed breaker",
            Pipeline::builder("layer").breaker(Breaker::builder("layer")),
        ),
        passes("closed breaker, slow calls", &slow),
        permits("closed breaker, slow calls", slow),
        passes("closed breaker, last 100 calls", &exact),
        passes("open breaker", &open()),
        permits("open breaker", open()),
        {
            let breaker = open();
            Candidate::new("open breaker", "resilience, gate", move || {
                let breaker = breaker.clone();
                move || _ = black_box(black_box(&breaker).gate())
            })
        },
    ]
}

fn pipelines() -> impl IntoIterator<Item = Candidate> {
    let retry = || Pipeline::builder("retry").retry(Retry::default());
    let standard = || Pipeline::standard("standard");
    let ready = |what, builder: PipelineBuilder| {
        let pipeline = builder.build().expect("sound settings");
        Candidate::new(what, OURS, move || {
            let pipeline = pipeline.clone();
            move || _ = finish(black_box(&pipeline).call(|_| good()))
        })
    };
    let later = |what, builder: PipelineBuilder| {
        let pipeline = builder.build().expect("sound settings");
        Candidate::new(what, OURS, move || {
            let pipeline = pipeline.clone();
            move || _ = finish(black_box(&pipeline).call(|_| Later::default()))
        })
    };
    [
        ready("empty pipeline", Pipeline::builder("empty")),
        ready("retry, first try", retry()),
        service("retry, first try", retry()),
        ready("standard pipeline, ready", standard()),
        service("standard pipeline, ready", standard()),
        later("standard pipeline, pending once, by hand", standard()),
        {
            // Kept for the rest of the run, so that its calls can borrow it.
            let pipeline: &'static Pipeline = Box::leak(Box::new(standard().build().expect("sound settings")));
            Candidate::on_runtime("standard pipeline, pending once", OURS, move || {
                move || pipeline.call(|_| Later::default())
            })
        },
    ]
}

/// A policy as a layer around a service that is always ready.
fn service(what: &str, builder: PipelineBuilder) -> Candidate {
    let layer = builder.build().expect("sound settings").layer().idempotent();
    Candidate::new(what, AS_LAYER, move || {
        let mut service = layer.layer(service_fn(|(): ()| good()));
        move || _ = finish(service.call(()))
    })
}

fn limits() -> impl IntoIterator<Item = Candidate> {
    let budget = Budget::new(0.2, 3.0);
    let bulkhead = Bulkhead::new("bulkhead", 100, 100).expect("sound settings");
    let rate = RateLimit::new(
        "rate",
        RateLimitSettings {
            limit: 1_000_000_000,
            ..RateLimitSettings::default()
        },
    );
    let rate = rate.expect("sound settings");
    let throttle = Throttle::new("throttle", ThrottleSettings::default()).expect("sound settings");
    let adaptive = AdaptiveLimit::new("adaptive", AdaptiveSettings::default()).expect("sound settings");
    [
        Candidate::new("budget deposit", OURS, move || {
            let budget = budget.clone();
            move || black_box(&budget).deposit()
        }),
        Candidate::new("bulkhead", OURS, move || {
            let bulkhead = bulkhead.clone();
            move || drop(finish(black_box(&bulkhead).enter()))
        }),
        Candidate::new("rate limit", OURS, move || {
            let rate = rate.clone();
            move || _ = black_box(black_box(&rate).try_acquire())
        }),
        Candidate::new("throttle", OURS, move || {
            let throttle = throttle.clone();
            move || {
                if let Ok(permit) = black_box(&throttle).acquire() {
                    permit.record(Verdict::Success);
                }
            }
        }),
        Candidate::new("adaptive limit", OURS, move || {
            let adaptive = adaptive.clone();
            move || {
                if let Ok(sample) = black_box(&adaptive).acquire() {
                    sample.record(Verdict::Success);
                }
            }
        }),
    ]
}
