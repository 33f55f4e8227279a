//! Boards and data sources as files: the tree that a Grafana reads at its start, and ConfigMaps for the sidecar that
//! brings both to a Grafana on Kubernetes. The same input makes the same bytes. It writes strings and no files.
//!
//! The data sources are linked, so that a click goes from the dot on a chart to the trace, from a span to its lines, and
//! from a line to its trace: Prometheus' exemplars have `trace_id`, spans `service.name`, lines the label `service` and the
//! field `"trace_id"`, as the library `telemetry` writes them.
//!
//! Source: Grafana's documentation of provisioning and of these three data sources.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::Dashboard;

/// Uid of the Prometheus.
pub const PROMETHEUS: &str = "prometheus";
/// Uid of the Loki.
pub const LOKI: &str = "loki";
/// Uid of the Jaeger or Tempo.
pub const TRACES: &str = "traces";

const BOARDS_AT: &str = "/var/lib/grafana/dashboards";

/// Where the data is, as Grafana reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Address of the Prometheus.
    pub prometheus: String,
    /// How often it scrapes, in seconds: no rate is asked over less than four of that.
    pub scrape_interval: u64,
    /// Address of the Loki.
    pub loki: Option<String>,
    /// Where traces are.
    pub traces: Option<Traces>,
}

/// Where traces are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// What keeps them.
    pub kind: TraceStore,
    /// Its address.
    pub url: String,
}

/// What keeps traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceStore {
    /// Jaeger.
    Jaeger,
    /// Grafana Tempo.
    Tempo,
}

impl TraceStore {
    const fn plugin(self) -> &'static str {
        match self {
            Self::Jaeger => "jaeger",
            Self::Tempo => "tempo",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Jaeger => "Jaeger",
            Self::Tempo => "Tempo",
        }
    }
}

/// Why files cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the document cannot be written as YAML")]
pub struct Unwritable {
    #[from]
    source: serde_saphyr::ser::Error,
}

/// The whole tree by path: `provisioning/…` for Grafana's own folder of that name, `dashboards/<folder>/<uid>.json` for the
/// folder of boards that `provisioning/` names.
pub fn tree(boards: &[Dashboard], folder: &str, sources: &Sources) -> Result<BTreeMap<String, String>, Unwritable> {
    let mut files = BTreeMap::from([
        ("provisioning/datasources/opsctl.yaml".to_owned(), datasources(sources)?),
        ("provisioning/dashboards/opsctl.yaml".to_owned(), provider()?),
    ]);
    for board in boards {
        files.insert(format!("dashboards/{folder}/{}.json", board.uid), board.to_json());
    }
    Ok(files)
}

/// The file that tells Grafana where boards lie. What people change in the browser is not kept: the files are the truth.
pub fn provider() -> Result<String, Unwritable> {
    yaml(&json!({
        "apiVersion": 1,
        "providers": [{
            "name": "opsctl",
            "orgId": 1,
            "type": "file",
            "disableDeletion": false,
            "allowUiUpdates": false,
            "updateIntervalSeconds": 30,
            "options": { "path": BOARDS_AT, "foldersFromFilesStructure": true },
        }],
    }))
}

/// The data sources, linked with each other.
pub fn datasources(sources: &Sources) -> Result<String, Unwritable> {
    let has_traces = sources.traces.is_some();
    let mut all = vec![prometheus(sources, has_traces)];
    all.extend(sources.loki.as_deref().map(|url| loki(url, has_traces)));
    all.extend(sources.traces.as_ref().map(|to| traces(to, sources.loki.is_some())));
    yaml(&json!({ "apiVersion": 1, "prune": true, "datasources": all }))
}

fn source(name: &str, plugin: &str, uid: &str, url: &str, settings: Value) -> Value {
    json!({
        "name": name,
        "type": plugin,
        "uid": uid,
        "access": "proxy",
        "url": url,
        "isDefault": plugin == "prometheus",
        "editable": false,
        "jsonData": settings,
    })
}

