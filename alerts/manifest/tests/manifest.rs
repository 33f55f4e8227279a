//! What is known of metrics, wherever it comes from.

use manifest::capture::{LIMITS, Limits, read};
use manifest::{Kind, Manifest, Part, Scope, Source, Unit, Values};
use proptest::prelude::*;

#[test]
fn the_catalogue_is_complete() {
    let manifest = Manifest::catalogue();
    assert_eq!(manifest.len(), catalogue::ALL.len());
    let pending = manifest.get("outbox_pending").expect("our own");
    assert_eq!((pending.scope, pending.complete), (Scope::Shared, true));
    let success = manifest
        .get("health_check_last_success_timestamp_seconds")
        .expect("our own");
    assert_eq!(success.unit, Unit::Timestamp);
    let found = manifest.lookup("grpc_server_handling_seconds_count").expect("a part");
    assert_eq!(found.part, Part::Count);
    assert_eq!(manifest.owner("circuit_breaker_sate"), Some(&Source::Catalogue));
    assert_eq!(manifest.owner("nobody_knows"), None);
    assert_eq!(manifest.like("circuit_breaker_sate"), ["circuit_breaker_state"]);
}

#[test]
fn exporters_are_read_from_their_tables() {
    for exporter in manifest::exporters::ALL {
        let manifest = exporter.manifest();
        assert!(manifest.len() > 15, "{}", exporter.name);
        for metric in manifest.metrics() {
            assert!(
                metric.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "{}",
                metric.name
            );
            assert_ne!(metric.name, "", "{}", exporter.name);
        }
    }
    let built_in = Manifest::built_in();
    let cpu = built_in.get("node_cpu_seconds_total").expect("of node_exporter");
    assert_eq!(cpu.kind, Kind::Counter);
    assert!(matches!(&cpu.label("mode").expect("mode").values, Values::Closed(modes) if modes.len() == 8));
    assert!(
        built_in
            .get("pg_stat_activity_count")
            .expect("of postgres")
            .label("usename")
            .expect("usename")
            .optional
    );
}

const TEXT: &str = r#"# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/a \"b\"\\\n"} 12 1700000000000
http_requests_total{code="500",} 1e3
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.5"} 1
latency_seconds_bucket{le="0.1"} 1
latency_seconds_bucket{le="+Inf"} 2
latency_seconds_sum 3
latency_seconds_count 2
temperature NaN
{"utf.8 name", "a label"="x"} 1
"#;

#[test]
fn the_text_format_is_read() {
    let manifest = read(TEXT, "a.prom", LIMITS).expect("it reads");
    let requests = manifest.get("http_requests_total").expect("requests");
    assert_eq!(
        (requests.kind, requests.complete, requests.help.as_str()),
        (Kind::Counter, false, "Requests.")
    );
    assert_eq!(
        requests.label("path").map(|label| &label.values),
        Some(&Values::Seen(vec!["/a \"b\"\\\n".to_owned()]))
    );
    let latency = manifest.lookup("latency_seconds_bucket").expect("latency");
    assert_eq!(
        (latency.part, latency.metric.buckets.as_slice()),
        (Part::Bucket, &[0.1, 0.5][..])
    );
    assert!(
        manifest
            .get("utf.8 name")
            .expect("in quotes")
            .label("a label")
            .is_some()
    );
    // What is not in a capture may come.
    assert_eq!(manifest.owner("http_requests_totals"), None);
}

#[test]
fn openmetrics_is_read() {
    let text = "# TYPE jobs counter\n# UNIT wait seconds\n# TYPE wait gauge\njobs_total{queue=\"a\"} 1 # {trace_id=\"x\"} 1\njobs_created{queue=\"a\"} 1\nwait 3\n# EOF\n";
    let manifest = read(text, "a.prom", LIMITS).expect("it reads");
    assert_eq!(
        manifest.get("jobs_total").map(|metric| metric.kind),
        Some(Kind::Counter)
    );
    assert!(manifest.get("jobs").is_none());
    assert_eq!(manifest.get("wait").map(|metric| metric.unit), Some(Unit::Seconds));
}

#[test]
fn what_is_no_capture_is_refused_with_its_line() {
    let small = Limits {
        bytes: 200,
        line: 50,
        metrics: 2,
        labels: 2,
    };
    for (text, line) in [
        ("up 1\nup one\n", 2),
        ("up{a=\"b} 1\n", 1),
        ("up{a=\"b\" c=\"d\"} 1\n", 1),
        ("{} 1\n", 1),
        ("a 1\n# TYPE \"\" gauge\n", 2),
        ("a 1\nb 1\nc 1\n", 3),
        ("a{a=\"\",b=\"\",c=\"\"} 1\n", 1),
        ("a{label=\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"} 1\n", 1),
    ] {
        assert_eq!(read(text, "x", small).expect_err(text).line, line, "{text:?}");
    }
    assert_eq!(read(&"x 1\n".repeat(100), "x", small).expect_err("long").line, 0);
}

#[test]
fn what_is_declared_stands_above_what_was_seen() {
    let mut manifest = read(
        "# TYPE outbox_pending counter\noutbox_pending{pod=\"a\"} 1\n",
        "x",
        LIMITS,
    )
    .expect("it reads");
    manifest.merge(Manifest::catalogue());
    let pending = manifest.get("outbox_pending").expect("declared");
    assert_eq!((pending.kind, &pending.source), (Kind::Gauge, &Source::Catalogue));
}

#[test]
fn a_live_server_knows_what_is_there() {
    let metadata = [manifest::live::Metadata {
        metric: "latency_seconds".to_owned(),
        kind: "histogram".to_owned(),
        help: "Latency.".to_owned(),
    }];
    let of = |le: &str| manifest::live::Series {
        name: "latency_seconds_bucket".to_owned(),
        labels: vec![("le".to_owned(), le.to_owned()), ("job".to_owned(), "a".to_owned())],
    };
    let manifest = manifest::live::manifest("http://x", &metadata, &[of("0.5"), of("0.1"), of("+Inf")]);
    let latency = manifest.get("latency_seconds").expect("latency");
    assert_eq!(
        (latency.kind, latency.buckets.as_slice()),
        (Kind::Histogram, &[0.1, 0.5][..])
    );
    assert!(latency.label("job").is_some());
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "[a-z{}\"=,#\\\\ 01\\n]{0,80}") {
        let _ = read(&text, "x", Limits { bytes: 1000, line: 100, metrics: 10, labels: 3 });
    }
}
