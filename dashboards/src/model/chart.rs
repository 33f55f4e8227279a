//! A chart: where it stands, what it asks, how it is drawn.

use serde::Serialize;

use super::field::{DataLink, FieldConfig};
use super::query::{DataSource, Target};

/// A place on a board, in cells: a board is 24 wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GridPos {
    /// Height; a cell is 30 pixels.
    pub h: u32,
    /// Width.
    pub w: u32,
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
}

/// One chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chart {
    /// Who is asked.
    pub datasource: DataSource,
    /// What is shown, what is good, what to do when it is not.
    pub description: String,
    /// How values look.
    pub field_config: FieldConfig,
    /// Where it stands.
    pub grid_pos: GridPos,
    /// Its number on this board, by which it is linked to: the same for as long as row and title are.
    pub id: u32,
    /// Where it leads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<DataLink>,
    /// What it asks.
    pub targets: Vec<Target>,
    /// Its headline.
    pub title: String,
    /// What is done to the results before they are drawn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transformations: Vec<Transformation>,
    /// How it is drawn.
    #[serde(flatten)]
    pub visual: Visual,
}

/// What is done to results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transformation {
    /// `organize`, `merge`, …
    pub id: &'static str,
    /// As that transformation has them.
    pub options: serde_json::Value,
}

/// How a chart is drawn, with the options of that way alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "options", rename_all = "lowercase")]
pub enum Visual {
    /// Lines over time.
    Timeseries(LinesOptions),
    /// One number, or one for each series.
    Stat(StatOptions),
    /// Rows and columns.
    Table(TableOptions),
    /// How often which value, over time.
    Heatmap(HeatmapOptions),
    /// States over time.
    #[serde(rename = "state-timeline")]
    StateTimeline(StatesOptions),
    /// Log lines.
    Logs(LogsOptions),
    /// Markdown.
    Text(TextOptions),
}

impl Visual {
    /// The plugin.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Timeseries(_) => "timeseries",
            Self::Stat(_) => "stat",
            Self::Table(_) => "table",
            Self::Heatmap(_) => "heatmap",
            Self::StateTimeline(_) => "state-timeline",
            Self::Logs(_) => "logs",
            Self::Text(_) => "text",
        }
    }
}

/// The list of what the lines are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Legend {
    /// Figures beside each name: `mean`, `max`, `lastNotNull`.
    pub calcs: Vec<&'static str>,
    /// `list` or `table`.
    pub display_mode: &'static str,
    /// `bottom` or `right`.
    pub placement: &'static str,
    /// Whether there is one.
    pub show_legend: bool,
}

/// What is said while the pointer is over a chart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tooltip {
    /// `single` or `multi`.
    pub mode: &'static str,
    /// `none`, `asc`, `desc`.
    pub sort: &'static str,
}

/// Of lines over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinesOptions {
    /// The list of lines.
    pub legend: Legend,
    /// What is said under the pointer.
    pub tooltip: Tooltip,
}

/// Which figure stands for a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reduce {
    /// `lastNotNull`.
    pub calcs: Vec<&'static str>,
    /// Which fields; numbers when empty.
    pub fields: &'static str,
    /// Whether every value is shown instead.
    pub values: bool,
}

impl Default for Reduce {
    fn default() -> Self {
        Self {
            calcs: vec!["lastNotNull"],
            fields: "",
            values: false,
        }
    }
}

/// Of one number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatOptions {
    /// `value` or `background`.
    pub color_mode: &'static str,
    /// `none` or `area`.
    pub graph_mode: &'static str,
    /// `auto`.
    pub justify_mode: &'static str,
    /// `auto`.
    pub orientation: &'static str,
    /// Which figure.
    pub reduce_options: Reduce,
    /// `auto`, `value_and_name`.
    pub text_mode: &'static str,
    /// Whether titles wrap.
    pub wide_layout: bool,
}

/// Of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableOptions {
    /// `sm`.
    pub cell_height: &'static str,
    /// Whether columns have names.
    pub show_header: bool,
    /// By which column.
    pub sort_by: Vec<SortBy>,
}

/// An order of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SortBy {
    /// Largest first.
    pub desc: bool,
    /// The column.
    pub display_name: String,
}

/// Of a heatmap over a histogram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeatmapOptions {
    /// False: Prometheus has counted already.
    pub calculate: bool,
    /// Colours of counts.
    pub color: HeatmapColor,
    /// What the values on the left are in.
    pub y_axis: HeatmapAxis,
    /// What is said under the pointer.
    pub tooltip: HeatmapTooltip,
}

/// Colours of counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeatmapColor {
    /// `scheme`.
    pub mode: &'static str,
    /// One of d3's.
    pub scheme: &'static str,
    /// How many shades.
    pub steps: u32,
}

/// The left side of a heatmap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeatmapAxis {
    /// What values are in.
    pub unit: super::Unit,
}

/// What a heatmap says under the pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeatmapTooltip {
    /// `single`.
    pub mode: &'static str,
    /// Whether a small histogram is drawn.
    pub y_histogram: bool,
}

/// Of states over time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatesOptions {
    /// The list of states.
    pub legend: Legend,
    /// Whether equal neighbours are one.
    pub merge_values: bool,
    /// Of the place that a line has, from 0 to 1.
    pub row_height: f64,
    /// Whether states are written into the bars.
    pub show_value: &'static str,
    /// What is said under the pointer.
    pub tooltip: Tooltip,
}

/// Of log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsOptions {
    /// `none`.
    pub dedup_strategy: &'static str,
    /// Whether a line opens.
    pub enable_log_details: bool,
    /// Whether JSON is laid out.
    pub prettify_log_message: bool,
    /// Labels that all lines share.
    pub show_common_labels: bool,
    /// Labels of each line.
    pub show_labels: bool,
    /// Time of each line.
    pub show_time: bool,
    /// Newest first.
    pub sort_order: &'static str,
    /// Whether lines wrap.
    pub wrap_log_message: bool,
}

/// Of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TextOptions {
    /// Markdown.
    pub content: String,
    /// Always `markdown`.
    pub mode: &'static str,
}
