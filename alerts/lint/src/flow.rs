//! Which labels the result of an expression has: certainly, possibly, or not any more, and then what took them away.
//!
//! It follows what Prometheus does with labels, not with values. What nobody declares is possible: a target may have any
//! label that its scrape configuration gives it.

mod leaf;
mod step;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use manifest::Manifest;
use promql::ast::{Expr, Matching};
use promql::{Query, Span};

/// Labels that scraping puts on series in most installations, whatever exports them.
pub const TARGET_LABELS: &[&str] = &[
    "job",
    "instance",
    "namespace",
    "pod",
    "container",
    "service",
    "endpoint",
    "node",
    "cluster",
    "region",
    "zone",
    "env",
    "environment",
    "stage",
    "team",
    "app",
    "component",
    "host",
    "hostname",
    "prometheus",
    "replica",
    "datacenter",
    "dc",
    "tenant",
    "availability_zone",
    "version",
    "nodename",
    "metrics_path",
    "project",
    "name",
    "role",
    "type",
    "group",
    "machine",
    "domainname",
];

/// Whether a label is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// On every series of the result, with the same value.
    Fixed,
    /// On every series of the result.
    Certain,
    /// On some, or nobody knows.
    Possible,
    /// On none.
    Impossible(Loss),
}

impl Presence {
    /// Whether every series has the label.
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Fixed | Self::Certain)
    }
}

/// What took a label away, or why it never was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The part of the query that did.
    pub span: Span,
    /// How.
    pub how: How,
}

/// How a label was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// `by (…)` does not name it.
    By,
    /// `without (…)` names it.
    Without,
    /// An aggregation without grouping keeps none.
    Aggregated,
    /// `on (…)` between single series keeps only what it names.
    On,
    /// `ignoring (…)` between single series drops what it names.
    Ignoring,
    /// `absent` has only the labels of its matchers with `=`.
    Absent,
    /// A quantile over buckets has no `le` any more.
    Quantile,
    /// A number has none.
    Constant,
    /// What the selector asks for is never exported with it.
    NotExported,
    /// The selector asks for series without it.
    AskedEmpty,
    /// The recorded expression has dropped it.
    Recorded,
}

/// Labels of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    named: BTreeMap<Box<str>, Presence>,
    /// Labels that the manifest declares for any metric, and that are not named above.
    declared: Presence,
    /// All others.
    others: Presence,
    /// What the manifest declares, where that is a class of its own.
    vocabulary: Option<Arc<BTreeSet<String>>>,
}

/// Flows of rules that record series, by the name of the series.
pub type Records = HashMap<String, Flow>;

/// The flow of every part of a query.
#[derive(Debug)]
pub struct Flows {
    /// By place: no two parts of a query have the same one.
    by_span: HashMap<Span, Flow>,
    /// How many labels are known of all parts together.
    known: usize,
}

/// So many labels of one query are followed, those of each part counted; of what has more, anything is possible. A hundred
/// labels in a chain of a hundred operators are ten thousand.
const FOLLOWED: usize = 100_000;
/// Of an operation that lists more labels than that, too.
const LISTED: usize = 500;

impl Flows {
    /// Follows the labels through `query`.
    pub fn new(query: &Query, manifest: &Manifest, records: &Records) -> Self {
        Self::of_expr(&query.expr, manifest, records)
    }

    /// Follows the labels through an expression.
    pub fn of_expr(expr: &Expr, manifest: &Manifest, records: &Records) -> Self {
        let mut flows = Self {
            by_span: HashMap::new(),
            known: 0,
        };
        flows.follow(expr, manifest, records);
        flows
    }

    /// The labels of what a part of the query results in. The part must be one of that very query.
    pub fn of(&self, expr: &Expr) -> &Flow {
        static ANYTHING: Flow = Flow::anything();
        self.by_span.get(&expr.span()).unwrap_or(&ANYTHING)
    }

    /// Children first. The parser limits how deep it goes.
    fn follow(&mut self, expr: &Expr, manifest: &Manifest, records: &Records) {
        for child in expr.children() {
            self.follow(child, manifest, records);
        }
        let mut flow = match expr {
            _ if listed(expr) > LISTED => Flow::anything(),
            Expr::Selector(selector) => leaf::flow(selector, manifest, records),
            _ => step::flow(expr, self),
        };
        self.known += flow.named.len();
        if self.known > FOLLOWED {
            flow = Flow::anything();
        }
        self.by_span.insert(expr.span(), flow);
    }
}

