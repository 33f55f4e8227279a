//! What every entry of the list must keep, so that a line added in a hurry does not break scrapes, rules or boards.

use std::collections::HashSet;

use catalogue::{ALL, Kind, Unit, Values};

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn names_are_unique_and_follow_their_kind_and_unit() {
    let mut seen = HashSet::new();
    for metric in ALL {
        let name = metric.name;
        assert!(seen.insert(name), "{name} is there twice");
        assert!(is_name(name), "{name}");
        assert_eq!(
            metric.kind == Kind::Counter,
            name.ends_with("_total"),
            "{name}: counters alone end in _total"
        );
        let stem = name.strip_suffix("_total").unwrap_or(name);
        for (unit, suffix) in [
            (Unit::Seconds, "_seconds"),
            (Unit::Milliseconds, "_milliseconds"),
            (Unit::Bytes, "_bytes"),
            (Unit::Ratio, "_ratio"),
        ] {
            assert_eq!(
                metric.unit == unit,
                stem.ends_with(suffix),
                "{name}: its unit is its suffix"
            );
        }
        // The base unit is the second; this one name is OpenTelemetry's.
        assert!(
            metric.unit != Unit::Milliseconds || name == "rpc_server_duration_milliseconds",
            "{name}"
        );
        for reserved in ["_bucket", "_count", "_sum", "_created", "_info"] {
            assert!(
                !name.ends_with(reserved) || name == "build_info",
                "{name} looks like a part of another metric"
            );
        }
    }
}

#[test]
fn help_is_one_sentence() {
    for metric in ALL {
        assert!(
            metric.help.ends_with('.') && !metric.help.contains('\n'),
            "{}",
            metric.name
        );
    }
}

#[test]
fn labels_are_names_and_closed_values_are_unique() {
    for metric in ALL {
        let mut names = HashSet::new();
        for label in metric.labels {
            assert!(
                is_name(label.name) && label.name != "le",
                "{}: {}",
                metric.name,
                label.name
            );
            assert!(names.insert(label.name), "{}: {} twice", metric.name, label.name);
            if let Values::Closed(values) = label.values {
                assert!(!values.is_empty(), "{}: {}", metric.name, label.name);
                let unique: HashSet<_> = values.iter().collect();
                assert_eq!(unique.len(), values.len(), "{}: {}", metric.name, label.name);
            }
        }
    }
}

#[test]
fn histograms_alone_have_buckets_and_they_rise() {
    for metric in ALL {
        assert_eq!(
            metric.kind == Kind::Histogram,
            !metric.buckets.is_empty(),
            "{}",
            metric.name
        );
        assert!(
            metric.buckets.windows(2).all(|pair| pair[0] < pair[1]),
            "{}",
            metric.name
        );
    }
}

#[test]
fn values_outside_a_closed_list_are_not_allowed() {
    let steps = catalogue::SAGA_STEPS_TOTAL.metric();
    assert!(steps.allows(0, "payment") && !steps.allows(0, "Payment") && !steps.allows(2, "payment"));
    assert!(catalogue::PROXY_IN_FLIGHT.metric().allows(0, "anything"));
    assert!(catalogue::find("nothing_total").is_none());
}

/// The names that were promised to those who write rules and boards, with their labels.
const PROMISED: &[(&str, &str)] = &[
    ("grpc_server_started_total", "grpc_type,grpc_service,grpc_method"),
    (
        "grpc_server_handled_total",
        "grpc_type,grpc_service,grpc_method,grpc_code",
    ),
    ("grpc_server_handling_seconds", "grpc_type,grpc_service,grpc_method"),
    ("grpc_client_started_total", "grpc_type,grpc_service,grpc_method"),
    (
        "grpc_client_handled_total",
        "grpc_type,grpc_service,grpc_method,grpc_code",
    ),
    ("grpc_client_handling_seconds", "grpc_type,grpc_service,grpc_method"),
    (
        "http_server_request_duration_seconds",
        "http_request_method,http_route,http_response_status_code",
    ),
    (
        "rpc_server_call_duration_seconds",
        "rpc_system_name,rpc_method,rpc_response_status_code",
    ),
    (
        "rpc_server_duration_milliseconds",
        "rpc_system,rpc_service,rpc_method,rpc_grpc_status_code",
    ),
    ("circuit_breaker_state", "name,state"),
    ("telemetry_log_lines_total", "level"),
    ("telemetry_emitted_total", "sink"),
    ("telemetry_delivered_total", "sink"),
    ("telemetry_rejected_total", "sink,reason"),
    ("telemetry_dropped_total", "sink,reason"),
    ("telemetry_spooled_total", "sink"),
    ("telemetry_queue_bytes", "sink"),
    ("telemetry_export_duration_seconds", "sink"),
    ("telemetry_propagation_invalid_total", "reason"),
    ("telemetry_metric_cardinality_overflow_total", ""),
    ("health_status", "status"),
    ("health_check_up", "check"),
    ("health_check_duration_seconds", "check"),
    ("health_check_last_success_timestamp_seconds", "check"),
    ("health_transitions_total", "check,to"),
    (
        "db_client_operation_duration_seconds",
        "db_system_name,db_operation_name,db_collection_name,error_type",
    ),
    ("panics_total", ""),
    ("build_info", "service,version"),
    ("process_cpu_seconds_total", ""),
    ("process_resident_memory_bytes", ""),
];

#[test]
fn promised_names_stay() {
    for (name, labels) in PROMISED {
        let metric = catalogue::find(name).unwrap_or_else(|| panic!("{name} is gone"));
        let listed: Vec<&str> = metric.labels.iter().map(|label| label.name).collect();
        assert_eq!(listed.join(","), *labels, "{name}");
    }
}

#[test]
fn the_json_has_a_line_for_each_metric() {
    let json = catalogue::export_json();
    assert_eq!(json.lines().count(), ALL.len() + 2);
    assert!(json.contains(
        r#"{"name":"telemetry_queue_bytes","kind":"gauge","unit":"bytes","help":"Bytes waiting for a sink.","labels":[{"name":"sink","values":["stdout","loki","#
    ));
}
