//! The questions that are asked of a restored copy: what the catalogue asserts of a datastore, and the canary row. The
//! copy is foreign data: it is opened to be read only, no query may leave it or run for ever, and no link is followed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle};

use super::judge::{Bound, Number, Value};
use super::live::{Live, Server};
use super::record::{Check, Group, Outcome};
use super::session::Session;
use crate::Error;
use crate::postgres::quoted;
use crate::source::sqlite::open_copy;
use crate::threads::blocking;

/// Something that a restored copy must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// What reports call it; its own words where it has no name.
    pub name: Option<String>,
    /// Of a server with several databases, the one that is asked.
    pub database: Option<String>,
    /// What must hold.
    pub expect: Expectation,
}

/// What must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// The first column of the first row of a query.
    Sql {
        /// One statement that changes nothing.
        query: String,
        /// What it must answer.
        bound: Bound,
    },
    /// Tables must have so many rows at least.
    MinRows(BTreeMap<String, u64>),
    /// A path inside of the datastore must exist.
    Path(PathBuf),
    /// There must be so many regular files at least.
    MinFiles(u64),
    /// They must have so many bytes at least.
    MinBytes(u64),
}

/// A query that tells the time of the newest row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// One statement that changes nothing.
    pub query: String,
    /// Of a server with several databases, the one that is asked.
    pub database: Option<String>,
}

/// A restored copy that can be asked.
pub(crate) struct Subject {
    /// The datastore's own file or folder in the scratch place.
    pub(super) root: PathBuf,
    /// Whom the questions go to, if there is somebody.
    asked: Asked,
}

/// Whom the questions go to.
enum Asked {
    Nobody,
    Database(Database),
    Server(Server),
    Session(Session),
}

impl Subject {
    /// Opens a copy. For a database the first query is made here.
    pub(super) async fn open(
        root: PathBuf,
        is_database: bool,
        limit: Duration,
    ) -> Result<(Self, Option<Check>), Error> {
        if !is_database {
            return Ok((
                Self {
                    root,
                    asked: Asked::Nobody,
                },
                None,
            ));
        }
        let opening = root.clone();
        let opened = blocking(move || open_copy(&opening)).await?;
        let mut database = match opened {
            Ok(connection) => Database {
                connection: Some(connection),
                limit,
            },
            Err(error) => {
                let check = outcome(
                    "first query",
                    "an answer",
                    Err(Refused::Failed(error.to_string())),
                    |_| true,
                );
                return Ok((
                    Self {
                        root,
                        asked: Asked::Nobody,
                    },
                    Some(check),
                ));
            }
        };
        let answer = database.ask("SELECT count(*) FROM sqlite_schema".to_owned()).await?;
        let check = outcome("first query", "an answer", answer, |_| true);
        let asked = Asked::Database(database);
        Ok((Self { root, asked }, Some(check)))
    }

    /// A server that has come to life.
    pub(crate) fn of_server(root: PathBuf, live: Box<dyn Live>, limit: Duration) -> Self {
        let asked = Asked::Server(Server { live, limit });
        Self { root, asked }
    }

    /// A database of a server that lives anyway.
    pub(super) fn of_session(session: Session) -> Self {
        Self {
            root: PathBuf::new(),
            asked: Asked::Session(session),
        }
    }

    /// Ends what has come to life. Returns its version.
    pub(super) async fn stop(self) -> Result<Option<String>, Error> {
        let Asked::Server(server) = self.asked else {
            return Ok(None);
        };
        let version = server.live.version();
        server.live.stop().await?;
        Ok(Some(version))
    }

    /// Asks one question; several answers where it is about several tables.
    pub(crate) async fn check(&mut self, assertion: &Assertion) -> Result<Vec<Check>, Error> {
        let named = |words: &str| assertion.name.clone().unwrap_or_else(|| words.to_owned());
        let database = assertion.database.as_deref();
        Ok(match &assertion.expect {
            Expectation::Sql { query, bound } => {
                let answer = self.ask(query, database).await?;
                vec![outcome(&named(query), &bound.to_string(), answer, |value| {
                    bound.holds(value)
                })]
            }
            Expectation::MinRows(tables) => {
                let mut checks = Vec::new();
                for (table, least) in tables {
                    let query = format!("SELECT count(*) FROM {}", self.table(table));
                    let answer = self.ask(&query, database).await?;
                    let name = match &assertion.name {
                        Some(name) => format!("{name}: {table}"),
                        None => format!("rows of {table}"),
                    };
                    checks.push(outcome(
                        &name,
                        &format!("at least {least}"),
                        answer,
                        |value| matches!(value, Value::Integer(rows) if i128::from(*rows) >= i128::from(*least)),
                    ));
                }
                checks
            }
            Expectation::Path(path) => {
                let (root, inside) = (self.root.clone(), path.clone());
                let there = blocking(move || exists(&root, &inside)).await?;
                let (observed, met) = match there {
                    Ok(true) => ("there".to_owned(), true),
                    Ok(false) => ("missing".to_owned(), false),
                    Err(error) => (error.to_string(), false),
                };
                vec![Check {
                    group: Group::Assertion,
                    name: named(&format!("path {}", path.display())),
                    expected: "there".to_owned(),
                    observed,
                    figure: None,
                    outcome: Outcome::of(met),
                }]
            }
            Expectation::MinFiles(least) => vec![self.count(&named("files"), *least, |count| count.files).await?],
            Expectation::MinBytes(least) => vec![self.count(&named("bytes"), *least, |count| count.bytes).await?],
        })
    }

