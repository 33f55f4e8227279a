//! From the tree of a file to its rules. Prometheus refuses a whole file for one wrong field; here every wrong field is
//! named, and what is right is read on.

use std::ops::Range;

use lint::document::{LIMITS, Node, Offsets, Value, read as read_document};
use lint::{Edit, Finding, Fix, SourceFile};
use manifest::closest;

use super::{Group, Rule, RuleFile, RuleKind, Spanned, Text};
use crate::duration;

lint::checks! {
    /// What is wrong with a file before any expression is looked at.
    pub CHECKS;
    YAML, "yaml", Error,
        "The file cannot be read as YAML.",
        "Prometheus loads none of its rules.";
    UNKNOWN_FIELD, "unknown-field", Error,
        "A field is none that rule files have.",
        "Prometheus refuses the whole file.";
    MISSING_FIELD, "missing-field", Error,
        "A field is missing.",
        "Prometheus refuses the whole file.";
    INVALID_VALUE, "invalid-value", Error,
        "A value is not what its field takes.",
        "Prometheus refuses the whole file.";
    DUPLICATE_GROUP, "duplicate-group", Error,
        "Two groups of a file have the same name.",
        "Prometheus refuses the whole file.";
}

/// Reads the rules of `file`, and says what Prometheus would refuse it for.
pub fn read(file: &SourceFile) -> (RuleFile, Vec<Finding>) {
    let mut reader = Reader {
        file,
        findings: Vec::new(),
    };
    let mut rules = RuleFile::default();
    match read_document(file.text(), LIMITS) {
        Err(unreadable) => {
            let what = format!("This is not YAML: {unreadable}.");
            reader.find(&YAML, unreadable.at..unreadable.at, what);
        }
        Ok(documents) => {
            rules.comments = documents.comments;
            for document in &documents.documents {
                rules.groups.extend(reader.document(document));
            }
        }
    }
    let mut findings = reader.findings;
    findings.extend(repeated_groups(file, &rules));
    (rules, findings)
}

fn repeated_groups(file: &SourceFile, rules: &RuleFile) -> Vec<Finding> {
    let mut seen = std::collections::HashSet::new();
    rules
        .groups
        .iter()
        .filter(|group| !seen.insert(group.name.value.as_str()))
        .map(|group| {
            let what = format!("Another group above is called `{}` too.", group.name.value);
            Finding::new(&DUPLICATE_GROUP, file, group.name.span.clone(), what)
        })
        .collect()
}

/// Fields by where they stand. Those of operators' objects stand behind the first list's bar.
const FILE: &[&str] = &["groups"];
const GROUP: &[&str] = &["name", "interval", "query_offset", "limit", "labels", "rules"];
const RULE: &[&str] = &[
    "record",
    "alert",
    "expr",
    "for",
    "keep_firing_for",
    "labels",
    "annotations",
];
/// What the operator's objects have besides.
const OF_OBJECTS: &str = "partial_response_strategy";

