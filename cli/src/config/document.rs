//! The files as a tree in which every value knows where it came from: parsing with places, includes, and the merge
//! of layers (tables key by key, everything else replaced). It knows nothing of what the keys mean.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use toml::de::{DeTable, DeValue};

use super::finding::Findings;
use super::{ConfigError, locate};
use crate::context::Context;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A place in a file, lines and columns from 1.
    File {
        /// The file as shown to people.
        file: Arc<str>,
        /// The file's folder, which relative paths in it start from.
        folder: Arc<Path>,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
    /// Built in.
    Default,
}

impl Origin {
    /// The folder that relative paths start from, if a file is the origin.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::File { folder, .. } => Some(folder),
            Self::Variable(_) | Self::Flag(_) | Self::Default => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "{name}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Default => write!(f, "default"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// What it is, for "expected …, found …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Datetime => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A table: the key's place and its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<String, (Origin, Node)>,
}

impl Table {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(key).map(|(_, node)| node)
    }

    /// The table under a key, if it is one.
    pub(super) fn table(&self, key: &str) -> Option<&Self> {
        match &self.get(key)?.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Lays `over` on top: tables merge key by key, everything else is replaced.
    pub(super) fn merge(&mut self, over: &Self) {
        for (key, (origin, node)) in &over.entries {
            if let (
                Some((
                    _,
                    Node {
                        value: Value::Table(below),
                        ..
                    },
                )),
                Value::Table(above),
            ) = (self.entries.get_mut(key), &node.value)
            {
                below.merge(above);
            } else {
                self.entries.insert(key.clone(), (origin.clone(), node.clone()));
            }
        }
    }

    /// Sets the value at a path, making tables on the way.
    pub(super) fn set(&mut self, path: &[&str], node: Node) {
        let [first, rest @ ..] = path else { return };
        if rest.is_empty() {
            self.entries.insert((*first).to_owned(), (node.origin.clone(), node));
            return;
        }
        let origin = node.origin.clone();
        let entry = self.entries.entry((*first).to_owned()).or_insert_with(|| {
            (
                origin.clone(),
                Node {
                    value: Value::Table(Self::default()),
                    origin: origin.clone(),
                },
            )
        });
        if !matches!(entry.1.value, Value::Table(_)) {
            entry.1 = Node {
                value: Value::Table(Self::default()),
                origin,
            };
        }
        if let Value::Table(table) = &mut entry.1.value {
            table.set(rest, node);
        }
    }
}

/// The main file with its included files merged in.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) table: Table,
    pub(super) findings: Findings,
}

/// The tables that an included file may hold.
const INCLUDABLE: [&str; 3] = ["service", "datastore", "team"];

/// Reads the main file and what it includes. Errors inside the files are collected, not returned.
pub(super) fn read_all(context: &Context, file: &Path) -> Result<Document, ConfigError> {
    let findings = Findings::default();
    let mut table = read_one(context, file, &findings)?;
    for (pattern, origin) in includes(&table, &findings) {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let files = expand(folder, &pattern);
        if files.is_empty() && !pattern.contains(['*', '?']) {
            findings.error(&origin, format!("there is no file `{pattern}`"));
        }
        for included in files.into_iter().filter(|included| included != file) {
            let part = read_one(context, &included, &findings)?;
            add(&mut table, part, &findings);
        }
    }
    Ok(Document { table, findings })
}

fn includes(table: &Table, findings: &Findings) -> Vec<(String, Origin)> {
    let Some(node) = table.get("include") else {
        return Vec::new();
    };
    let Value::Array(items) = &node.value else {
        findings.error(
            &node.origin,
            format!("`include` is an array of file names, found {}", node.value.kind()),
        );
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::String(pattern) => Some((pattern.clone(), item.origin.clone())),
            other => {
                findings.error(
                    &item.origin,
                    format!("`include` holds file names, found {}", other.kind()),
                );
                None
            }
        })
        .collect()
}

/// Adds an included file: only service, datastore and team tables, no name twice.
fn add(main: &mut Table, part: Table, findings: &Findings) {
    for (key, (key_origin, node)) in part.entries {
        if !INCLUDABLE.contains(&key.as_str()) {
            let why = if key == "include" {
                "includes do not nest"
            } else {
                "an included file holds only service, datastore and team tables"
            };
            findings.error(&key_origin, format!("`{key}` cannot stand here: {why}"));
            continue;
        }
        let Value::Table(named) = node.value else {
            findings.error(
                &node.origin,
                format!("`{key}` is a table of tables, found {}", node.value.kind()),
            );
            continue;
        };
        for (name, (name_origin, table)) in named.entries {
            if let Some((first, _)) = main.table(&key).and_then(|tables| tables.entries.get(&name)) {
                findings.error(
                    &name_origin,
                    format!("`{key}.{name}` is declared twice, first at {first}"),
                );
            } else {
                main.set(
                    &[&key, &name],
                    Node {
                        origin: name_origin,
                        value: table.value,
                    },
                );
            }
        }
    }
}

