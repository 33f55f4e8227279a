//! What a chart asks, and whom.

use serde::Serialize;

/// Who is asked. Ours always name a variable of the board, so that it serves every Grafana.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataSource {
    /// The plugin: `prometheus`, `loki`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A variable, `${datasource}`, or one of Grafana's own, `-- Grafana --`.
    pub uid: &'static str,
}

impl DataSource {
    /// The Prometheus that the board's variable names.
    pub const PROMETHEUS: Self = Self {
        kind: "prometheus",
        uid: "${datasource}",
    };
    /// The Loki that the board's variable names.
    pub const LOKI: Self = Self {
        kind: "loki",
        uid: "${loki}",
    };
    /// Grafana's own store of annotations.
    pub const GRAFANA: Self = Self {
        kind: "grafana",
        uid: "-- Grafana --",
    };
    /// Results of other panels, or none.
    pub const NONE: Self = Self {
        kind: "datasource",
        uid: "grafana",
    };
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Target {
    /// To a Prometheus.
    Prometheus(Metrics),
    /// To a Loki.
    Loki(Lines),
}

/// A query to a Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Whom to ask.
    pub datasource: DataSource,
    /// Always `code`: ours are written, not clicked.
    pub editor_mode: &'static str,
    /// Whether traces are shown as dots on the chart.
    pub exemplar: bool,
    /// The expression, in PromQL with Grafana's variables.
    pub expr: String,
    /// What comes back: lines, a table, buckets.
    pub format: Shape,
    /// Whether only the last moment is asked for.
    pub instant: bool,
    /// Name of each line, with `{{label}}`; `__auto` where there is one line or a table.
    pub legend_format: String,
    /// Whether the whole span is asked for.
    pub range: bool,
    /// `A`, `B`, …
    pub ref_id: String,
}

/// A query to a Loki.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lines {
    /// Whom to ask.
    pub datasource: DataSource,
    /// Always `code`.
    pub editor_mode: &'static str,
    /// The expression, in LogQL with Grafana's variables.
    pub expr: String,
    /// Always `range`.
    pub query_type: &'static str,
    /// `A`, `B`, …
    pub ref_id: String,
}

/// The shape in which results come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A line for each series.
    TimeSeries,
    /// A row for each series, a column for each label.
    Table,
    /// Buckets, told apart by `le`.
    Heatmap,
}

impl Target {
    /// `A`, `B`, …
    pub fn ref_id(&self) -> &str {
        match self {
            Self::Prometheus(query) => &query.ref_id,
            Self::Loki(query) => &query.ref_id,
        }
    }

    /// The expression.
    pub fn expr(&self) -> &str {
        match self {
            Self::Prometheus(query) => &query.expr,
            Self::Loki(query) => &query.expr,
        }
    }

    /// Who is asked.
    pub fn datasource(&self) -> &DataSource {
        match self {
            Self::Prometheus(query) => &query.datasource,
            Self::Loki(query) => &query.datasource,
        }
    }
}
