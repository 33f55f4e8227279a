//! What a datastore promises, `objectives`, and what a restored copy of it must be, `[[datastore.X.assert]]` and
//! `canary`. Read and checked; who asks is a restore drill.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use backups::proof::{Assertion, Bound, Canary, Expectation, Number, Objectives};

use super::document::{Node, Value};
use super::finding::Findings;
use super::model::DatastoreKind;
use super::section::Section;
use super::values::{FromNode, Span, quoted};

/// What a datastore promises, and how that is proved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proof {
    /// What may be lost, how long it may take, how old a proof may be.
    pub(crate) objectives: Objectives,
    /// What a restored copy must be.
    pub(crate) assertions: Vec<Assertion>,
    /// What tells the time of its newest row.
    pub(crate) canary: Option<Canary>,
}

/// Everything about proof in `[datastore.NAME]`.
pub(super) fn proof(datastore: &Section<'_>, kind: Option<DatastoreKind>) -> Proof {
    let mut objectives = Objectives::default();
    if let Some(section) = datastore.section("objectives") {
        let seconds = |key| section.optional::<Span>(key).map(|span| span.0.as_secs_f64());
        objectives = Objectives {
            rpo_seconds: seconds("rpo"),
            rto_seconds: seconds("rto"),
            prove_every_seconds: seconds("prove_every"),
        };
        section.finish();
    }
    let sections = datastore.each("assert").into_iter();
    let assertions = sections
        .filter_map(|section| {
            let assertion = assertion(&section, kind);
            section.finish();
            assertion
        })
        .collect();
    let canary = datastore.section("canary").and_then(|section| {
        asks_a_database(&section, "sql", kind);
        let (query, database) = (query(&section), database(&section, kind));
        section.finish();
        Some(Canary {
            query: query?,
            database,
        })
    });
    Proof {
        objectives,
        assertions,
        canary,
    }
}

const WHAT: [&str; 5] = ["sql", "min_rows", "path", "min_files", "min_bytes"];

fn assertion(section: &Section<'_>, kind: Option<DatastoreKind>) -> Option<Assertion> {
    let name: Option<String> = section.optional("name");
    if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        section.findings().error(section.place("name"), "a name is not empty");
    }
    let database = database(section, kind);
    let given: Vec<&str> = WHAT.into_iter().filter(|key| section.has(key)).collect();
    let [what] = given.as_slice() else {
        for key in WHAT {
            section.skip(key);
        }
        for key in BOUNDS {
            section.skip(key);
        }
        section.findings().error(
            section.origin(),
            format!("an assertion needs one of `{}`, and only one", WHAT.join("`, `")),
        );
        return None;
    };
    if matches!(*what, "sql" | "min_rows") {
        asks_a_database(section, what, kind);
    } else if matches!(kind, Some(DatastoreKind::Sqlite | DatastoreKind::Postgres)) {
        section.findings().error(
            section.place(what),
            format!("`{what}` counts files, and this is a database: ask it with `sql` or `min_rows`"),
        );
    }
    let expect = match *what {
        "sql" => {
            let (query, bound) = (query(section), bound(section));
            Expectation::Sql {
                query: query?,
                bound: bound?,
            }
        }
        "min_rows" => Expectation::MinRows(section.optional::<Rows>("min_rows")?.0),
        "path" => Expectation::Path(section.optional::<Inside>("path")?.0),
        "min_files" => Expectation::MinFiles(section.optional::<Least>("min_files")?.0),
        _ => Expectation::MinBytes(section.optional::<Least>("min_bytes")?.0),
    };
    Some(Assertion { name, database, expect })
}

/// Which database of a server is asked.
fn database(section: &Section<'_>, kind: Option<DatastoreKind>) -> Option<String> {
    let database = section.optional("database");
    if database.is_some() && kind.is_some_and(|kind| kind != DatastoreKind::Postgres) {
        let told = "`database` names one of a server, and this is none";
        section.findings().error(section.place("database"), told);
    }
    database
}

