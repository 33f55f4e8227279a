//! How values look: unit, range, colours, what a number is called.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Unit;

/// `fieldConfig` of a chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldConfig {
    /// For every line or column.
    pub defaults: Defaults,
    /// For some of them.
    pub overrides: Vec<Override>,
}

/// How every value looks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// Where its colour comes from.
    pub color: Color,
    /// What only this kind of chart knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
    /// Digits behind the point; Grafana's choice when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// Where a click on a value leads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<DataLink>,
    /// Words for numbers.
    pub mappings: Vec<Mapping>,
    /// The highest that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The lowest that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// What stands where there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_value: Option<String>,
    /// From where on which colour.
    pub thresholds: Thresholds,
    /// What the value is in.
    pub unit: Unit,
}

/// A colour, or where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Color {
    /// The colour when [`Color::mode`] is `fixed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_color: Option<String>,
    /// `palette-classic`, `thresholds`, `fixed`.
    pub mode: &'static str,
}

/// `custom` of the charts that have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Custom {
    /// Of lines over time.
    Lines(LineStyle),
    /// Of states over time.
    States(StateStyle),
}

/// How lines are drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineStyle {
    /// `line` or `bars`.
    pub draw_style: &'static str,
    /// How much of what is below a line is filled, in percent.
    pub fill_opacity: u8,
    /// `linear` or `stepAfter`.
    pub line_interpolation: &'static str,
    /// In pixels.
    pub line_width: u8,
    /// `auto`, `never`.
    pub show_points: &'static str,
    /// Gaps are gaps: no line is drawn over missing data.
    pub span_nulls: bool,
    /// Whether lines stand on each other.
    pub stacking: Stacking,
    /// How thresholds are shown on the chart.
    pub thresholds_style: Mode,
}

/// How states are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateStyle {
    /// In percent.
    pub fill_opacity: u8,
    /// In pixels.
    pub line_width: u8,
}

/// Whether lines stand on each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stacking {
    /// Which lines do so together.
    pub group: &'static str,
    /// `none` or `normal`.
    pub mode: &'static str,
}

/// A mode by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mode {
    /// `off`, `line`, `dashed`.
    pub mode: &'static str,
}

/// From where on which colour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thresholds {
    /// Always `absolute`.
    pub mode: &'static str,
    /// Ascending; the first has no value and holds below all others.
    pub steps: Vec<Threshold>,
}

/// A colour from a value on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Threshold {
    /// By Grafana's name.
    pub color: &'static str,
    /// In the unit of the chart; none in the first step.
    pub value: Option<f64>,
}

/// A link from a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataLink {
    /// Whether it opens beside the board.
    pub target_blank: bool,
    /// Its name.
    pub title: String,
    /// Where it leads, with `${__field.labels.x}` and the board's variables.
    pub url: String,
}

/// Words for numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mapping {
    /// By the number as text.
    pub options: BTreeMap<String, Word>,
    /// Always `value`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// What stands for a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// The colour.
    pub color: &'static str,
    /// Its place in lists.
    pub index: u32,
    /// The word.
    pub text: String,
}

/// How some lines or columns look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Override {
    /// Which ones.
    pub matcher: Matcher,
    /// What is different.
    pub properties: Vec<Property>,
}

/// Which lines or columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Matcher {
    /// `byName`, `byRegexp`, `byFrameRefID`.
    pub id: &'static str,
    /// The name, the pattern, the query.
    pub options: String,
}

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Property {
    /// `unit`, `displayName`, `color`, …
    pub id: &'static str,
    /// Its value.
    pub value: serde_json::Value,
}