struct Reader<'a> {
    file: &'a SourceFile,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn find(&mut self, check: &'static lint::Check, span: Range<usize>, what: String) -> &mut Finding {
        let index = self.findings.len();
        self.findings.push(Finding::new(check, self.file, span, what));
        &mut self.findings[index]
    }

    /// A document: a rule file, an object, a list of objects, or the bare list of groups.
    fn document(&mut self, node: &Node) -> Vec<Group> {
        if node.is_null() {
            return Vec::new();
        }
        if matches!(node.value, Value::List(_)) {
            return self.groups(node, false);
        }
        let Some(kind) = node.get("kind").and_then(Node::text) else {
            self.known_fields(node, FILE, false);
            return node
                .get("groups")
                .map_or_else(Vec::new, |groups| self.groups(groups, false));
        };
        match kind {
            "PrometheusRule" => {
                let Some(spec) = node.get("spec") else {
                    self.find(&MISSING_FIELD, first(node), "This object has no `spec`.".to_owned());
                    return Vec::new();
                };
                self.known_fields(spec, FILE, true);
                let groups = spec.get("groups");
                groups.map_or_else(Vec::new, |groups| self.groups(groups, true))
            }
            // Lists of objects are one deep: their items are not lists again.
            "List" | "PrometheusRuleList" => {
                let items = node.get("items").map(Node::items).unwrap_or_default();
                let is_rule = |item: &&Node| item.get("kind").and_then(Node::text) == Some("PrometheusRule");
                items
                    .iter()
                    .filter(is_rule)
                    .flat_map(|item| self.document(item))
                    .collect()
            }
            // Other objects of the same file are none of rules' business.
            _ => Vec::new(),
        }
    }

    fn groups(&mut self, node: &Node, object: bool) -> Vec<Group> {
        self.list(node, "groups")
            .iter()
            .filter_map(|group| self.group(group, object))
            .collect()
    }

    fn group(&mut self, node: &Node, object: bool) -> Option<Group> {
        self.map(node, "A group")?;
        self.known_fields(node, GROUP, object);
        let name = self.text(node, "name");
        if name.as_ref().is_none_or(|name| name.value.is_empty()) {
            self.find(&MISSING_FIELD, first(node), "This group has no `name`.".to_owned());
        }
        let rules = node
            .get("rules")
            .map(|rules| self.list(rules, "rules"))
            .unwrap_or_default();
        Some(Group {
            span: node.span.clone(),
            name: name.unwrap_or_else(|| empty(node)),
            interval: self.duration(node, "interval"),
            query_offset: self.duration(node, "query_offset"),
            limit: self.number(node, "limit"),
            labels: self.pairs(node, "labels"),
            rules: rules.iter().filter_map(|rule| self.rule(rule, object)).collect(),
        })
    }

    fn rule(&mut self, node: &Node, object: bool) -> Option<Rule> {
        self.map(node, "A rule")?;
        self.known_fields(node, RULE, object);
        let (kind, name) = match (self.text(node, "alert"), self.text(node, "record")) {
            (Some(_), Some(record)) => {
                let what = "This rule has both `alert` and `record`.".to_owned();
                self.find(&INVALID_VALUE, record.span, what);
                return None;
            }
            (Some(name), None) => (RuleKind::Alert, name),
            (None, Some(name)) => (RuleKind::Record, name),
            (None, None) => {
                let what = "This rule has neither `alert` nor `record`.".to_owned();
                self.find(&MISSING_FIELD, first(node), what);
                return None;
            }
        };
        if name.value.is_empty() || (kind == RuleKind::Record && name.value.contains(['{', '}'])) {
            let what = format!("`{}` is no name.", name.value);
            self.find(&INVALID_VALUE, name.span.clone(), what);
        }
        if kind == RuleKind::Record {
            for field in ["for", "keep_firing_for", "annotations"] {
                if let Some((key, _)) = entry(node, field) {
                    let what = format!("A recording rule has no `{field}`.");
                    self.find(&INVALID_VALUE, key.span.clone(), what)
                        .subject
                        .clone_from(&name.value);
                }
            }
        }
        let expr = self.text(node, "expr").filter(|expr| !expr.value.trim().is_empty());
        let Some(expr) = expr else {
            let what = "This rule has no `expr`.".to_owned();
            self.find(&MISSING_FIELD, name.span.clone(), what).subject = name.value;
            return None;
        };
        let labels = self.pairs(node, "labels");
        if let Some((key, _)) = labels.iter().find(|(key, _)| key.value == "__name__") {
            let what = "A rule cannot set the label `__name__`.".to_owned();
            self.find(&INVALID_VALUE, key.span.clone(), what)
                .subject
                .clone_from(&name.value);
        }
        Some(Rule {
            span: node.span.clone(),
            kind,
            name,
            expr,
            hold: self.duration(node, "for"),
            keep_firing_for: self.duration(node, "keep_firing_for"),
            labels,
            annotations: self.pairs(node, "annotations"),
        })
    }

    fn map(&mut self, node: &Node, what: &str) -> Option<()> {
        if matches!(node.value, Value::Map(_)) {
            return Some(());
        }
        let what = format!("{what} is a map; this is {}.", node.kind());
        self.find(&INVALID_VALUE, node.span.clone(), what);
        None
    }

    fn list<'n>(&mut self, node: &'n Node, field: &str) -> &'n [Node] {
        if !node.is_null() && !matches!(node.value, Value::List(_)) {
            let what = format!("`{field}` takes a list; this is {}.", node.kind());
            self.find(&INVALID_VALUE, node.span.clone(), what);
        }
        node.items()
    }

    fn known_fields(&mut self, node: &Node, known: &[&str], object: bool) {
        for (key, _) in node.entries() {
            let name = key.text().unwrap_or_default();
            if known.contains(&name) || (object && name == OF_OBJECTS) {
                continue;
            }
            let near = closest(name, known, 1).pop();
            let what = match &near {
                Some(near) => format!("`{name}` is no field here; `{near}` is."),
                None => format!("`{name}` is no field here. There are {}.", known.join(", ")),
            };
            let is_free = |near: &String| node.get(near).is_none();
            let fix = near.filter(is_free).map(|near| {
                let title = format!("write `{near}`");
                let edit = Edit {
                    span: key.span.clone(),
                    text: near,
                };
                Fix::proposal(title, vec![edit])
            });
            self.find(&UNKNOWN_FIELD, key.span.clone(), what).fix = fix;
        }
    }

    fn scalar(&mut self, node: &Node, field: &str) -> Option<Text> {
        let Some(value) = node.text() else {
            let what = format!("`{field}` takes text; this is {}.", node.kind());
            self.find(&INVALID_VALUE, node.span.clone(), what);
            return None;
        };
        Some(Text {
            value: if node.is_null() {
                String::new()
            } else {
                value.to_owned()
            },
            span: node.span.clone(),
            offsets: node.offsets(self.file.text()),
        })
    }

    fn text(&mut self, node: &Node, field: &str) -> Option<Text> {
        self.scalar(node.get(field)?, field)
    }

    fn duration(&mut self, node: &Node, field: &str) -> Option<Spanned<std::time::Duration>> {
        let text = self.text(node, field).filter(|text| !text.value.is_empty())?;
        let value = duration::parse(&text.value).map(std::time::Duration::from_millis);
        if value.is_none() {
            let what = format!("`{}` is no duration; one is written 30s, 5m or 1h30m.", text.value);
            self.find(&INVALID_VALUE, text.span.clone(), what);
        }
        Some(Spanned {
            value: value?,
            span: text.span,
        })
    }

    fn number(&mut self, node: &Node, field: &str) -> Option<Spanned<u64>> {
        let text = self.text(node, field)?;
        let value = text.value.parse().ok();
        if value.is_none() {
            let what = format!("`{}` is no whole number.", text.value);
            self.find(&INVALID_VALUE, text.span.clone(), what);
        }
        Some(Spanned {
            value: value?,
            span: text.span,
        })
    }

    fn pairs(&mut self, node: &Node, field: &str) -> Vec<(Text, Text)> {
        let Some(map) = node.get(field).filter(|map| !map.is_null()) else {
            return Vec::new();
        };
        if self.map(map, &format!("The value of `{field}`")).is_none() {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(map.entries().len());
        for (key, value) in map.entries() {
            if let (Some(key), Some(value)) = (self.scalar(key, field), self.scalar(value, field)) {
                if key.value.is_empty() {
                    let what = format!("A name in `{field}` is empty.");
                    self.find(&INVALID_VALUE, key.span.clone(), what);
                }
                out.push((key, value));
            }
        }
        out
    }
}

fn entry<'a>(node: &'a Node, field: &str) -> Option<&'a (Node, Node)> {
    node.entries().iter().find(|(key, _)| key.text() == Some(field))
}

/// The first key of a map: what to point at when something is missing in it.
fn first(node: &Node) -> Range<usize> {
    let first = node.entries().first();
    first.map_or(node.span.clone(), |(key, _)| key.span.clone())
}

fn empty(node: &Node) -> Text {
    let at = node.span.start..node.span.start;
    Text {
        value: String::new(),
        offsets: Offsets::whole(at.clone()),
        span: at,
    }
}
