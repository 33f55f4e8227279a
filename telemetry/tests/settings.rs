//! Settings from a file and from variables: what is read, what wins, and that nothing wrong is passed over in silence.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use telemetry::{InitError, LogFormat, OnFull, Settings, Telemetry};
use tracing_subscriber::Registry;

/// What the variables lead to.
fn started(variables: &[(&str, &str)]) -> Result<Telemetry, InitError> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Telemetry::builder("orders")
        .log_writer(std::io::sink())
        .read_env(|name| variables.get(name).map(OsString::from))
        .layers::<Registry>()
        .map(|(_, telemetry)| telemetry)
}

fn error(variables: &[(&str, &str)]) -> String {
    match started(variables) {
        Ok(telemetry) => {
            let _ = telemetry.shutdown_blocking(Duration::ZERO);
            String::new()
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_wrong_variable_is_named_with_what_it_may_be() {
    for (name, value, expected) in [
        ("LOG_FORMAT", "xml", "auto, json or pretty"),
        ("LOG_ON_FULL", "wait", "drop_lowest, block or drop_newest"),
        ("LOG_LINES_PER_SECOND", "many", "a whole number"),
        ("OTEL_SDK_DISABLED", "maybe", "true or false"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no pair", "key=value"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz", "key=value"),
        ("OTEL_LOGS_EXPORTER", "otlp", "none or console"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "between 0 and 1"),
        ("OTEL_PROPAGATORS", "b3", "tracecontext"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf or grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "30s", "milliseconds"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "above zero"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2k", "above zero"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "above zero"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", "gzip or none"),
        ("LOKI_URL", "loki:3100", "http://loki:3100"),
        ("LOKI_CLIENT", "promtail", "own or tracing-loki"),
    ] {
        let error = error(&[(name, value)]);
        assert!(
            error.starts_with(name) && error.contains(expected),
            "{name}={value}: {error}"
        );
        assert!(error.contains(value), "{name}={value}: {error}");
    }
}

#[test]
fn a_wrong_filter_is_an_error_with_its_reason() {
    let failed = started(&[("RUST_LOG", "info,=!=")]).unwrap_err();
    let source = std::error::Error::source(&failed).expect("why").to_string();
    assert!(matches!(failed, InitError::Filter { .. }), "{failed}");
    assert!(source.contains("=!="), "{source}");
}

#[test]
fn secrets_in_wrong_variables_are_not_repeated() {
    let error = error(&[("LOKI_URL", "ftp://me:hunter2@loki")]);
    assert!(error.starts_with("LOKI_URL") && !error.contains("hunter2"), "{error}");
    let headers = self::error(&[("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")]);
    assert!(
        headers.starts_with("OTEL_EXPORTER_OTLP_HEADERS") && !headers.contains("hunter2"),
        "{headers}"
    );
}

#[test]
fn what_is_empty_is_unset() {
    for name in [
        "RUST_LOG",
        "LOG_FORMAT",
        "OTEL_SDK_DISABLED",
        "LOKI_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        assert_eq!(error(&[(name, "")]), "", "{name}");
    }
}

#[test]
fn without_variables_nothing_is_sent_and_everything_of_dev_is_sampled() {
    let telemetry = started(&[]).unwrap();
    assert_eq!(telemetry.log_level().status().filter, "info");
    assert!((telemetry.sampling().status().ratio - 1.0).abs() < f64::EPSILON);
    let sinks: Vec<&str> = telemetry.counts().sinks.iter().map(|(name, _)| *name).collect();
    assert_eq!(sinks, ["stdout"]);
    let _ = telemetry.shutdown_blocking(Duration::from_secs(20));
}

#[test]
fn the_environment_decides_what_is_sampled_unless_it_is_said() {
    for (environment, ratio) in [("development", 1.0), ("staging", 1.0), ("production", 0.1)] {
        let telemetry = started(&[("APP_ENV", environment)]).unwrap();
        let seen = telemetry.sampling().status().ratio;
        assert!((seen - ratio).abs() < 1e-9, "{environment}: {seen}");
        let _ = telemetry.shutdown_blocking(Duration::from_secs(20));
    }
    let said = [
        ("APP_ENV", "production"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let telemetry = started(&said).unwrap();
    assert!((telemetry.sampling().status().ratio - 0.5).abs() < 1e-9);
    let _ = telemetry.shutdown_blocking(Duration::from_secs(20));
}

#[test]
fn otlp_needs_an_endpoint_and_can_be_switched_off() {
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    for (more, sinks) in [
        (("A", "b"), vec!["stdout", "otlp_traces"]),
        (("OTEL_SDK_DISABLED", "true"), vec!["stdout"]),
        (("OTEL_SDK_DISABLED", "FALSE"), vec!["stdout", "otlp_traces"]),
        (("OTEL_TRACES_EXPORTER", "none"), vec!["stdout"]),
        (
            ("LOKI_URL", "http://127.0.0.1:1"),
            vec!["stdout", "otlp_traces", "loki"],
        ),
    ] {
        let telemetry = started(&[collector, more]).unwrap();
        let seen: Vec<&str> = telemetry.counts().sinks.iter().map(|(name, _)| *name).collect();
        assert_eq!(seen, sinks, "{more:?}");
        let report = telemetry.shutdown_blocking(Duration::from_millis(10));
        assert!(report.is_lossless(), "nothing was emitted: {report:?}");
    }
}

#[test]
fn who_writes_comes_from_the_resource_and_from_variables_that_say_more() {
    let telemetry = started(&[
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=a,service.version=1%2E2,deployment.environment.name=live,team=pay",
        ),
        ("OTEL_SERVICE_NAME", "b"),
    ])
    .unwrap();
    let metrics = telemetry.metrics().encode();
    assert!(
        metrics.contains(r#"build_info{service="b",version="1.2"} 1"#),
        "{metrics}"
    );
    let _ = telemetry.shutdown_blocking(Duration::from_secs(20));
}

#[test]
fn a_file_has_every_key_of_the_guide_and_no_other() {
    let text = r#"
        environment = "staging"
        [service]
        name = "orders"
        version = "1.4.0"
        [log]
        filter = "info,orders=debug"
        format = "json"
        redact_keys = ["iban"]
        lines_per_second = 100
        [log.stdout]
        on_full = "block"
        queue_bytes = "1MiB"
        block_timeout = "50ms"
        [loki]
        tenant = "shop"
        timeout = "3s"
        [otlp.all]
        protocol = "grpc"
        [traces]
        ratio = 0.25
        queue_bytes = 1048576
        [shutdown]
        timeout = "2s"
    "#;
    let settings: Settings = toml::from_str(text).unwrap();
    assert_eq!(settings.environment, "staging");
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.log.stdout.on_full, OnFull::Block);
    assert_eq!(settings.log.stdout.queue_bytes, 1 << 20);
    assert_eq!(settings.log.stdout.block_timeout, Duration::from_millis(50));
    assert_eq!(settings.log.lines_per_second, Some(100));
    assert_eq!(settings.shutdown.timeout, Duration::from_secs(2));
    assert_eq!(settings.traces.ratio, Some(0.25));
    for wrong in [
        "surprise = 1",
        "[log]\nfiltr = \"info\"",
        "[log.stdout]\nqueue = 1",
        "[log.stdout]\nqueue_bytes = \"1 MB of lines\"",
        "[shutdown]\ntimeout = 4",
        "[traces]\nsampling = 1",
        "[loki]\nurls = []",
        "[log]\nformat = \"xml\"",
    ] {
        assert!(toml::from_str::<Settings>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_a_file_says_and_cannot_be_is_refused_at_the_start() {
    let settings: Settings = toml::from_str("[log.stdout]\nqueue_bytes = 10").unwrap();
    let started = Telemetry::builder("orders").settings(settings).layers::<Registry>();
    let error = started.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("telemetry.log.stdout.queue_bytes") && error.contains("256KiB"),
        "{error}"
    );
}

#[test]
fn variables_win_over_the_file_and_code_over_both() {
    let settings: Settings = toml::from_str("[log]\nfilter = \"warn\"\n[service]\nversion = \"1\"").unwrap();
    let (_, telemetry) = Telemetry::builder("orders")
        .log_writer(std::io::sink())
        .settings(settings)
        .read_env(|name| match name {
            "RUST_LOG" => Some("debug".into()),
            "SERVICE_VERSION" => Some("2".into()),
            _ => None,
        })
        .version("3")
        .layers::<Registry>()
        .unwrap();
    assert_eq!(telemetry.log_level().status().filter, "debug");
    let metrics = telemetry.metrics().encode();
    assert!(
        metrics.contains(r#"build_info{service="orders",version="3"} 1"#),
        "{metrics}"
    );
    let _ = telemetry.shutdown_blocking(Duration::from_secs(20));
}