fn read_one(context: &Context, file: &Path, findings: &Findings) -> Result<Table, ConfigError> {
    let text = locate::read_trusted(context, file)?;
    let places = Places::new(&context.shown(file), file.parent().unwrap_or(Path::new("/")), &text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    let broken = !errors.is_empty();
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        findings.error(&places.origin(at), error.message().trim_end().replace('\n', ", "));
    }
    // What follows a syntax error is guesswork: unknown keys of it would only confuse.
    if broken {
        return Err(ConfigError::Invalid {
            file: context.shown(file),
            diagnostics: findings.take(),
        });
    }
    Ok(places.table(table.get_ref()))
}

/// Parses one TOML value as in an environment variable; what is no TOML value is a string.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Node {
    let value = DeValue::parse(text)
        .ok()
        .map(|value| plain(value.get_ref(), &|_| origin.clone()));
    Node {
        value: value.unwrap_or_else(|| Value::String(text.to_owned())),
        origin: origin.clone(),
    }
}

/// Byte offsets of one file as lines and columns.
struct Places<'a> {
    file: Arc<str>,
    folder: Arc<Path>,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(file: &str, folder: &Path, text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            file: file.into(),
            folder: folder.into(),
            text,
            line_starts,
        }
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Origin::File {
            file: Arc::clone(&self.file),
            folder: Arc::clone(&self.folder),
            line,
            column,
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        convert(table, &|offset| self.origin(offset))
    }
}

fn convert(table: &DeTable<'_>, place: &dyn Fn(usize) -> Origin) -> Table {
    let entries = table.iter().map(|(key, value)| {
        let node = Node {
            value: plain(value.get_ref(), place),
            origin: place(value.span().start),
        };
        (key.get_ref().to_string(), (place(key.span().start), node))
    });
    Table {
        entries: entries.collect(),
    }
}

fn plain(value: &DeValue<'_>, place: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Integer),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| Node {
                    value: plain(item.get_ref(), place),
                    origin: place(item.span().start),
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert(table, place)),
    }
}

/// The files that a pattern names, sorted. `*` and `?` match inside one part of a path.
fn expand(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for part in Path::new(pattern) {
        let part = part.to_string_lossy();
        if !part.contains(['*', '?']) {
            for path in &mut found {
                path.push(&*part);
            }
            continue;
        }
        let mut next = Vec::new();
        for path in &found {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if !name.starts_with('.') && matches(part.as_bytes(), name.as_bytes()) {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => matches(&pattern[1..], name) || (!name.is_empty() && matches(pattern, &name[1..])),
        (Some(b'?'), Some(_)) => matches(&pattern[1..], &name[1..]),
        (Some(left), Some(right)) if left == right => matches(&pattern[1..], &name[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Origin, Table, Value, matches, parse_value};

    #[test]
    fn wildcards_match_inside_one_part() {
        assert!(matches(b"*.toml", b"opsctl.toml"));
        assert!(matches(b"o?s*", b"opsctl"));
        assert!(!matches(b"*.tml", b"opsctl.toml"));
    }

    #[test]
    fn tables_merge_and_arrays_replace() {
        let value = |text: &str| match parse_value(text, &Origin::Default).value {
            Value::Table(table) => table,
            other => panic!("{other:?}"),
        };
        let mut base = value("{ a = { x = 1, y = [1, 2] } }");
        base.merge(&value("{ a = { y = [3], z = 4 } }"));
        let a = base.table("a").expect("a table");
        assert_eq!(a.entries.keys().collect::<Vec<_>>(), ["x", "y", "z"]);
        assert!(matches!(&a.get("y").expect("y").value, Value::Array(items) if items.len() == 1));
    }

    #[test]
    fn a_value_that_is_no_toml_is_a_string() {
        let mut table = Table::default();
        table.set(&["objectives", "availability"], parse_value("99.9%", &Origin::Default));
        assert!(matches!(
            table.table("objectives").and_then(|table| table.get("availability")),
            Some(Node { value: Value::String(text), .. }) if text == "99.9%"
        ));
    }
}
