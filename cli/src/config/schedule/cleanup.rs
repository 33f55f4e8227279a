//! `[cleanup.NAME]`: which rows may go. Read and checked; what deletes them is `crate::cleanup`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::document::{Node, Origin};
use super::super::finding::Findings;
use super::super::model::{Datastore, DatastoreKind};
use super::super::read::exists;
use super::super::section::Section;
use super::super::suggest::suggestion;
use super::super::values::{Address, FromNode, Span, quoted};
use super::condition;

/// A job that deletes what is not needed any more, a batch at a time.
#[derive(Debug, Clone)]
pub(crate) struct Cleanup {
    /// Its name.
    pub(crate) name: String,
    /// Where it is declared.
    pub(crate) origin: Origin,
    /// What goes.
    pub(crate) what: What,
    /// Rows of one transaction.
    pub(crate) batch: u32,
    /// Between two batches.
    pub(crate) pause: Duration,
    /// Rows of one run.
    pub(crate) max_rows: u64,
    /// Time of one run.
    pub(crate) max_time: Duration,
}

/// What goes, and who does it.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// Rows of a table that meet a condition.
    Rows(Rows),
    /// What a statement of the user's deletes.
    Statement(Statement),
    /// What a service does when it is asked to.
    Call(Call),
}

/// `table` and `where`.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    /// The datastore.
    pub(crate) datastore: String,
    /// Names of the schema, if any, and the table.
    pub(crate) table: Vec<String>,
    /// SQL that is true of the rows that go; `:cutoff` stands for an instant.
    pub(crate) condition: String,
    /// What `:cutoff` is.
    pub(crate) cutoff: Option<Cutoff>,
}

/// `sql`.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// The datastore.
    pub(crate) datastore: String,
    /// One statement with `:batch`, and perhaps `:cutoff`.
    pub(crate) sql: String,
    /// What `:cutoff` is.
    pub(crate) cutoff: Option<Cutoff>,
}

/// `call`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Who is asked.
    pub(crate) to: CallTo,
    /// `POST`, or what is said.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// JSON.
    pub(crate) body: Option<String>,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) enum CallTo {
    /// A service that runs here, through its front door.
    Service(String),
    /// An address.
    Url(String),
}

/// What `:cutoff` stands for: an instant that long ago.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutoff {
    /// How long ago.
    pub(crate) older_than: Duration,
    /// How the column has instants.
    pub(crate) kind: CutoffKind,
}

/// How a column has instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutoffKind {
    /// `timestamptz` of PostgreSQL.
    Timestamp,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Text such as `2026-11-22 02:00:00`, in UTC.
    Text,
}

impl CutoffKind {
    const ALL: [(&'static str, Self); 5] = [
        ("timestamp", Self::Timestamp),
        ("seconds", Self::Seconds),
        ("milliseconds", Self::Milliseconds),
        ("microseconds", Self::Microseconds),
        ("text", Self::Text),
    ];
}

impl FromNode for CutoffKind {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        let found = Self::ALL.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind);
        if found.is_none() {
            let help = suggestion(&text, Self::ALL.iter().map(|(word, _)| *word)).map_or_else(
                || format!("known are {}", Self::ALL.map(|(word, _)| word).join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            findings.error(&node.origin, format!("no column has instants as `{text}`, {help}"));
        }
        found
    }
    fn shown(&self) -> String {
        quoted(
            Self::ALL
                .iter()
                .find(|(_, kind)| kind == self)
                .map_or("", |(word, _)| word),
        )
    }
}

/// Reads a table. Keys of the schedule were read before.
pub(super) fn read(
    name: &str,
    section: &Section<'_>,
    datastores: &BTreeMap<String, Datastore>,
    services: &BTreeSet<String>,
) -> Option<Cleanup> {
    let findings = section.findings();
    let datastore: Option<String> = section.optional("datastore");
    let (table, condition): (Option<String>, Option<String>) = (section.optional("table"), section.optional("where"));
    let sql: Option<String> = section.optional("sql");
    let cutoff = section.section("cutoff").map(|section| {
        let older: Option<Span> = section.required("older_than");
        let kind = section.required("as");
        section.finish();
        older.zip(kind).map(|(older, kind)| Cutoff {
            older_than: older.0,
            kind,
        })
    });
    let has_cutoff = cutoff.is_some();
    let cutoff = cutoff.flatten();
    let call = section.section("call").map(|call| self::call(call, services));
    let batch = section.or("batch", 500_u32);
    if !(1..=100_000).contains(&batch) {
        let told = format!("a batch of {batch} rows locks others out: expected 1 to 100000");
        findings.error(section.place("batch"), told);
    }
    let pause = section.or("pause", Span(Duration::from_millis(100))).0;
    let max_rows = section.or("max_rows", 1_000_000_u32).into();
    let max_time = section.or("max_time", Span(Duration::from_mins(10))).0;

    if let Some(datastore) = &datastore {
        let known = datastores.keys().map(String::as_str);
        let who = format!("cleanup `{name}` is for");
        exists(
            datastore,
            known,
            "datastore",
            &who,
            section.place("datastore"),
            findings,
        );
        if let Some(store) = datastores.get(datastore) {
            if !matches!(store.kind, DatastoreKind::Sqlite | DatastoreKind::Postgres) {
                let told = format!(
                    "datastore `{datastore}` is of kind `{}`, rows are of sqlite and postgres",
                    store.kind.word()
                );
                findings.error(section.place("datastore"), told);
            } else if store.kind == DatastoreKind::Postgres && store.dsn.is_none() {
                let told = format!("datastore `{datastore}` has no `dsn`, so that nobody can connect to it");
                findings.error(section.place("datastore"), told);
            }
            if let Some(cutoff) = cutoff
                && cutoff.kind == CutoffKind::Timestamp
                && store.kind == DatastoreKind::Sqlite
            {
                let told = "SQLite has no timestamps: `as` is seconds, milliseconds, microseconds or text";
                findings.error(section.place("cutoff"), told);
            }
        }
    }
    let check_cutoff = |text: &str, key: &'static str| {
        let named = condition::placeholders(text);
        match (named.iter().any(|name| name == "cutoff"), has_cutoff) {
            (true, false) => findings.error(
                section.place(key),
                "`:cutoff` needs `cutoff = { older_than = \"7d\", as = \"timestamp\" }`",
            ),
            (false, true) => findings.error(section.place("cutoff"), format!("`{key}` does not name `:cutoff`")),
            _ => {}
        }
        for other in named {
            if other != "cutoff" && !(other == "batch" && key == "sql") {
                findings.error(section.place(key), format!("`:{other}` stands for nothing here"));
            }
        }
    };
    let need = |key: &str| findings.error(section.origin(), format!("`cleanup.{name}` needs `{key}`"));

