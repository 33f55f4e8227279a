//! The registry through its scrapes: counters and histograms against a model, many threads, attacks with label values,
//! both formats, and what a scraper may ask for.
#![expect(clippy::float_cmp, reason = "whole numbers, which floats hold exactly")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/exposition.rs"]
mod exposition;

use std::collections::BTreeMap;

use axum::body::Body;
use exposition::Exposition;
use http::Request;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use telemetry::{Exemplar, Metrics, Telemetry, catalogue};
use tower::ServiceExt as _;

/// Both texts, which must say the same.
fn both(metrics: &Metrics) -> Exposition {
    let classic = exposition::classic(&metrics.encode());
    let openmetrics = exposition::openmetrics(&metrics.encode_openmetrics());
    for (classic, openmetrics) in classic.0.iter().zip(&openmetrics.0) {
        assert_eq!(
            classic.name.trim_end_matches("_total"),
            openmetrics.name.trim_end_matches("_total")
        );
        assert_eq!(
            (&classic.kind, classic.samples.len()),
            (&openmetrics.kind, openmetrics.samples.len())
        );
        for (classic, openmetrics) in classic.samples.iter().zip(&openmetrics.samples) {
            assert_eq!(
                (&classic.name, &classic.labels),
                (&openmetrics.name, &openmetrics.labels)
            );
            // What the process uses changes from one text to the next.
            if !classic.name.starts_with("process_") {
                assert_eq!(classic.value.to_bits(), openmetrics.value.to_bits(), "{}", classic.name);
            }
        }
    }
    assert_eq!(classic.0.len(), openmetrics.0.len());
    openmetrics
}

#[derive(Debug, Clone)]
enum Step {
    Add(String, u64),
    Total(String, u64),
    Set(String, f64),
    Observe(String, f64),
}

fn step() -> impl Strategy<Value = Step> {
    // Names that collide often, and such as would break the text if they were not escaped.
    let name = prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        1 => "[\"\\\\\n,}= é]{0,4}",
    ];
    let value = prop_oneof![
        4 => prop::sample::select(vec![0.0, 0.005, 0.005_000_1, 0.3, 10.0, 10.1, 1e300, 1e-9, f64::INFINITY]),
        4 => 0.0..20.0_f64,
        1 => Just(f64::NAN),
    ];
    (name, value, 0..1_000_000_u64, 0..4).prop_map(|(name, value, whole, which)| match which {
        0 => Step::Add(name, whole),
        1 => Step::Total(name, whole),
        2 => Step::Set(name, value),
        _ => Step::Observe(name, value),
    })
}

proptest! {
    #[test]
    fn whatever_is_counted_is_scraped(steps in prop::collection::vec(step(), 0..80)) {
        let metrics = Metrics::new();
        let (mut counters, mut gauges) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, f64>::new());
        let mut histograms = BTreeMap::<String, Vec<f64>>::new();
        for step in steps {
            match step {
                Step::Add(name, n) => {
                    metrics.counter(catalogue::BULKHEAD_REJECTED_TOTAL, [&name]).inc_by(n);
                    *counters.entry(name).or_default() += n;
                }
                Step::Total(name, total) => {
                    metrics.counter(catalogue::BULKHEAD_REJECTED_TOTAL, [&name]).set_total(total as f64);
                    let count = counters.entry(name).or_default();
                    *count = total.max(*count);
                }
                Step::Set(name, value) => {
                    metrics.gauge(catalogue::BULKHEAD_LIMIT, [&name]).set(value);
                    gauges.insert(name, value);
                }
                Step::Observe(name, value) => {
                    metrics.histogram(catalogue::DB_POOL_WAIT_SECONDS, [&name]).observe(value);
                    let all = histograms.entry(name).or_default();
                    if !value.is_nan() {
                        all.push(value);
                    }
                }
            }
        }
        let scraped = both(&metrics);
        for (name, count) in &counters {
            prop_assert_eq!(scraped.value("bulkhead_rejected_total", &[("name", name)]), *count as f64);
        }
        for (name, value) in &gauges {
            let seen = scraped.value("bulkhead_limit", &[("name", name)]);
            prop_assert!(seen.to_bits() == value.to_bits() || (seen.is_nan() && value.is_nan()), "{} {}", seen, value);
        }
        for (name, values) in &histograms {
            for bound in catalogue::DATABASE_BUCKETS {
                let below = values.iter().filter(|value| *value <= bound).count();
                let labels = [("pool", name.as_str()), ("le", &format!("{bound:?}"))];
                prop_assert_eq!(scraped.value("db_pool_wait_seconds_bucket", &labels), below as f64);
            }
            let pool = [("pool", name.as_str())];
            prop_assert_eq!(scraped.value("db_pool_wait_seconds_count", &pool), values.len() as f64);
            let (sum, seen) = (values.iter().fold(0.0, |sum, value| sum + value), scraped.value("db_pool_wait_seconds_sum", &pool));
            prop_assert_eq!(sum.to_bits(), seen.to_bits(), "{} {}", sum, seen);
        }
        let series = |name: &str| scraped.family(name).map_or(0, |family| family.samples.len());
        prop_assert_eq!(series("bulkhead_rejected"), counters.len());
        prop_assert_eq!(series("bulkhead_limit"), gauges.len());
        prop_assert_eq!(series("db_pool_wait_seconds"), histograms.len() * (catalogue::DATABASE_BUCKETS.len() + 3));
    }
}

