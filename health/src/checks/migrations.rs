//! Whether the database's schema is the one that this program was built for: the migrations that it carries against those
//! that the database says were applied. It compares and never migrates.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Asking;
use crate::check::{Check, Failure, Outcome, Reason};

#[cfg(feature = "postgres")]
mod postgres;

#[cfg(feature = "postgres")]
pub use postgres::Table;

/// A migration that the program carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number; migrations are applied in this order.
    pub version: i64,
    /// Checksum of its text, in the form of the tool that applies it.
    pub checksum: Vec<u8>,
}

/// A migration as the database tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub version: i64,
    /// Checksum of the text that was applied.
    pub checksum: Vec<u8>,
    /// Whether it ran to its end.
    pub success: bool,
}

/// How a migration differs between program and database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The program has it, the database does not.
    Missing(i64),
    /// It was begun and did not end.
    Failed(i64),
    /// It was applied with another text.
    Changed(i64),
    /// The database has it, the program does not; it is newer than all that the program has.
    Newer(i64),
    /// The database has it, the program does not, though the program has newer ones.
    Unknown(i64),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(version) => write!(f, "{version} is missing"),
            Self::Failed(version) => write!(f, "{version} failed"),
            Self::Changed(version) => write!(f, "{version} was applied with another text"),
            Self::Newer(version) => write!(f, "{version} is newer than this program"),
            Self::Unknown(version) => write!(f, "{version} is unknown to this program"),
        }
    }
}

/// Every difference, by version.
pub fn compare(embedded: &[Migration], applied: &[Applied]) -> Vec<(i64, Difference)> {
    let newest = embedded.iter().map(|migration| migration.version).max();
    let mut differences = Vec::new();
    for migration in embedded {
        let version = migration.version;
        let Some(found) = applied.iter().find(|applied| applied.version == version) else {
            differences.push((version, Difference::Missing(version)));
            continue;
        };
        if found.success && found.checksum != migration.checksum {
            differences.push((version, Difference::Changed(version)));
        }
    }
    for Applied { version, success, .. } in applied {
        let version = *version;
        if !success {
            differences.push((version, Difference::Failed(version)));
        } else if embedded.iter().all(|migration| migration.version != version) {
            let newer = newest.is_none_or(|newest| version > newest);
            let of_version = if newer { Difference::Newer } else { Difference::Unknown };
            differences.push((version, of_version(version)));
        }
    }
    differences.sort_by_key(|(version, _)| *version);
    differences
}

type ReadApplied = dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<Applied>, Failure>> + Send>> + Send + Sync;

/// Fails while the database's schema is not the program's. A newer one is a warning: while a new version is rolled out,
/// the old one sees it, and migrations that a roll-out survives are made so that it works.
///
/// What a database says belongs to all instances, but what to do about it is each instance's own: register it as critical
/// with `OnDown::NotReady`, so that a version whose migrations were not run gets no traffic.
pub struct MigrationCheck {
    embedded: Vec<Migration>,
    applied: Box<ReadApplied>,
    refuse_newer: bool,
    seen_good: AtomicBool,
}

impl fmt::Debug for MigrationCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigrationCheck")
            .field("embedded", &self.embedded.len())
            .finish_non_exhaustive()
    }
}

impl MigrationCheck {
    /// The program carries `embedded`; `applied` reads what the database has.
    pub fn new<F, Fut, E>(embedded: impl IntoIterator<Item = Migration>, applied: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Applied>, E>> + Send + 'static,
        E: Into<Failure>,
    {
        Self {
            embedded: embedded.into_iter().collect(),
            applied: Box::new(move || {
                let applied = applied();
                Box::pin(async move { applied.await.map_err(Into::into) })
            }),
            refuse_newer: false,
            seen_good: AtomicBool::new(false),
        }
    }

    /// A schema that is newer than the program fails too.
    #[must_use]
    pub fn refuse_newer(mut self) -> Self {
        self.refuse_newer = true;
        self
    }

    fn judge(&self, applied: &[Applied]) -> Outcome {
        let differences = compare(&self.embedded, applied);
        if differences.is_empty() {
            return Outcome::Pass;
        }
        let all: Vec<String> = differences
            .iter()
            .map(|(_, difference)| difference.to_string())
            .collect();
        let failure = Failure::new(Reason::Protocol, format!("migrations: {}", all.join(", ")));
        let harmless = |difference: &Difference| matches!(difference, Difference::Newer(_)) && !self.refuse_newer;
        if differences.iter().all(|(_, difference)| harmless(difference)) {
            Outcome::Warn(failure)
        } else {
            Outcome::Fail(failure)
        }
    }
}

impl Check for MigrationCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move {
            match (self.applied)().await {
                Ok(applied) => {
                    let outcome = self.judge(&applied);
                    self.seen_good
                        .store(!matches!(outcome, Outcome::Fail(_)), Ordering::Relaxed);
                    outcome
                }
                // A schema that was good does not become bad because the pool is full.
                Err(full) if full.reason == Reason::Saturated && self.seen_good.load(Ordering::Relaxed) => {
                    Outcome::Warn(full)
                }
                Err(failure) => Outcome::Fail(failure),
            }
        })
    }

    fn component_type(&self) -> &'static str {
        "datastore"
    }
}
