//! One consistent copy of a live database. Blocking code: runs on a thread made for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::source::SourceError;

/// Pages a step; between steps it is asked whether anybody still wants the copy.
const PAGES_A_STEP: i32 = 2048;
/// How long a lock of somebody else's is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the copy of a database in rollback-journal mode tries to go between the writes.
const BETWEEN_WRITES: Duration = Duration::from_secs(5);

/// Copies `database` to `target`, which does not exist yet.
pub(super) fn copy(database: &Path, target: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    refuse_what_is_no_database(database)?;
    let failed = |source| failed(database, source);
    let source = open_live(database).map_err(failed)?;
    let journal: String = source
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(failed)?;
    if !journal.eq_ignore_ascii_case("wal") {
        let deadline = Some(Instant::now() + BETWEEN_WRITES);
        if pass(&source, target, cancel, deadline).map_err(|error| error.or(database))? {
            return Ok(());
        }
        // What the attempt left is half of a database, and would be taken for the beginning of the next one.
        std::fs::remove_file(target).map_err(|source| SourceError::Read {
            path: target.to_owned(),
            source,
        })?;
    }
    // The transaction keeps one state of the database for us until it ends.
    source
        .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")
        .map_err(failed)?;
    pass(&source, target, cancel, None).map_err(|error| error.or(database))?;
    Ok(())
}

/// Why a pass ended early.
enum Interrupted {
    Cancelled,
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Interrupted {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl Interrupted {
    fn or(self, database: &Path) -> Error {
        match self {
            Self::Cancelled => Error::Cancelled,
            Self::Database(error) => failed(database, error),
        }
    }
}

/// One attempt to copy everything. With a deadline it lets writers in between the steps, and gives up (`false`) when they
/// do not let it finish in time; without, somebody holds a state of the source for it.
fn pass(
    source: &Connection,
    target: &Path,
    cancel: &CancellationToken,
    deadline: Option<Instant>,
) -> Result<bool, Interrupted> {
    let mut copy = Connection::open(target)?;
    // The copy lives for minutes: a power cut takes it anyway.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let waiting_since = Instant::now();
    {
        let backup = Backup::new(source, &mut copy)?;
        loop {
            if cancel.is_cancelled() {
                return Err(Interrupted::Cancelled);
            }
            match backup.step(PAGES_A_STEP)? {
                StepResult::Done => break,
                StepResult::More if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                StepResult::More => return Ok(false),
                // SQLite has waited for the lock already (`busy_timeout`).
                _ if deadline.is_some() => return Ok(false),
                _ if waiting_since.elapsed() < PATIENCE => {}
                _ => return Err(Interrupted::Database(busy())),
            }
        }
    }
    copy.close().map_err(|(_, error)| Interrupted::Database(error))?;
    Ok(true)
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}

/// SQLite's message as an error of ours; a full disk is told apart, for only the copy is written to.
pub(crate) fn failed(database: &Path, source: rusqlite::Error) -> Error {
    let path = database.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SourceError::StagingFull { path }.into(),
        Some(ErrorCode::DatabaseCorrupt) => SourceError::DatabaseDamaged {
            path,
            problem: source.to_string(),
        }
        .into(),
        Some(ErrorCode::NotADatabase) => SourceError::NotA {
            path,
            expected: "SQLite database",
        }
        .into(),
        _ => SourceError::Database { path, source }.into(),
    }
}

/// SQLite takes an empty file for an empty database, and opens a folder with a message that says nothing.
pub(crate) fn refuse_what_is_no_database(database: &Path) -> Result<(), SourceError> {
    let path = || database.to_owned();
    let metadata = std::fs::metadata(database).map_err(|source| SourceError::Read { path: path(), source })?;
    if metadata.is_file() {
        Ok(())
    } else {
        Err(SourceError::NotA {
            path: path(),
            expected: "SQLite database",
        })
    }
}

/// Opens a database that others use. Read-only is not enough: in WAL mode readers too write to the shared memory file.
pub(crate) fn open_live(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        database,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(PATIENCE)?;
    // Closing must not fold a log into the database that belongs to others.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Opens a copy that nobody else uses, without making a log or shared memory file beside it.
pub(super) fn open_still(file: &Path) -> rusqlite::Result<Connection> {
    let mut uri = b"file:".to_vec();
    for &byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => uri.push(byte),
            other => uri.extend_from_slice(format!("%{other:02X}").as_bytes()),
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(Path::new(OsStr::from_bytes(&uri)), flags)
}

/// What `integrity_check` finds first, if anything.
pub(super) fn first_problem(file: &Path) -> rusqlite::Result<Option<String>> {
    let connection = open_still(file)?;
    let first: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((first != "ok").then_some(first))
}