    /// What the canary's query answers, or why it does not.
    pub(crate) async fn newest(&mut self, canary: &Canary) -> Result<Result<Value, String>, Error> {
        let answer = self.ask(&canary.query, canary.database.as_deref()).await?;
        Ok(answer.map_err(|refused| refused.to_string()))
    }

    async fn ask(&mut self, query: &str, of: Option<&str>) -> Result<Result<Value, Refused>, Error> {
        match &mut self.asked {
            Asked::Database(database) => database.ask(query.to_owned()).await,
            Asked::Server(server) => Ok(server.ask(query, of).await),
            Asked::Session(session) => Ok(session.ask(query).await),
            Asked::Nobody => Ok(Err(Refused::Failed(
                "there is no database that could be asked".to_owned(),
            ))),
        }
    }

    /// A table as it stands in a query. A server's may have the name of their schema before theirs.
    fn table(&self, name: &str) -> String {
        match (&self.asked, name.split_once('.')) {
            (Asked::Server(_) | Asked::Session(_), Some((schema, table))) => {
                format!("{}.{}", quoted(schema), quoted(table))
            }
            _ => quoted(name),
        }
    }

    async fn count(&self, name: &str, least: u64, pick: fn(Count) -> u64) -> Result<Check, Error> {
        let root = self.root.clone();
        let counted = blocking(move || count(&root)).await?;
        let answer = counted
            .map(|count| Value::Integer(i64::try_from(pick(count)).unwrap_or(i64::MAX)))
            .map_err(|error| Refused::Failed(error.to_string()));
        Ok(outcome(
            name,
            &format!("at least {least}"),
            answer,
            |value| matches!(value, Value::Integer(seen) if i128::from(*seen) >= i128::from(least)),
        ))
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// The question cannot be answered by this copy, such as for want of a table.
    #[error("{0}")]
    Failed(String),
    /// It took too long, which says nothing about the copy.
    #[error("there was no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

fn outcome(name: &str, expected: &str, answer: Result<Value, Refused>, holds: impl FnOnce(&Value) -> bool) -> Check {
    let (observed, figure, outcome) = match &answer {
        Ok(value) => (
            value.to_string(),
            value.number().map(Number::as_f64).filter(|figure| figure.is_finite()),
            Outcome::of(holds(value)),
        ),
        Err(refused @ Refused::Failed(_)) => (refused.to_string(), None, Outcome::NotMet),
        Err(refused @ Refused::TimedOut(_)) => (refused.to_string(), None, Outcome::Unknown),
    };
    Check {
        group: Group::Assertion,
        name: name.to_owned(),
        expected: expected.to_owned(),
        observed,
        figure,
        outcome,
    }
}

/// A connection, lent to a thread for each query.
struct Database {
    connection: Option<Connection>,
    limit: Duration,
}

/// How often a query that should end is told so: one that was just about to begin does not hear it.
const INSIST: Duration = Duration::from_millis(20);

/// Ends the query when nobody waits for it any more.
struct EndOnDrop {
    handle: Arc<InterruptHandle>,
    given_up: Arc<AtomicBool>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Release);
        self.handle.interrupt();
    }
}

impl Database {
    async fn ask(&mut self, query: String) -> Result<Result<Value, Refused>, Error> {
        let Some(connection) = self.connection.take() else {
            return Ok(Err(Refused::Failed("the connection was lost".to_owned())));
        };
        let given_up = Arc::new(AtomicBool::new(false));
        let ending = EndOnDrop {
            handle: Arc::new(connection.get_interrupt_handle()),
            given_up: Arc::clone(&given_up),
        };
        let asking = blocking(move || {
            let answer = if given_up.load(Ordering::Acquire) {
                Err("given up".to_owned())
            } else {
                first_value(&connection, &query)
            };
            (connection, answer)
        });
        tokio::pin!(asking);
        let mut wait = self.limit;
        let mut timed_out = false;
        let (connection, answer) = loop {
            tokio::select! {
                answered = &mut asking => break answered?,
                () = tokio::time::sleep(wait) => {
                    (timed_out, wait) = (true, INSIST);
                    ending.handle.interrupt();
                }
            }
        };
        self.connection = Some(connection);
        Ok(match answer {
            Ok(value) => Ok(value),
            Err(_) if timed_out => Err(Refused::TimedOut(self.limit)),
            Err(why) => Err(Refused::Failed(why)),
        })
    }
}

fn first_value(connection: &Connection, query: &str) -> Result<Value, String> {
    let mut statement = connection.prepare(query).map_err(|error| error.to_string())?;
    // What attaches other databases or sets something has no columns either.
    if !statement.readonly() || statement.column_count() == 0 {
        return Err("this is no query: it asks for nothing, or would change something".to_owned());
    }
    let mut rows = statement.query([]).map_err(|error| error.to_string())?;
    let row = rows.next().map_err(|error| error.to_string())?;
    let Some(row) = row else { return Ok(Value::Nothing) };
    Ok(match row.get_ref(0).map_err(|error| error.to_string())? {
        ValueRef::Null => Value::Nothing,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.len()),
    })
}

/// Whether a path inside of `root` exists; a link on the way leads elsewhere, so what is behind it is not inside.
fn exists(root: &Path, inside: &Path) -> io::Result<bool> {
    let mut path = root.to_owned();
    let mut parts = inside.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Ok(false),
        }
        match path.symlink_metadata() {
            Ok(metadata) if parts.peek().is_none() || metadata.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(path.symlink_metadata().is_ok())
}

/// Regular files and their bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    files: u64,
    bytes: u64,
}

fn count(root: &Path) -> io::Result<Count> {
    let mut count = Count::default();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if metadata.is_file() {
            count.files += 1;
            count.bytes = count.bytes.saturating_add(metadata.len());
        }
    }
    Ok(count)
}