fn prometheus(sources: &Sources, has_traces: bool) -> Value {
    let mut settings = json!({
        "httpMethod": "POST",
        "prometheusType": "Prometheus",
        "timeInterval": format!("{}s", sources.scrape_interval),
    });
    if has_traces {
        settings["exemplarTraceIdDestinations"] = json!([{ "name": "trace_id", "datasourceUid": TRACES }]);
    }
    source("Prometheus", "prometheus", PROMETHEUS, &sources.prometheus, settings)
}

// Grafana replaces `$NAME` in these files by the environment; `$$` is a dollar.

fn loki(url: &str, has_traces: bool) -> Value {
    let mut settings = json!({ "maxLines": 1000 });
    if has_traces {
        settings["derivedFields"] = json!([{
            "name": "trace_id",
            "matcherRegex": "\"trace_id\":\"([0-9a-f]{32})\"",
            "url": "$${__value.raw}",
            "urlDisplayLabel": "Trace",
            "datasourceUid": TRACES,
        }]);
    }
    source("Loki", "loki", LOKI, url, settings)
}

fn traces(to: &Traces, has_lines: bool) -> Value {
    let mut settings = json!({ "nodeGraph": { "enabled": true } });
    if has_lines {
        settings["tracesToLogsV2"] = json!({
            "datasourceUid": LOKI,
            "spanStartTimeShift": "-5m",
            "spanEndTimeShift": "5m",
            "tags": [{ "key": "service.name", "value": "service" }],
            "filterByTraceID": false,
            "filterBySpanID": false,
            "customQuery": true,
            "query": "{$${__tags}} |= `$${__trace.traceId}`",
        });
    }
    settings["tracesToMetrics"] = json!({
        "datasourceUid": PROMETHEUS,
        "spanStartTimeShift": "-5m",
        "spanEndTimeShift": "5m",
        "tags": [{ "key": "service.name", "value": "job" }],
        "queries": [
            {
                "name": "HTTP requests",
                "query": "sum by (http_route) (rate(http_server_request_duration_seconds_count{$$__tags}[5m]))",
            },
            {
                "name": "gRPC calls",
                "query": "sum by (grpc_method) (rate(grpc_server_handled_total{$$__tags}[5m]))",
            },
        ],
    });
    if to.kind == TraceStore::Tempo {
        settings["serviceMap"] = json!({ "datasourceUid": PROMETHEUS });
    }
    source(to.kind.title(), to.kind.plugin(), TRACES, &to.url, settings)
}

/// Objects for a Grafana on Kubernetes whose sidecar looks for them: one ConfigMap a board, since an object may have a
/// mebibyte, and one with the data sources.
pub fn config_maps(
    boards: &[Dashboard],
    folder: &str,
    namespace: &str,
    sources: Option<&Sources>,
) -> Result<String, Unwritable> {
    let mut documents = Vec::new();
    for board in boards {
        let file = format!("{}.json", board.uid);
        let annotations = json!({ "grafana_folder": folder });
        documents.push(config_map(
            &board.uid,
            namespace,
            "grafana_dashboard",
            annotations,
            &file,
            &board.to_json(),
        )?);
    }
    if let Some(sources) = sources {
        let (name, file, text) = ("opsctl-datasources", "opsctl.yaml", datasources(sources)?);
        documents.push(config_map(
            name,
            namespace,
            "grafana_datasource",
            json!({}),
            file,
            &text,
        )?);
    }
    Ok(documents.join("---\n"))
}

/// The text stands as a block, so that a change of a board is a change of its lines.
fn config_map(
    name: &str,
    namespace: &str,
    label: &str,
    annotations: Value,
    file: &str,
    text: &str,
) -> Result<String, Unwritable> {
    let mut metadata = json!({
        "name": name,
        "namespace": namespace,
        "labels": { (label): "1", "app.kubernetes.io/managed-by": "opsctl" },
    });
    if annotations.as_object().is_some_and(|fields| !fields.is_empty()) {
        metadata["annotations"] = annotations;
    }
    let mut out = yaml(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }))?;
    out.push_str("data:\n  ");
    out.push_str(file);
    out.push_str(": |\n");
    for line in text.lines() {
        if !line.is_empty() {
            out.push_str("    ");
            out.push_str(line);
        }
        out.push('\n');
    }
    Ok(out)
}

fn yaml(value: &Value) -> Result<String, Unwritable> {
    Ok(serde_saphyr::to_string(value)?)
}
