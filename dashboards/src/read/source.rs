//! Who is asked: a data source in all the ways in which boards name one.

use super::json::{Node, Value};
use super::variable::Variable;

/// A data source as a board names it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSource<'a> {
    /// Where it is named.
    pub node: &'a Node,
    /// The plugin, where the board says it.
    pub plugin: Option<&'a str>,
    /// The uid or name, which may be a variable.
    pub name: Option<&'a str>,
    /// Whether it is a bare text, as up to schema version 33.
    pub bare: bool,
}

/// The language in which a query is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// PromQL.
    Prometheus,
    /// `LogQL`.
    Loki,
    /// Another.
    Other,
    /// The board does not say.
    Unknown,
}

/// Names that Grafana itself has for sources.
const OWN: [&str; 6] = [
    "-- Grafana --",
    "-- Mixed --",
    "-- Dashboard --",
    "grafana",
    "__expr__",
    "default",
];

impl<'a> DataSource<'a> {
    /// Reads a field `datasource`.
    pub fn of(node: &'a Node) -> Option<Self> {
        match &node.value {
            Value::Text(name) => Some(Self {
                node,
                plugin: None,
                name: Some(name),
                bare: true,
            }),
            Value::Object(_) => Some(Self {
                node,
                plugin: node.text_of("type").filter(|plugin| !plugin.is_empty()),
                name: node.text_of("uid").or_else(|| node.text_of("name")),
                bare: false,
            }),
            _ => None,
        }
    }

    /// Whether it is one of Grafana's own: built in, mixed, results of other panels.
    pub fn is_own(&self) -> bool {
        self.name.is_some_and(|name| OWN.contains(&name) || name == "-100")
            || matches!(self.plugin, Some("grafana" | "datasource" | "__expr__" | "mixed"))
    }

    /// Whether each query names its own.
    pub fn is_mixed(&self) -> bool {
        self.name == Some("-- Mixed --") || self.plugin == Some("mixed")
    }

    /// The variable that it is, without its signs.
    pub fn variable(&self) -> Option<&'a str> {
        let name = self.name?;
        let inner = name
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
            .or_else(|| name.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")))
            .or_else(|| name.strip_prefix('$'))?;
        Some(inner.split(':').next().unwrap_or(inner))
    }

    /// The language of its queries, as far as the board says it.
    pub fn language(&self, variables: &[Variable<'a>], inputs: &[(&'a str, &'a str)]) -> Language {
        if let Some(plugin) = self.plugin {
            return language(plugin);
        }
        let Some(name) = self.variable() else {
            return Language::Unknown;
        };
        let chosen = variables
            .iter()
            .find(|variable| variable.name() == Some(name) && variable.kind == "datasource");
        let plugin = chosen.and_then(|variable| variable.plugin);
        let input = inputs
            .iter()
            .find(|(input, _)| *input == name)
            .map(|(_, plugin)| *plugin);
        plugin.or(input).map_or(Language::Unknown, language)
    }
}

fn language(plugin: &str) -> Language {
    match plugin {
        "prometheus" | "grafana-amazonprometheus-datasource" | "grafana-azureprometheus-datasource" => {
            Language::Prometheus
        }
        "loki" => Language::Loki,
        _ => Language::Other,
    }
}
