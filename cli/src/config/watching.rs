//! What rules and boards need to know beyond what runs: how often Prometheus looks, where people are sent, what a service
//! exports, which exporter watches a datastore. Read and checked; rules and boards are derived in `alerts` and
//! `dashboards`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use manifest::landscape::Instrumentation;

use super::document::Node;
use super::finding::Findings;
use super::kubernetes::{spelled, word};
use super::model::{DatastoreKind, Watching};
use super::section::Section;
use super::values::{Address, FromNode, Label, Span};

/// What Prometheus does when its configuration of this project's own does not say otherwise.
const INTERVAL: Duration = Duration::from_secs(15);

const EXPORTS: [(&str, Instrumentation); 7] = [
    ("circuit-breaker", Instrumentation::CircuitBreaker),
    ("database-pool", Instrumentation::DatabasePool),
    ("dead-letters", Instrumentation::DeadLetters),
    ("health", Instrumentation::Health),
    ("outbox", Instrumentation::Outbox),
    ("retry", Instrumentation::Retry),
    ("saga", Instrumentation::Saga),
];

/// The part of `[env.NAME]`.
pub(super) fn watching(section: &Section<'_>) -> Watching {
    let interval = |key| section.optional::<Span>(key).map_or(INTERVAL, |span| span.0);
    let address = |key| section.optional::<Address>(key).map(|address| address.0);
    Watching {
        scrape_interval: interval("scrape_interval"),
        evaluation_interval: interval("evaluation_interval"),
        dashboards: address("dashboards"),
        runbooks: address("runbooks"),
    }
}

/// `exports = […]` of a service.
pub(super) fn exports(section: &Section<'_>) -> BTreeSet<Instrumentation> {
    let exports: Option<Vec<Instrumentation>> = section.optional("exports");
    exports.unwrap_or_default().into_iter().collect()
}

/// `exporter = { … }` of a datastore.
pub(super) fn exporter(section: &Section<'_>, kind: Option<DatastoreKind>) -> Option<BTreeMap<String, String>> {
    let labels = section.optional::<Labels>("exporter")?.0;
    if kind.is_some_and(|kind| kind != DatastoreKind::Postgres) {
        let told = "only a `postgres` store has an exporter that alerts are known for";
        section.findings().error(section.place("exporter"), told);
    }
    Some(labels)
}

impl FromNode for Instrumentation {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        word(node, findings, "group of metrics", &EXPORTS)
    }
    fn shown(&self) -> String {
        spelled(self, &EXPORTS)
    }
}

/// Labels and what they are, such as `{ job = "postgres" }`.
struct Labels(BTreeMap<String, String>);

impl FromNode for Labels {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let labels = BTreeMap::<String, String>::from_node(node, findings)?;
        if labels.is_empty() {
            findings.error(
                &node.origin,
                "expected at least one label, such as { job = \"postgres\" }",
            );
            return None;
        }
        let known = |name: &String| {
            let good = Label::is_one(name);
            if !good {
                findings.error(&node.origin, format!("`{name}` is no name of a label"));
            }
            good
        };
        labels.keys().all(known).then_some(Self(labels))
    }
    fn shown(&self) -> String {
        let labels = self.0.iter().map(|(name, value)| format!("{name} = {}", value.shown()));
        format!("{{ {} }}", labels.collect::<Vec<_>>().join(", "))
    }
}