#[test]
fn threads_lose_nothing_and_every_scrape_between_is_whole() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    let metrics = Metrics::new();
    std::thread::scope(|scope| {
        let counting: Vec<_> = (0..THREADS)
            .map(|thread| {
                let metrics = metrics.clone();
                scope.spawn(move || {
                    let shared = metrics.histogram(catalogue::DB_POOL_WAIT_SECONDS, ["shared"]);
                    for round in 0..ROUNDS {
                        shared.observe(f64::from(u8::try_from(round % 8).unwrap()));
                        let own = (round % 50 + thread).to_string();
                        metrics.counter(catalogue::BULKHEAD_REJECTED_TOTAL, [&own]).inc();
                        metrics.gauge(catalogue::ORDERS_OPEN, []).add(1.0);
                        metrics.counter(catalogue::PROCESS_CPU_SECONDS_TOTAL, []).inc();
                    }
                })
            })
            .collect();
        let mut last = 0.0;
        while !counting.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            // The reader checks that buckets rise and agree with the count.
            let scraped = exposition::openmetrics(&metrics.encode_openmetrics());
            if let Some(count) = scraped.sample("db_pool_wait_seconds_count", &[("pool", "shared")]) {
                assert!(count.value >= last, "a count fell from {last} to {}", count.value);
                last = count.value;
            }
        }
    });
    let scraped = both(&metrics);
    let all = (THREADS * ROUNDS) as f64;
    let shared = [("pool", "shared")];
    assert_eq!(scraped.value("db_pool_wait_seconds_count", &shared), all);
    assert_eq!(scraped.value("db_pool_wait_seconds_sum", &shared), all * 3.5);
    assert_eq!(scraped.value("orders_open", &[]), all);
    assert_eq!(scraped.value("process_cpu_seconds_total", &[]), all);
    let rejected = scraped.family("bulkhead_rejected").unwrap();
    assert_eq!(rejected.samples.iter().map(|sample| sample.value).sum::<f64>(), all);
}