/// Only a database can be asked.
fn asks_a_database(section: &Section<'_>, key: &str, kind: Option<DatastoreKind>) {
    if matches!(kind, Some(DatastoreKind::Files | DatastoreKind::Command)) {
        section.findings().error(
            section.place(key),
            format!("`{key}` asks a database, and this is none: use `path`, `min_files` or `min_bytes`"),
        );
    }
}

fn query(section: &Section<'_>) -> Option<String> {
    let query: String = section.required("sql")?;
    if query.trim().is_empty() {
        section.findings().error(section.place("sql"), "the query is empty");
        return None;
    }
    Some(query)
}

const BOUNDS: [&str; 4] = ["equals", "at_least", "at_most", "between"];

fn bound(section: &Section<'_>) -> Option<Bound> {
    let equals = section.optional::<Scalar>("equals").map(|scalar| match scalar {
        Scalar::Number(number) => Bound::EqualsNumber(number),
        Scalar::Text(text) => Bound::EqualsText(text),
    });
    let at_least = section.optional::<Number>("at_least").map(Bound::AtLeast);
    let at_most = section.optional::<Number>("at_most").map(Bound::AtMost);
    let between = section
        .optional::<Vec<Number>>("between")
        .and_then(|pair| match pair.as_slice() {
            [low, high] if low.as_f64() <= high.as_f64() => Some(Bound::Between(*low, *high)),
            _ => {
                let told = "expected the lower and the higher number, such as [1, 100]";
                section.findings().error(section.place("between"), told);
                None
            }
        });
    let given = BOUNDS.iter().filter(|key| section.has(key)).count();
    if given != 1 {
        section.findings().error(
            section.place("sql"),
            format!("a query needs one of `{}`, and only one", BOUNDS.join("`, `")),
        );
        return None;
    }
    equals.or(at_least).or(at_most).or(between)
}

fn expected<T>(node: &Node, findings: &Findings, what: &str) -> Option<T> {
    findings.error(&node.origin, format!("expected {what}, found {}", node.value.kind()));
    None
}

impl FromNode for Number {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match node.value {
            Value::Integer(number) => Some(Self::Integer(number)),
            Value::Float(number) if number.is_finite() => Some(Self::Real(number)),
            _ => expected(node, findings, "a finite number"),
        }
    }
    fn shown(&self) -> String {
        self.to_string()
    }
}

/// A number or a text.
enum Scalar {
    Number(Number),
    Text(String),
}

impl FromNode for Scalar {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Integer(_) | Value::Float(_) => Number::from_node(node, findings).map(Self::Number),
            _ => expected(node, findings, "a number or a string"),
        }
    }
    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.shown(),
            Self::Text(text) => quoted(text),
        }
    }
}

/// A count from zero on.
struct Least(u64);

impl FromNode for Least {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match node.value {
            Value::Integer(number) if number >= 0 => Some(Self(number.unsigned_abs())),
            _ => expected(node, findings, "a whole number from 0 on"),
        }
    }
    fn shown(&self) -> String {
        self.0.to_string()
    }
}

/// Tables and how many rows each must have.
struct Rows(BTreeMap<String, u64>);

impl FromNode for Rows {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match &node.value {
            Value::Table(table) if !table.entries.is_empty() => table
                .entries
                .iter()
                .map(|(name, (_, node))| Some((name.clone(), Least::from_node(node, findings)?.0)))
                .collect::<Option<_>>()
                .map(Self),
            _ => expected(node, findings, "a table such as { orders = 1 }"),
        }
    }
    fn shown(&self) -> String {
        let rows = self
            .0
            .iter()
            .map(|(table, least)| format!("{} = {least}", quoted(table)));
        format!("{{ {} }}", rows.collect::<Vec<_>>().join(", "))
    }
}

/// A path inside of the datastore.
struct Inside(PathBuf);

impl FromNode for Inside {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let path = PathBuf::from(String::from_node(node, findings)?);
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || path.as_os_str().is_empty() {
            findings.error(
                &node.origin,
                "expected a path inside of the datastore, such as \"logos/shop.png\"",
            );
            return None;
        }
        Some(Self(path))
    }
    fn shown(&self) -> String {
        quoted(&self.0.display().to_string())
    }
}
