//! One line of the log inside one span with three fields: what the caller pays. Every consumer throws away what it gets.

use std::io::sink;

use measure::Candidate;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Dispatch, Span, dispatcher, info, info_span};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use telemetry::Telemetry;

const LINE: &str = "log line in one span";

pub fn candidates() -> Vec<Candidate> {
    vec![
        line("telemetry", ours),
        line("tracing-subscriber fmt().json()", fmt),
        line("fmt().json() and tracing-opentelemetry", fmt_with_ids),
        line("tracing-loki", loki),
        disabled("telemetry", ours),
        disabled("tracing-subscriber fmt().json()", fmt),
    ]
}

fn line(who: &'static str, subscriber: fn() -> Dispatch) -> Candidate {
    inside(LINE, who, subscriber, || {
        info!(order = "o-4711", amount = 42, currency = "EUR", "order accepted");
    })
}

fn disabled(who: &'static str, subscriber: fn() -> Dispatch) -> Candidate {
    inside("line that the filter refuses", who, subscriber, || {
        tracing::trace!(order = "o-4711", amount = 42, currency = "EUR", "order accepted");
    })
}

/// `call` inside of an entered span, under a subscriber of its own. All threads share the subscriber.
fn inside(what: &str, who: &'static str, subscriber: fn() -> Dispatch, call: fn()) -> Candidate {
    let dispatch = std::sync::LazyLock::new(subscriber);
    Candidate::in_batches(what, who, move || {
        let dispatch = dispatch.clone();
        let span = dispatcher::with_default(&dispatch, span);
        move |calls| {
            dispatcher::with_default(&dispatch, || {
                let _inside = span.enter();
                (0..calls).for_each(|_| call());
            });
        }
    })
}

fn span() -> Span {
    info_span!("request", method = "POST", route = "/orders", user = 7)
}

/// Lines with ids, spans kept for their ids alone.
fn ours() -> Dispatch {
    let (layers, telemetry) = Telemetry::builder("bench")
        .log_writer(sink())
        .layers()
        .expect("telemetry can be set up");
    // The handle's end would end the log.
    std::mem::forget(telemetry);
    Dispatch::new(Registry::default().with(layers))
}

/// What most use: the line holds the spans' fields, and no ids.
fn fmt() -> Dispatch {
    let lines = tracing_subscriber::fmt::layer().json().with_writer(sink);
    Dispatch::new(Registry::default().with(EnvFilter::new("info")).with(lines))
}

/// The usual set-up that has traces at all; the ids are still not in the line.
fn fmt_with_ids() -> Dispatch {
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    std::mem::forget(provider);
    let lines = tracing_subscriber::fmt::layer().json().with_writer(sink);
    Dispatch::new(Registry::default().with(EnvFilter::new("info")).with(lines).with(spans))
}

/// The crate as it is, its task not driven: the channel is full at once, and what comes is thrown away in silence.
fn loki() -> Dispatch {
    let url = tracing_loki::url::Url::parse("http://127.0.0.1:9").expect("a URL");
    let (layer, task) = tracing_loki::builder().build_url(url).expect("the layer can be made");
    std::mem::forget(task);
    Dispatch::new(Registry::default().with(EnvFilter::new("info")).with(layer))
}
