//! One table being read: every key that is asked for is known, every other one is an error with a suggestion, and
//! every value that is handed out is recorded with its origin.

use std::cell::RefCell;

use super::document::{Node, Origin, Table, Value};
use super::finding::Findings;
use super::suggest::suggestion;
use super::values::FromNode;

/// A table, its dotted path, and what was asked of it so far.
pub(super) struct Section<'a> {
    table: &'a Table,
    path: String,
    origin: &'a Origin,
    findings: &'a Findings,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// Starts to read a table.
    pub(super) fn new(table: &'a Table, path: impl Into<String>, origin: &'a Origin, findings: &'a Findings) -> Self {
        Self {
            table,
            path: path.into(),
            origin,
            findings,
            known: RefCell::default(),
        }
    }

    /// Where the table is.
    pub(super) fn origin(&self) -> &'a Origin {
        self.origin
    }

    /// Where errors go.
    pub(super) fn findings(&self) -> &'a Findings {
        self.findings
    }

    fn take(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A value that may be absent.
    pub(super) fn optional<T: FromNode>(&self, key: &'static str) -> Option<T> {
        let node = self.take(key)?;
        let value = T::from_node(node, self.findings)?;
        self.findings.show(self.path_of(key), value.shown(), &node.origin);
        Some(value)
    }

    /// A value with a default.
    pub(super) fn or<T: FromNode>(&self, key: &'static str, default: T) -> T {
        if self.table.get(key).is_some() {
            return self.optional(key).unwrap_or(default);
        }
        self.known.borrow_mut().push(key);
        self.findings.show(self.path_of(key), default.shown(), &Origin::Default);
        default
    }

    /// A value that must be there.
    pub(super) fn required<T: FromNode>(&self, key: &'static str) -> Option<T> {
        if self.table.get(key).is_none() {
            self.known.borrow_mut().push(key);
            self.findings
                .error(self.origin, format!("`{}` needs `{key}`", self.path));
            return None;
        }
        self.optional(key)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Where a key is, else where the table is.
    pub(super) fn place(&self, key: &str) -> &'a Origin {
        self.table.get(key).map_or(self.origin, |node| &node.origin)
    }

    /// A table inside, if it is there.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let node = self.take(key)?;
        self.inside(self.path_of(key), node)
    }

    /// A key that is a table or, in short, a single value.
    pub(super) fn table_or_value(&self, key: &'static str) -> Option<Result<Section<'a>, &'a Node>> {
        let node = self.take(key)?;
        match node.value {
            Value::Table(_) => self.inside(self.path_of(key), node).map(Ok),
            _ => Some(Err(node)),
        }
    }

    /// The tables under a key, by name.
    pub(super) fn named(&self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let path = self.path_of(key);
        let Some(outer) = self.inside(path.clone(), node) else {
            return Vec::new();
        };
        outer
            .table
            .entries
            .iter()
            .filter_map(|(name, (_, node))| Some((name.clone(), self.inside(format!("{path}.{name}"), node)?)))
            .collect()
    }

    /// The tables of an array, in order.
    pub(super) fn each(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let path = self.path_of(key);
        let Value::Array(items) = &node.value else {
            let found = node.value.kind();
            self.findings.error(
                &node.origin,
                format!("`{path}` is an array of tables, `[[{path}]]`, found {found}"),
            );
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items
            .filter_map(|(number, node)| self.inside(format!("{path}[{number}]"), node))
            .collect()
    }

    fn inside(&self, path: String, node: &'a Node) -> Option<Section<'a>> {
        match &node.value {
            Value::Table(table) => Some(Section::new(table, path, &node.origin, self.findings)),
            other => {
                self.findings
                    .error(&node.origin, format!("`{path}` is a table, found {}", other.kind()));
                None
            }
        }
    }

    /// Lets a key be, because it is read elsewhere.
    pub(super) fn skip(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
    }

    /// Reports every key that nothing asked for.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        for (key, (origin, _)) in &self.table.entries {
            if known.contains(&key.as_str()) {
                continue;
            }
            let place = if self.path.is_empty() {
                String::new()
            } else {
                format!(" in `{}`", self.path)
            };
            let help = suggestion(key, known.iter().copied()).map_or_else(
                || format!(", known are {}", list(&known)),
                |near| format!(", did you mean `{near}`?"),
            );
            self.findings.error(origin, format!("unknown key `{key}`{place}{help}"));
        }
    }
}

fn list(words: &[&'static str]) -> String {
    let mut words = words.to_vec();
    words.sort_unstable();
    words.dedup();
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
