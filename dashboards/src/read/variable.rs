//! A variable of a board, and the question that fills it.

use std::ops::Range;

use super::json::{Node, Value};
use super::source::DataSource;

/// A variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variable<'a> {
    /// All of it.
    pub node: &'a Node,
    /// Its name with its place.
    pub name: Option<&'a Node>,
    /// `query`, `datasource`, `custom`, `interval`, `textbox`, `constant`, `adhoc`, …
    pub kind: &'a str,
    /// The question.
    pub query: Option<&'a Node>,
    /// Of a choice among data sources the plugin.
    pub plugin: Option<&'a str>,
    /// Who is asked.
    pub datasource: Option<DataSource<'a>>,
    /// Whether several can be chosen.
    pub multi: bool,
    /// Whether all can be chosen at one time.
    pub include_all: bool,
    /// What stands for all.
    pub all_value: Option<&'a Node>,
    /// What is done to each value.
    pub regex: Option<&'a Node>,
}

/// A question that fills a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// `label_values(label)`.
    Label {
        /// The label, and where it stands in the text.
        label: (String, Range<usize>),
    },
    /// `label_values(series, label)`.
    LabelOf {
        /// The selector, and where it stands.
        series: (String, Range<usize>),
        /// The label, and where it stands.
        label: (String, Range<usize>),
    },
    /// `query_result(expression)`.
    Result {
        /// The expression, and where it stands.
        expr: (String, Range<usize>),
    },
    /// `metrics(pattern)`, `label_names()`.
    Names,
    /// None of these: Grafana takes it for the beginning of a metric's name.
    Unknown,
}

impl<'a> Variable<'a> {
    /// Its name.
    pub fn name(&self) -> Option<&'a str> {
        self.name?.text()
    }

    /// The classic form.
    pub(super) fn classic(node: &'a Node) -> Self {
        let query = node.get("query").and_then(|query| match &query.value {
            Value::Object(_) => query.text_node("query").or_else(|| query.text_node("expr")),
            Value::Text(_) => Some(query),
            _ => None,
        });
        let kind = node.text_of("type").unwrap_or("query");
        Self {
            node,
            name: node.text_node("name"),
            kind,
            query,
            plugin: (kind == "datasource").then(|| query?.text()).flatten(),
            datasource: node.get("datasource").and_then(DataSource::of),
            multi: node.get("multi").is_some_and(Node::is_true),
            include_all: node.get("includeAll").is_some_and(Node::is_true),
            all_value: node.text_node("allValue").filter(|all| all.text() != Some("")),
            regex: node.text_node("regex"),
        }
    }

    /// Question and source, as v2 has them.
    pub(super) fn resource(node: &'a Node) -> Option<Self> {
        let spec = node.get("spec")?;
        let kind = match node.text_of("kind")? {
            "QueryVariable" => "query",
            "DatasourceVariable" => "datasource",
            "CustomVariable" => "custom",
            "IntervalVariable" => "interval",
            "TextVariable" => "textbox",
            "ConstantVariable" => "constant",
            "AdhocVariable" => "adhoc",
            "GroupByVariable" => "groupby",
            "SwitchVariable" => "switch",
            _ => "unknown",
        };
        let asked = spec.get("query");
        let query = asked.and_then(|asked| {
            if asked.text().is_some() {
                return Some(asked);
            }
            let inner = asked.get("spec")?;
            ["query", "expr", "__legacyStringValue"]
                .iter()
                .find_map(|name| inner.text_node(name))
        });
        Some(Self {
            node,
            name: spec.text_node("name"),
            kind,
            query,
            plugin: spec.text_of("pluginId"),
            datasource: asked.and_then(super::resource::source_of_query),
            multi: spec.get("multi").is_some_and(Node::is_true),
            include_all: spec.get("includeAll").is_some_and(Node::is_true),
            all_value: spec.text_node("allValue").filter(|all| all.text() != Some("")),
            regex: spec.text_node("regex"),
        })
    }

    /// What its question is, of a variable that a Prometheus fills.
    pub fn question(&self) -> Option<Query> {
        (self.kind == "query")
            .then(|| Query::of(self.query?.text()?.trim_end()))
            .flatten()
    }
}

impl Query {
    /// Reads a question. `None` when its parentheses do not fit.
    fn of(text: &str) -> Option<Self> {
        let start = text.len() - text.trim_start().len();
        let Some((name, _)) = text[start..].split_once('(') else {
            return Some(Self::Unknown);
        };
        let name = name.trim_end();
        let open = start + text[start..].find('(')?;
        let inner = text.strip_suffix(')').map(|text| open + 1..text.len());
        let part = |range: Range<usize>| {
            let piece = &text[range.clone()];
            let from = range.start + (piece.len() - piece.trim_start().len());
            let piece = piece.trim();
            (piece.to_owned(), from..from + piece.len())
        };
        match name {
            "label_values" => {
                let inner = inner.filter(|inner| inner.start <= inner.end)?;
                // The label is a plain word, so the last comma is in front of it.
                let comma = text[inner.clone()].rfind(',').map(|at| inner.start + at);
                Some(match comma.filter(|comma| !text[*comma..].contains(['}', '"'])) {
                    Some(comma) => Self::LabelOf {
                        series: part(inner.start..comma),
                        label: part(comma + 1..inner.end),
                    },
                    None => Self::Label { label: part(inner) },
                })
            }
            "query_result" => Some(Self::Result {
                expr: part(inner.filter(|inner| inner.start <= inner.end)?),
            }),
            "metrics" | "label_names" => inner.map(|_| Self::Names),
            _ => Some(Self::Unknown),
        }
    }
}
