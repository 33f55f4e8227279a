//! `layers()` beside an application's own subscriber: nobody's filter costs anybody else's lines. Each test is a process
//! of its own: what a call site is of interest to is decided for all subscribers of a process together.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/kept.rs"]
mod kept;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kept::Kept;
use telemetry::Telemetry;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, registry};

/// An application's own layer, which counts what it gets.
#[derive(Clone, Default)]
struct Counted {
    events: Arc<AtomicUsize>,
    spans: Arc<AtomicUsize>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counted {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    fn on_new_span(&self, _: &tracing::span::Attributes<'_>, _: &tracing::Id, _: Context<'_, S>) {
        self.spans.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counted {
    fn seen(&self) -> (usize, usize) {
        (self.spans.load(Ordering::Relaxed), self.events.load(Ordering::Relaxed))
    }
}

/// A thousand spans with an event each; before every second, somebody asks whether DEBUG is on and then says nothing, as
/// sqlx does before it logs a statement: through the crate `log`, whose bridge is there, or through `tracing`.
fn work() {
    // The second call finds it there.
    let _ = tracing_log::LogTracer::init();
    let ask = |number: u64| match number % 4 {
        0 => log::log_enabled!(log::Level::Debug),
        2 => tracing::enabled!(tracing::Level::DEBUG),
        _ => false,
    };
    for number in 0..1000 {
        ask(number);
        let _span = tracing::info_span!("statement", number).entered();
        ask(number);
        tracing::info!(number, "done");
    }
}

/// Runs the test of this name again, alone in another process; `false` in there.
fn runs_elsewhere(test: &str) -> bool {
    const ALONE: &str = "TELEMETRY_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

#[test]
fn filtered_layers_lose_data_by_themselves() {
    if runs_elsewhere("filtered_layers_lose_data_by_themselves") {
        return;
    }
    // This is why there is a guard: when it fails, tracing-subscriber was cured and the guard can go.
    let (info, debug) = (Counted::default(), Counted::default());
    let subscriber = registry()
        .with(info.clone().with_filter(LevelFilter::INFO))
        .with(debug.with_filter(LevelFilter::DEBUG));
    tracing::subscriber::with_default(subscriber, work);
    assert_ne!(info.seen(), (1000, 1000), "nothing was lost: is the guard needed?");
}

#[test]
fn beside_our_layers_they_lose_nothing_in_any_order() {
    if runs_elsewhere("beside_our_layers_they_lose_nothing_in_any_order") {
        return;
    }
    for ours_inside in [true, false] {
        let written = Kept::default();
        let builder = Telemetry::builder("shop").filter("trace").log_writer(written.clone());
        let (info, debug) = (Counted::default(), Counted::default());
        let telemetry = if ours_inside {
            let (layers, telemetry) = builder.layers().unwrap();
            let at_info = info.clone().with_filter(LevelFilter::INFO);
            let at_debug = debug.clone().with_filter(LevelFilter::DEBUG);
            tracing::subscriber::with_default(registry().with(layers).with(at_info).with(at_debug), work);
            telemetry
        } else {
            let (layers, telemetry) = builder.layers().unwrap();
            let at_info = info.clone().with_filter(LevelFilter::INFO);
            let at_debug = debug.clone().with_filter(LevelFilter::DEBUG);
            tracing::subscriber::with_default(registry().with(at_debug).with(at_info).with(layers), work);
            telemetry
        };
        assert_eq!(info.seen(), (1000, 1000), "ours inside: {ours_inside}");
        assert_eq!(debug.seen(), (1000, 1000), "ours inside: {ours_inside}");
        let report = telemetry.shutdown_blocking(Duration::from_secs(20));
        assert!(report.is_lossless(), "{report:?}");
        assert_eq!(written.text().lines().count(), 1000);
    }
}

#[test]
fn our_filter_holds_for_the_whole_subscriber_and_changes_while_it_runs() {
    if runs_elsewhere("our_filter_holds_for_the_whole_subscriber_and_changes_while_it_runs") {
        return;
    }
    let written = Kept::default();
    let (layers, telemetry) = Telemetry::builder("shop")
        .filter("warn")
        .log_writer(written.clone())
        .layers()
        .unwrap();
    let other = Counted::default();
    let subscriber = registry().with(layers).with(other.clone());
    tracing::subscriber::with_default(subscriber, || {
        let say = || tracing::info!("hello");
        say();
        assert_eq!(other.seen().1, 0);
        telemetry.log_level().set("info", Duration::from_secs(600)).unwrap();
        // One line says that it was changed.
        let before = other.seen().1;
        say();
        assert_eq!(other.seen().1, before + 1);
    });
    let refused = telemetry.log_level().set("warn", Duration::from_secs(600));
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("the subscriber is gone"), "{why}");
    assert!(telemetry.shutdown_blocking(Duration::from_secs(20)).is_lossless());
}

#[test]
fn a_filter_may_ask_for_what_happens_inside_of_one_span() {
    if runs_elsewhere("a_filter_may_ask_for_what_happens_inside_of_one_span") {
        return;
    }
    let (layers, telemetry) = Telemetry::builder("shop")
        .filter("info")
        .log_writer(Kept::default())
        .layers()
        .unwrap();
    let other = Counted::default();
    tracing::subscriber::with_default(registry().with(layers).with(other.clone()), || {
        let work = |order: u64| {
            let span = tracing::info_span!("work", order).entered();
            tracing::debug!("inside");
            drop(span);
            tracing::debug!("outside");
        };
        let heard = |order| {
            let before = other.seen().1;
            work(order);
            other.seen().1 - before
        };
        assert_eq!((heard(7), heard(8)), (0, 0));
        let set = |filter| telemetry.log_level().set(filter, Duration::from_secs(600)).unwrap();
        set("info,[work{order=7}]=debug");
        assert_eq!((heard(7), heard(8)), (1, 0));
        // Also when it changes inside of the span.
        let span = tracing::info_span!("work", order = 7).entered();
        set("info");
        drop(span);
        assert_eq!((heard(7), heard(8)), (0, 0));
    });
    drop(telemetry);
}
