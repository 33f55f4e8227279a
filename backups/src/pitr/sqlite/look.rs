//! One look at a live database: has it changed since the last one, and which pages are different now? Blocking code: runs
//! on a thread made for it.
//!
//! Between looks no transaction is open, so nobody is kept from checkpointing. The connection stays, because only the
//! same one can be asked whether others committed (`PRAGMA data_version`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tokio_util::sync::CancellationToken;

use super::chain::rounded;
use super::table::{Table, hash_page, is_page_size};
use super::wal::{self, Position};
use crate::clock;
use crate::error::Error;
use crate::source::SourceError;
use crate::source::sqlite::Staging;
use crate::source::sqlite::copy::{failed, open_live, refuse_what_is_no_database};

/// Pages between two questions whether anybody still wants to know.
const PAGES_A_STEP: u64 = 1024;

/// What a look at the database needs and remembers.
pub(super) struct Live {
    database: PathBuf,
    staging: PathBuf,
    /// Copy the database to read it, as a SQLite without `sqlite_dbpage` has to.
    by_copy: bool,
    open: Option<Open>,
    /// The log once told less than there was: it is not asked again.
    distrust: bool,
}

struct Open {
    connection: Connection,
    /// Device and inode.
    identity: (u64, u64),
    log: PathBuf,
    /// What `data_version` was when everything was known.
    version: Option<i64>,
    /// Where the log was.
    position: Option<Position>,
}

/// What was seen.
pub(super) enum Look {
    /// Nobody committed anything since the last look.
    Unchanged {
        /// This was so at that time.
        at: Timestamp,
    },
    /// Somebody did; perhaps without changing a page.
    Changed(Changes),
    /// All pages have another size.
    Different,
}

/// The difference between what was known and what is.
pub(super) struct Changes {
    /// Not all of it: it is more than one set may hold. Only a later look that finds the rest leads to a state of the
    /// database; whatever changed by then, that look finds it, too.
    pub(super) partial: bool,
    pub(super) complete_until: Timestamp,
    pub(super) taken_at: Timestamp,
    pub(super) page_size: u32,
    pub(super) page_count: u32,
    /// Rising.
    pub(super) numbers: Vec<u32>,
    pub(super) hashes: Vec<u128>,
    pub(super) content: Vec<u8>,
    /// How many pages were read.
    pub(super) compared: u64,
    /// How many of them had changed without the log's knowledge.
    pub(super) missed: u64,
}

/// Which pages are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// Those that may have changed since the last look.
    Changed,
    /// All, to see whether the log told everything.
    All,
    /// All, because the table is not of the last look.
    Anew,
}

impl Live {
    pub(super) fn new(database: PathBuf, staging: PathBuf, by_copy: bool) -> Self {
        Self {
            database,
            staging,
            by_copy,
            open: None,
            distrust: false,
        }
    }