    let what = match (table, sql, call) {
        (Some(table), None, None) => {
            let Some(condition) = condition else {
                findings.error(
                    section.origin(),
                    format!("`cleanup.{name}` needs `where`: without a condition every row of `{table}` would go"),
                );
                return None;
            };
            if let Err(wrong) = condition::check(&condition) {
                findings.error(section.place("where"), wrong);
            }
            check_cutoff(&condition, "where");
            let table: Vec<String> = table.split('.').map(str::to_owned).collect();
            if table.len() > 2 || table.iter().any(|part| part.is_empty() || part.contains('\0')) {
                findings.error(section.place("table"), "expected the name of a table, or schema.table");
            }
            if datastore.is_none() {
                need("datastore");
            }
            What::Rows(Rows {
                datastore: datastore?,
                table,
                condition,
                cutoff,
            })
        }
        (None, Some(sql), None) => {
            if let Err(wrong) = condition::check_statement(&sql) {
                findings.error(section.place("sql"), wrong);
            }
            if condition.is_some() {
                findings.error(section.place("where"), "`where` goes with `table`; `sql` has its own");
            }
            check_cutoff(&sql, "sql");
            if datastore.is_none() {
                need("datastore");
            }
            What::Statement(Statement {
                datastore: datastore?,
                sql,
                cutoff,
            })
        }
        (None, None, Some(call)) => {
            for (key, there) in [
                ("datastore", datastore.is_some()),
                ("where", condition.is_some()),
                ("cutoff", has_cutoff),
            ] {
                if there {
                    findings.error(section.place(key), format!("`{key}` does not go with `call`"));
                }
            }
            What::Call(call?)
        }
        _ => {
            findings.error(
                section.origin(),
                format!("`cleanup.{name}` needs one of `table` with `where`, `sql`, `call`"),
            );
            return None;
        }
    };
    Some(Cleanup {
        name: name.to_owned(),
        origin: section.origin().clone(),
        what,
        batch,
        pause,
        max_rows,
        max_time,
    })
}

fn call(section: Section<'_>, services: &BTreeSet<String>) -> Option<Call> {
    let service: Option<String> = section.optional("service");
    let url: Option<Address> = section.optional("url");
    let method = section.or("method", "POST".to_owned());
    let path: Option<String> = section.required("path");
    let body: Option<String> = section.optional("body");
    let findings = section.findings();
    if !["POST", "DELETE", "PUT"].contains(&method.as_str()) {
        findings.error(
            section.place("method"),
            format!("`{method}` deletes nothing: expected POST, PUT or DELETE"),
        );
    }
    if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        findings.error(section.place("path"), "a path begins with `/`");
    }
    if let Some(body) = &body
        && serde_json::from_str::<serde_json::Value>(body).is_err()
    {
        findings.error(section.place("body"), "the body is not JSON");
    }
    if let Some(service) = &service {
        let known = services.iter().map(String::as_str);
        exists(
            service,
            known,
            "service",
            "the call is to",
            section.place("service"),
            findings,
        );
    }
    let to = match (service, url) {
        (Some(service), None) => Some(CallTo::Service(service)),
        (None, Some(url)) => Some(CallTo::Url(url.0)),
        _ => {
            findings.error(section.origin(), "a call needs either `service` or `url`");
            None
        }
    };
    section.finish();
    Some(Call {
        to: to?,
        method,
        path: path?,
        body,
    })
}