#[test]
fn a_hundred_thousand_values_make_two_thousand_series() {
    let metrics = Metrics::new();
    let before = metrics.encode().len();
    for value in 0..100_000 {
        let value = format!("customer-{value}-{}", "x".repeat(value % 3 * 400));
        metrics.counter(catalogue::FALLBACK_TOTAL, [&value, &value]).inc();
        metrics
            .histogram(catalogue::DB_POOL_WAIT_SECONDS, [&value])
            .observe(0.1);
    }
    let scraped = both(&metrics);
    let fallbacks = scraped.family("fallback").unwrap();
    assert_eq!(fallbacks.samples.len(), 2000);
    assert_eq!(
        fallbacks.samples.iter().map(|sample| sample.value).sum::<f64>(),
        100_000.0
    );
    let waits = scraped.family("db_pool_wait_seconds").unwrap();
    let counts = waits.samples.iter().filter(|sample| sample.name.ends_with("_count"));
    assert_eq!(counts.clone().count(), 2000);
    assert_eq!(counts.map(|sample| sample.value).sum::<f64>(), 100_000.0);
    // A third of the values is too long, so that the overflow's series is one of the 2,000.
    assert_eq!(
        scraped.value("db_pool_wait_seconds_count", &[("pool", "_overflow")]),
        98_001.0
    );
    // Every fallback has a reason outside its list.
    assert_eq!(
        scraped.value("telemetry_metric_cardinality_overflow_total", &[]),
        198_001.0
    );
    assert!(
        metrics.encode().len() < before + 12_000_000,
        "{}",
        metrics.encode().len()
    );
}

#[test]
fn two_snapshots_at_once_never_let_a_counter_fall() {
    let metrics = Metrics::new();
    let total = metrics.counter(catalogue::PROCESS_CPU_SECONDS_TOTAL, []);
    for (seen, wanted) in [(0.5, 0.5), (0.25, 0.5), (7.0, 7.0), (-1.0, 7.0), (6.9, 7.0)] {
        total.set_total(seen);
        assert_eq!(total.get(), wanted);
    }
}

#[test]
fn exemplars_are_of_sampled_spans_and_openmetrics_alone() {
    let telemetry = Telemetry::test();
    let metrics = telemetry.metrics();
    let waits = metrics.histogram(catalogue::DB_POOL_WAIT_SECONDS, ["orders"]);
    assert_eq!(Exemplar::current(), None);
    waits.observe_with(0.2, Exemplar::current());
    for value in [0.3, 0.4, 20.0] {
        let span = tracing::info_span!("wait");
        waits.observe_with(value, Exemplar::of(&span));
    }
    let scraped = both(metrics);
    let exemplars: Vec<_> = scraped.exemplars().collect();
    let spans = telemetry.spans();
    let wanted = [(0.4, "0.5", &spans[1]), (20.0, "+Inf", &spans[2])];
    assert_eq!(exemplars.len(), wanted.len());
    for ((sample, exemplar), (value, bound, span)) in exemplars.into_iter().zip(wanted) {
        assert_eq!((exemplar.value, sample.labels["le"].as_str()), (value, bound));
        assert_eq!(exemplar.labels["trace_id"], span.trace_id);
        assert_eq!(exemplar.labels["span_id"], span.span_id);
        assert!(exemplar.timestamp > 1.7e9, "{exemplar:?}");
    }
}

async fn scrape(telemetry: &Telemetry, method: &str, accept: Option<&str>) -> (u16, String, String) {
    let mut request = Request::builder().method(method).uri("/metrics");
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = telemetry.metrics_router::<()>().oneshot(request).await.unwrap();
    let kind = response
        .headers()
        .get("content-type")
        .map(|kind| kind.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        kind.unwrap_or_default(),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let telemetry = Telemetry::test();
    for (accept, openmetrics) in [
        (None, false),
        (Some("application/openmetrics-text; version=1.0.0"), true),
        (Some("text/plain"), false),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;q=0.2"),
            false,
        ),
        (Some("application/json"), false),
        (Some(",,;q=q"), false),
    ] {
        let (status, kind, text) = scrape(&telemetry, "GET", accept).await;
        assert_eq!(status, 200);
        if openmetrics {
            assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
            exposition::openmetrics(&text);
        } else {
            assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
            exposition::classic(&text);
        }
    }
}

#[tokio::test]
async fn metrics_are_read_and_nothing_else() {
    let telemetry = Telemetry::test();
    assert_eq!(scrape(&telemetry, "GET", None).await.0, 200);
    let (status, kind, body) = scrape(&telemetry, "HEAD", None).await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(kind.starts_with("text/plain"), "{kind}");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(scrape(&telemetry, method, None).await.0, 405, "{method}");
    }
}