    /// Looks. After an error the next look begins anew, and compares everything.
    pub(super) fn look(
        &mut self,
        table: &Table,
        compare: Compare,
        limit: usize,
        cancel: &CancellationToken,
    ) -> Result<Look, Error> {
        let began = rounded(clock::now(), false);
        let mut open = self.opened()?;
        if compare == Compare::Changed && open.version.is_some() {
            let version = data_version(&open.connection).map_err(|source| failed(&self.database, source))?;
            if open.version == Some(version) {
                self.open = Some(open);
                return Ok(Look::Unchanged { at: began });
            }
        }
        // What the log holds and has settled before the transaction begins, the transaction sees.
        let before = wal::scan(&open.log, open.position.as_ref()).ok().flatten();
        let transaction = open
            .connection
            .unchecked_transaction()
            .map_err(|source| failed(&self.database, source))?;
        let seen = Seen::read(&transaction).map_err(|source| failed(&self.database, source))?;
        if !is_page_size(seen.page_size) || (seen.page_size != table.page_size && table.page_count() > 0) {
            return Ok(Look::Different);
        }
        let (mut hint, mut position) = (None, None);
        if let Some(before) = before.filter(|_| seen.logged) {
            let after = wal::scan(&open.log, Some(&before.settled)).ok().flatten();
            hint = before
                .pages
                .zip(after.and_then(|after| after.pages))
                .map(|(mut pages, more)| {
                    pages.extend(more);
                    pages
                });
            position = Some(before.settled);
        }
        let wanted = match &hint {
            Some(pages) if compare == Compare::Changed && !self.distrust => {
                let grown = table.page_count().saturating_add(1)..=seen.page_count;
                Some(
                    pages
                        .iter()
                        .copied()
                        .filter(|page| (1..=seen.page_count).contains(page))
                        .chain(grown)
                        .collect(),
                )
            }
            _ => None,
        };
        let mut difference = Difference::new(table, limit, cancel);
        let partial = match self.read(&transaction, wanted, &mut difference) {
            Ok(()) => false,
            Err(Stop::Full) => true,
            Err(Stop::Cancelled) => return Err(Error::Cancelled),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Database(source)) => return Err(failed(&self.database, source)),
        };
        drop(transaction);
        (open.version, open.position) = (Some(seen.version), position);
        self.open = Some(open);
        let known = |number: &&u32| **number <= table.page_count();
        let missed = match hint {
            Some(pages) if compare == Compare::All => difference
                .numbers
                .iter()
                .filter(known)
                .filter(|number| !pages.contains(number))
                .count(),
            _ => 0,
        };
        if missed > 0 {
            tracing::error!(database = %self.database.display(), pages = missed, "the log did not tell of all changes: from now on every page is compared");
            self.distrust = true;
        }
        Ok(Look::Changed(Changes {
            partial,
            complete_until: began,
            taken_at: seen.at,
            page_size: seen.page_size,
            page_count: seen.page_count,
            missed: missed as u64,
            compared: difference.compared,
            numbers: difference.numbers,
            hashes: difference.hashes,
            content: difference.content,
        }))
    }

    /// The connection to the file that is there now.
    fn opened(&mut self) -> Result<Open, Error> {
        let unreadable = |source| SourceError::Read {
            path: self.database.clone(),
            source,
        };
        let path = fs::canonicalize(&self.database).map_err(unreadable)?;
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        let identity = (metadata.dev(), metadata.ino());
        if let Some(open) = self.open.take().filter(|open| open.identity == identity) {
            return Ok(open);
        }
        refuse_what_is_no_database(&path)?;
        let mut log = OsString::from(&path);
        log.push("-wal");
        Ok(Open {
            connection: open_live(&path).map_err(|source| failed(&self.database, source))?,
            identity,
            log: log.into(),
            version: None,
            position: None,
        })
    }

    /// Reads the wanted pages, or all, in rising order.
    fn read(
        &self,
        transaction: &Connection,
        wanted: Option<BTreeSet<u32>>,
        into: &mut Difference<'_>,
    ) -> Result<(), Stop> {
        const ALL: &str = "SELECT pgno, data FROM sqlite_dbpage('main')";
        const ONE: &str = "SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1";
        let statement = transaction.prepare_cached(if wanted.is_some() { ONE } else { ALL });
        let mut statement = match statement {
            Ok(statement) if !self.by_copy => statement,
            // This SQLite reads no single pages.
            _ => return self.read_copy(transaction, wanted, into),
        };
        let Some(wanted) = wanted else {
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                into.compare(row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
            }
            return Ok(());
        };
        for number in wanted {
            let mut rows = statement.query([number])?;
            match rows.next()? {
                Some(row) => into.compare(number, row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?,
                None => return Err(Stop::Database(rusqlite::Error::QueryReturnedNoRows)),
            }
        }
        Ok(())
    }

    /// The same from a copy that is made inside the transaction.
    fn read_copy(
        &self,
        transaction: &Connection,
        wanted: Option<BTreeSet<u32>>,
        into: &mut Difference<'_>,
    ) -> Result<(), Stop> {
        let staging = Staging::make(&self.staging).map_err(Stop::Failed)?;
        let mut copy = Connection::open(&staging.file)?;
        copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        {
            let backup = Backup::new(transaction, &mut copy)?;
            while backup.step(PAGES_A_STEP as i32)? == StepResult::More {
                into.still_wanted()?;
            }
        }
        copy.close().map_err(|(_, error)| error)?;
        let unreadable = |source| {
            let path = staging.file.clone();
            Stop::Failed(SourceError::Staging { path, source }.into())
        };
        let file = File::open(&staging.file).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut header = [0; 100];
        file.read_exact_at(&mut header, 0).map_err(unreadable)?;
        let size = match u64::from(header[16]) << 8 | u64::from(header[17]) {
            1 => 65536,
            size => size.max(512),
        };
        let mut page = vec![0; size as usize];
        for number in 1..=u32::try_from(length / size).unwrap_or(u32::MAX) {
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&number)) {
                file.read_exact_at(&mut page, u64::from(number - 1) * size)
                    .map_err(unreadable)?;
                into.compare(number, &page)?;
            }
        }
        Ok(())
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// What a transaction says of itself when it begins.
struct Seen {
    at: Timestamp,
    version: i64,
    page_size: u32,
    page_count: u32,
    /// The journal is a write-ahead log.
    logged: bool,
}

impl Seen {
    fn read(transaction: &Connection) -> rusqlite::Result<Self> {
        // From here on one state is ours.
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let at = rounded(clock::now(), true);
        let journal: String = transaction.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        Ok(Self {
            at,
            version: data_version(transaction)?,
            page_size: transaction.pragma_query_value(None, "page_size", |row| row.get(0))?,
            page_count: transaction.pragma_query_value(None, "page_count", |row| row.get(0))?,
            logged: journal.eq_ignore_ascii_case("wal"),
        })
    }
}

/// Why reading ended early.
enum Stop {
    Full,
    Cancelled,
    Failed(Error),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Gathers the pages that are not what the table says.
struct Difference<'a> {
    table: &'a Table,
    limit: usize,
    cancel: &'a CancellationToken,
    compared: u64,
    numbers: Vec<u32>,
    hashes: Vec<u128>,
    content: Vec<u8>,
}

impl<'a> Difference<'a> {
    fn new(table: &'a Table, limit: usize, cancel: &'a CancellationToken) -> Self {
        Self {
            table,
            limit,
            cancel,
            compared: 0,
            numbers: Vec::new(),
            hashes: Vec::new(),
            content: Vec::new(),
        }
    }

    fn still_wanted(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            Err(Stop::Cancelled)
        } else {
            Ok(())
        }
    }

    fn compare(&mut self, number: u32, page: &[u8]) -> Result<(), Stop> {
        if self.compared.is_multiple_of(PAGES_A_STEP) {
            self.still_wanted()?;
        }
        self.compared += 1;
        let hash = hash_page(number, page);
        if self.table.has(number, hash) {
            return Ok(());
        }
        if self.content.len() + page.len() > self.limit {
            return Err(Stop::Full);
        }
        self.numbers.push(number);
        self.hashes.push(hash);
        self.content.extend_from_slice(page);
        Ok(())
    }
}
