//! A span that is not sampled, and an event inside of one: what tracing costs those who asked for no trace.

use std::hint::black_box;
use std::sync::LazyLock;

use measure::Candidate;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use telemetry::trace::layer_alone;
use tracing::{Dispatch, dispatcher, info_span};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

pub fn candidates() -> Vec<Candidate> {
    vec![
        span("unsampled span", "telemetry", || ours(0.0)),
        span("unsampled span", "tracing-opentelemetry", || theirs(Sampler::AlwaysOff)),
        span("unsampled span", "the registry alone", || {
            Dispatch::new(Registry::default())
        }),
        span("sampled span", "telemetry", || ours(1.0)),
        span("sampled span", "tracing-opentelemetry", || theirs(Sampler::AlwaysOn)),
    ]
}

/// Makes, enters, leaves and closes a root span with four attributes.
fn span(what: &str, who: &'static str, subscriber: fn() -> Dispatch) -> Candidate {
    let dispatch = LazyLock::new(subscriber);
    Candidate::in_batches(what, who, move || {
        let dispatch = dispatch.clone();
        move |calls| {
            dispatcher::with_default(&dispatch, || {
                for call in 0..calls {
                    let span = info_span!("request", method = "POST", route = "/orders", user = 7, call);
                    let _inside = span.enter();
                    black_box(&span);
                }
            });
        }
    })
}

/// Spans without the log, which has a row of its own.
fn ours(ratio: f64) -> Dispatch {
    Dispatch::new(Registry::default().with(layer_alone(ratio)))
}

fn theirs(sampler: Sampler) -> Dispatch {
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    std::mem::forget(provider);
    Dispatch::new(Registry::default().with(layer))
}
