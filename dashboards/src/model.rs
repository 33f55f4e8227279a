//! Grafana's classic dashboard model, schema version 42, as far as we write it. What is here is what our boards need and
//! no more: what others write is read by [`crate::read`], which takes everything. Fields stand in the order of Grafana's
//! own exports, so that a board that was saved there differs from ours in what was changed alone.
//!
//! Source: the types of `@grafana/schema` 13.2.

pub mod chart;
pub mod envelope;
pub mod field;
pub mod query;
pub mod unit;
pub mod variable;

use serde::Serialize;

pub use chart::{Chart, GridPos, Visual};
pub use envelope::Format;
pub use field::{FieldConfig, Threshold};
pub use query::{DataSource, Target};
pub use unit::Unit;
pub use variable::Variable;

/// The version of the classic model that we write.
pub const SCHEMA_VERSION: u32 = 42;

/// A board.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    /// What is drawn over all charts.
    pub annotations: Annotations,
    /// What it is for, in a sentence or two.
    pub description: String,
    /// Whether the page offers to change it. Ours are made from code: false.
    pub editable: bool,
    /// Month with which a fiscal year begins, 0 is January.
    pub fiscal_year_start_month: u8,
    /// What the charts share while the pointer is over one: 0 nothing, 1 the crosshair, 2 the tooltip too.
    pub graph_tooltip: u8,
    /// Grafana's own number of it; always absent in a file.
    pub id: Option<u64>,
    /// Other boards, pages.
    pub links: Vec<Link>,
    /// Rows and charts, from top to bottom.
    pub panels: Vec<Panel>,
    /// How often it asks again, `30s`; empty for never.
    pub refresh: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// By these it is found, and linked from others.
    pub tags: Vec<String>,
    /// Its variables.
    pub templating: Templating,
    /// The span that is shown at first.
    pub time: TimeRange,
    /// How the choice of the span looks; nothing is said of it.
    pub timepicker: TimePicker,
    /// `browser`, `utc` or the name of a zone.
    pub timezone: String,
    /// Its name in lists.
    pub title: String,
    /// Its name in addresses, at most 40 of `[A-Za-z0-9_-]`; never changed once given.
    pub uid: String,
    /// `monday`, or empty for the reader's own.
    pub week_start: String,
}

/// `annotations` of a board.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Annotations {
    /// The queries, in order.
    pub list: Vec<Annotation>,
}

/// `templating` of a board.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Templating {
    /// The variables, in order: one may use those before it.
    pub list: Vec<Variable>,
}

/// A span of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimeRange {
    /// `now-6h`.
    pub from: String,
    /// `now`.
    pub to: String,
}

/// `timepicker` of a board, left as Grafana has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TimePicker {}

/// A query whose results are drawn as lines through all charts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    /// 1 for the one that every board has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_in: Option<u8>,
    /// Who is asked.
    pub datasource: DataSource,
    /// Whether it is on at first.
    pub enable: bool,
    /// What is asked of a Prometheus: a mark wherever there is a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expr: Option<String>,
    /// Whether its switch is hidden.
    pub hide: bool,
    /// The colour of the marks.
    pub icon_color: String,
    /// Its name beside the switch.
    pub name: String,
    /// How far apart moments are asked for, `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Labels that become tags, with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_keys: Option<String>,
    /// Text of a mark, with `{{label}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_format: Option<String>,
    /// Title of a mark, with `{{label}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_format: Option<String>,
    /// `dashboard` for the one that every board has.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// A link at the head of a board.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Boards of these tags as one list to choose from.
    pub as_dropdown: bool,
    /// `dashboard`, `doc`, `external link`.
    pub icon: String,
    /// Whether the variables go along.
    pub include_vars: bool,
    /// Whether the span goes along.
    pub keep_time: bool,
    /// Boards that have all of these; empty for a page.
    pub tags: Vec<String>,
    /// Whether it opens beside this board.
    pub target_blank: bool,
    /// Its name.
    pub title: String,
    /// What is said when the pointer is over it.
    pub tooltip: String,
    /// `dashboards` or `link`.
    #[serde(rename = "type")]
    pub kind: LinkKind,
    /// Where it leads; empty for boards by tag.
    pub url: String,
}

/// What a [`Link`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// To all boards with some tags.
    Dashboards,
    /// To one address.
    Link,
}

/// One thing on a board.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Panel {
    /// A headline over the charts that follow or, folded, that it holds.
    Row(Row),
    /// Everything else.
    Chart(Box<Chart>),
}

/// A headline.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Folded: its charts stand in [`Row::panels`] and are asked for when it is opened.
    pub collapsed: bool,
    /// Where it stands: the whole width, one high.
    pub grid_pos: GridPos,
    /// Its number on this board.
    pub id: u32,
    /// Its charts while folded, else none.
    pub panels: Vec<Chart>,
    /// Its text.
    pub title: String,
    /// Always `row`.
    #[serde(rename = "type")]
    pub kind: RowKind,
}

/// The word `row`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// It has no other value.
    #[default]
    Row,
}

impl Dashboard {
    /// All charts, those of folded rows too, in order.
    pub fn charts(&self) -> impl Iterator<Item = &Chart> {
        self.panels.iter().flat_map(|panel| match panel {
            Panel::Row(row) => row.panels.as_slice(),
            Panel::Chart(chart) => std::slice::from_ref(&**chart),
        })
    }

    /// The board as a file: two spaces, a line at the end, always the same bytes for the same board.
    pub fn to_json(&self) -> String {
        envelope::pretty(&envelope::value(self))
    }
}
