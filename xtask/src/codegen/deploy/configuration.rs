//! What each server is told: the collector, Prometheus, Loki, Jaeger and Tempo. The same files serve every form of the
//! deployment, since the servers have the same names in each.

use serde_json::{Value, json};

use super::stack::{HTTP, Stack};

/// The files' names.
pub const COLLECTOR: &str = "collector.yaml";
pub const JAEGER: &str = "jaeger.yaml";
pub const LOKI: &str = "loki.yaml";
pub const PROMETHEUS: &str = "prometheus.yaml";
pub const TEMPO: &str = "tempo.yaml";

/// What share of the traces that are neither failed nor slow is kept, in percent.
const KEPT_PERCENT: u32 = 10;

/// Spans come in by OTLP; whole traces are kept when something in them failed or was slow, and a share of the rest; they
/// go out by OTLP to Jaeger, or to Tempo when `TRACES_ENDPOINT` says so. Metrics and logs by OTLP go to Prometheus and
/// Loki as they come.
pub fn collector(stack: &Stack) -> Value {
    let status = json!({ "status_codes": ["ERROR"] });
    let slow = json!({ "threshold_ms": stack.slow_ms });
    let share = json!({ "sampling_percentage": KEPT_PERCENT });
    json!({
        "receivers": { "otlp": { "protocols": {
            "grpc": { "endpoint": "0.0.0.0:4317" },
            "http": { "endpoint": "0.0.0.0:4318" },
        }}},
        "processors": {
            "memory_limiter": { "check_interval": "1s", "limit_percentage": 75, "spike_limit_percentage": 20 },
            "tail_sampling": {
                "decision_wait": "${env:DECISION_WAIT:-10s}",
                "num_traces": 50_000,
                "decision_cache": { "sampled_cache_size": 100_000, "non_sampled_cache_size": 100_000 },
                "policies": [
                    { "name": "failed", "type": "status_code", "status_code": status },
                    { "name": "slow", "type": "latency", "latency": slow },
                    { "name": "rest", "type": "probabilistic", "probabilistic": share },
                ],
            },
            "batch": { "timeout": "1s" },
        },
        "exporters": {
            "otlp_grpc/traces": {
                "endpoint": "${env:TRACES_ENDPOINT:-jaeger:4317}",
                "tls": { "insecure": true },
            },
            "otlp_http/metrics": { "endpoint": "${env:METRICS_ENDPOINT:-http://prometheus:9090/api/v1/otlp}" },
            "otlp_http/logs": { "endpoint": "${env:LOGS_ENDPOINT:-http://loki:3100/otlp}" },
        },
        "extensions": { "health_check": { "endpoint": "0.0.0.0:13133" } },
        "service": {
            "extensions": ["health_check"],
            "telemetry": { "metrics": { "readers": [
                { "pull": { "exporter": { "prometheus": { "host": "0.0.0.0", "port": 8888 } } } },
            ]}},
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "tail_sampling", "batch"],
                    "exporters": ["otlp_grpc/traces"],
                },
                "metrics": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": ["otlp_http/metrics"],
                },
                "logs": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": ["otlp_http/logs"],
                },
            },
        },
    })
}

/// Every instance of every service is scraped by itself: `NAME-pods` resolves to all of them.
pub fn prometheus(stack: &Stack) -> Value {
    let services = stack.services.iter().map(|service| {
        let name = &service.name;
        json!({
            "job_name": name,
            "dns_sd_configs": [{ "names": [format!("{name}-pods")], "type": "A", "port": HTTP, "refresh_interval": "10s" }],
        })
    });
    let servers = [
        ("prometheus", 9090),
        ("collector", 8888),
        ("loki", 3100),
        ("jaeger", 14269),
    ];
    let servers = servers
        .map(|(name, port)| json!({ "job_name": name, "static_configs": [{ "targets": [format!("{name}:{port}")] }] }));
    json!({
        "global": { "scrape_interval": "15s", "evaluation_interval": "15s" },
        "storage": { "exemplars": { "max_exemplars": 100_000 } },
        "otlp": { "promote_resource_attributes": ["service.name", "service.instance.id", "deployment.environment.name"] },
        "scrape_configs": services.chain(servers).collect::<Vec<_>>(),
    })
}

/// One process, data in files, kept for a week. The bounds are Loki's own defaults, said here because the services' sink
/// is made for them.
pub fn loki() -> Value {
    json!({
        "auth_enabled": false,
        "server": { "http_listen_port": 3100, "log_level": "warn" },
        "common": {
            "instance_addr": "127.0.0.1",
            "path_prefix": "/loki",
            "replication_factor": 1,
            "ring": { "kvstore": { "store": "inmemory" } },
            "storage": { "filesystem": { "chunks_directory": "/loki/chunks", "rules_directory": "/loki/rules" } },
        },
        "schema_config": { "configs": [{
            "from": "2024-01-01",
            "store": "tsdb",
            "object_store": "filesystem",
            "schema": "v13",
            "index": { "prefix": "index_", "period": "24h" },
        }]},
        "limits_config": {
            "allow_structured_metadata": true,
            "max_line_size": "256KB",
            "ingestion_rate_mb": 4,
            "ingestion_burst_size_mb": 6,
            "reject_old_samples": true,
            "reject_old_samples_max_age": "168h",
            "retention_period": "168h",
        },
        "compactor": {
            "working_directory": "/loki/compactor",
            "retention_enabled": true,
            "delete_request_store": "filesystem",
        },
        "analytics": { "reporting_enabled": false },
    })
}

/// Traces in memory, the newest of them; who keeps them longer takes Tempo.
pub fn jaeger() -> Value {
    json!({
        "collector": { "otlp": { "enabled": true, "grpc": { "host-port": ":4317" }, "http": { "host-port": ":4318" } } },
        "memory": { "max-traces": 50_000 },
        "query": { "http-server": { "host-port": ":16686" } },
        "admin": { "http": { "host-port": ":14269" } },
    })
}

/// One process, traces in files, kept for two days.
pub fn tempo() -> Value {
    json!({
        "server": { "http_listen_port": 3200, "log_level": "warn" },
        "distributor": { "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": "0.0.0.0:4317" } } } } },
        "compactor": { "compaction": { "block_retention": "48h" } },
        "storage": { "trace": {
            "backend": "local",
            "local": { "path": "/var/tempo/blocks" },
            "wal": { "path": "/var/tempo/wal" },
        }},
        "usage_report": { "reporting_enabled": false },
    })
}