/// How many labels or matchers an operation lists, each of which is looked up among the others.
fn listed(expr: &Expr) -> usize {
    match expr {
        Expr::Selector(selector) => selector.matchers.len(),
        Expr::Aggregation(aggregation) => aggregation.grouping.as_ref().map_or(0, |list| list.labels.len()),
        Expr::Binary(binary) => binary.matching.as_ref().map_or(0, |list| list.labels.len()),
        Expr::Call(call) => call
            .arguments
            .first()
            .map_or(0, |argument| match argument.unparenthesised() {
                Expr::Selector(selector) => selector.matchers.len(),
                _ => 0,
            }),
        _ => 0,
    }
}

impl Flow {
    /// Any label may be there.
    pub const fn anything() -> Self {
        Self::all(Presence::Possible)
    }

    /// No label is there.
    pub const fn nothing(span: Span, how: How) -> Self {
        Self::all(Presence::Impossible(Loss { span, how }))
    }

    const fn all(presence: Presence) -> Self {
        Self {
            named: BTreeMap::new(),
            declared: presence,
            others: presence,
            vocabulary: None,
        }
    }

    /// Whether `label` is there.
    pub fn presence(&self, label: &str) -> Presence {
        self.named.get(label).copied().unwrap_or_else(|| {
            let of_programs = |words: &Arc<BTreeSet<String>>| words.contains(label) && !TARGET_LABELS.contains(&label);
            let is_declared = self.vocabulary.as_ref().is_some_and(of_programs);
            if is_declared { self.declared } else { self.others }
        })
    }

    /// What took `label` away, where that is certain.
    pub fn lost(&self, label: &str) -> Option<Loss> {
        match self.presence(label) {
            Presence::Impossible(loss) => Some(loss),
            _ => None,
        }
    }

    /// Labels of which something is known.
    pub fn named(&self) -> impl Iterator<Item = (&str, Presence)> {
        self.named.iter().map(|(label, presence)| (&**label, *presence))
    }

    /// Whether labels that nobody has named may be there.
    pub fn others_possible(&self) -> bool {
        !matches!(self.others, Presence::Impossible(_))
    }

    /// Labels that are compared, on every series here and on none of `other`: then no two series belong together.
    pub fn unmatched<'a>(&'a self, other: &'a Self, matching: Option<&'a Matching>) -> impl Iterator<Item = &'a str> {
        self.named()
            .filter(move |(label, presence)| {
                let compared = matching.is_none_or(|matching| matching.compares(label));
                compared && presence.is_certain() && other.lost(label).is_some()
            })
            .map(|(label, _)| label)
    }

    /// Labels that may be there, of those that are known by name.
    pub fn known_labels(&self) -> Vec<&str> {
        self.named()
            .filter(|(_, presence)| !matches!(presence, Presence::Impossible(_)))
            .map(|(label, _)| label)
            .collect()
    }

    /// What is recorded under another name: the same labels, `set` ones besides.
    #[must_use]
    pub fn recorded<'a>(&self, set: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        let mut flow = self.clone();
        for (label, filled) in set {
            let presence = if filled {
                Presence::Certain
            } else {
                Presence::Impossible(Loss {
                    span: Span::default(),
                    how: How::Recorded,
                })
            };
            flow.set(label, presence);
        }
        flow
    }

    /// Series of one or of the other.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.zip(other, step::either)
    }

    fn set(&mut self, label: &str, presence: Presence) {
        self.named.insert(label.into(), presence);
    }

    /// Every label takes what `change` makes of its presence.
    fn map(&self, mut change: impl FnMut(Option<&str>, Presence) -> Presence) -> Self {
        let named = self
            .named
            .iter()
            .map(|(label, presence)| (label.clone(), change(Some(label), *presence)))
            .collect();
        Self {
            named,
            declared: change(None, self.declared),
            others: change(None, self.others),
            vocabulary: self.vocabulary.clone(),
        }
    }

    /// Every label takes what `join` makes of its presence here and there.
    fn zip(&self, other: &Self, join: impl Fn(Presence, Presence) -> Presence) -> Self {
        let named = self
            .named
            .keys()
            .chain(other.named.keys())
            .map(|label| (label.clone(), join(self.presence(label), other.presence(label))))
            .collect();
        Self {
            named,
            declared: join(self.declared, other.declared),
            others: join(self.others, other.others),
            vocabulary: match (&self.vocabulary, &other.vocabulary) {
                (Some(one), Some(two)) if one != two => Some(Arc::new(one.intersection(two).cloned().collect())),
                (one, two) => one.as_ref().or(two.as_ref()).cloned(),
            },
        }
    }
}
