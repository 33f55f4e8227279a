//! The variables of a board: what its reader chooses at its head.

use serde::Serialize;

use super::DataSource;

/// A variable.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Variable {
    /// Which of several data sources of a kind.
    Datasource(SourceChoice),
    /// Values of a label.
    Query(LabelChoice),
    /// A list that is known.
    Custom(ListChoice),
}

/// A choice among data sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceChoice {
    /// What is chosen at first: nothing, so that Grafana takes its default.
    #[serde(skip_serializing_if = "Current::is_nothing")]
    pub current: Current,
    /// What it is for.
    pub description: String,
    /// 0: shown with its label.
    pub hide: u8,
    /// Never: a chart asks one source.
    pub include_all: bool,
    /// Its name for people.
    pub label: String,
    /// Never.
    pub multi: bool,
    /// Its name in queries.
    pub name: &'static str,
    /// Filled by Grafana.
    pub options: Vec<String>,
    /// The plugin.
    pub query: &'static str,
    /// 1: asked for when the board is opened.
    pub refresh: u8,
    /// Which names; all when empty.
    pub regex: String,
    /// Whether the address of the page does without it.
    pub skip_url_sync: bool,
}

/// A choice among the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelChoice {
    /// What stands in a query for "all": `.+`, since the empty list that Grafana makes otherwise matches nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_value: Option<&'static str>,
    /// What is chosen at first.
    pub current: Current,
    /// Whom to ask.
    pub datasource: DataSource,
    /// The question as people read it.
    pub definition: String,
    /// What it is for.
    pub description: String,
    /// 0: shown with its label.
    pub hide: u8,
    /// Whether all can be chosen at one time.
    pub include_all: bool,
    /// Its name for people.
    pub label: String,
    /// Whether several can be chosen.
    pub multi: bool,
    /// Its name in queries.
    pub name: String,
    /// Filled by Grafana.
    pub options: Vec<String>,
    /// The question.
    pub query: LabelQuery,
    /// 2: asked for again whenever the span changes, since values come and go.
    pub refresh: u8,
    /// Which values; all when empty.
    pub regex: String,
    /// Whether the address of the page does without it.
    pub skip_url_sync: bool,
    /// 1: by the alphabet.
    pub sort: u8,
}

/// A choice from a list that is known. "All" is the list itself, so it needs no value of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListChoice {
    /// What is chosen at first.
    pub current: Current,
    /// What it is for.
    pub description: String,
    /// 0: shown with its label.
    pub hide: u8,
    /// Whether all can be chosen at one time.
    pub include_all: bool,
    /// Its name for people.
    pub label: String,
    /// Whether several can be chosen.
    pub multi: bool,
    /// Its name in queries.
    pub name: String,
    /// The list as Grafana lays it out.
    pub options: Vec<Choice>,
    /// The list as people write it: `name : value`, with commas.
    pub query: String,
    /// Whether the address of the page does without it.
    pub skip_url_sync: bool,
}

/// One of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Whether it is chosen at first.
    pub selected: bool,
    /// As people read it.
    pub text: String,
    /// As queries get it.
    pub value: String,
}

/// `label_values(…)` as Grafana keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelQuery {
    /// 1: values of a label.
    pub qry_type: u8,
    /// `label_values(metric, label)`.
    pub query: String,
    /// Grafana's name for the query of a variable.
    pub ref_id: &'static str,
}

/// What is chosen; nothing, so that Grafana takes the first or its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Current {
    /// As people read it.
    pub text: String,
    /// As queries get it.
    pub value: String,
}

impl Current {
    /// Whether the choice is left to Grafana.
    fn is_nothing(&self) -> bool {
        self.value.is_empty()
    }

    /// Everything there is.
    pub fn all() -> Self {
        Self {
            text: "All".to_owned(),
            value: "$__all".to_owned(),
        }
    }
}

impl Variable {
    /// Its name in queries.
    pub fn name(&self) -> &str {
        match self {
            Self::Datasource(choice) => choice.name,
            Self::Query(choice) => &choice.name,
            Self::Custom(choice) => &choice.name,
        }
    }
}
