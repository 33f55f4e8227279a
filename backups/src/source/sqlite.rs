//! A SQLite database, copied while others write to it.
//!
//! The copy is made by SQLite's backup API inside one read transaction, page by page. For a database in WAL mode that
//! is a consistent state which no writer waits for, and which takes as long as copying takes, however much is written
//! meanwhile. (Without the transaction the backup starts anew at every write of another process; `VACUUM INTO` reads
//! the same state, but lays every page out anew, which costs more and undoes deduplication.) In rollback-journal mode a
//! reader excludes writers, so there the copy first tries to go between the writes and holds them off only if it cannot.
//!
//! A copy counts once `integrity_check` found nothing. What is stored is that file and a `manifest.json` beside it.

pub(crate) mod copy;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use serde::{Deserialize, Serialize};

use super::stream::{Hashing, Passed, against_manifest, stream_node};
use super::{Source, SourceError, Verification, VerifiedCheck, Written};
use crate::pitr::sqlite::StreamTable;
use crate::progress::Phase;
use crate::repo::{ReadFailure, Tree, Writer, host};
use crate::threads::blocking;
use crate::{Error, clock};

pub use super::stream::MANIFEST;

/// Opens a restored copy to be asked by queries of others: nothing is written, nothing else is attached, and what its
/// schema says runs no function that reaches beyond it.
pub(crate) fn open_copy(file: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let connection = copy::open_still(file)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
    Ok(connection)
}

/// One database.
pub struct SqliteSource {
    database: PathBuf,
    staging: PathBuf,
    watch: Option<Arc<Mutex<Watch>>>,
}

/// What shipping of changes wants to know of the copy that was saved.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Its pages.
    pub(crate) table: StreamTable,
    /// Everything committed before is in it.
    pub(crate) began: Option<Timestamp>,
    /// Nothing committed later is.
    pub(crate) copied: Option<Timestamp>,
}

/// What the manifest of a stream says: enough to prove a restored copy without the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `opsctl.source/v1`.
    pub schema: String,
    /// The kind of source.
    pub kind: String,
    /// The file that it describes.
    pub name: String,
    /// Its length.
    pub length_bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The program that wrote it.
    pub tool_version: String,
    /// The version of SQLite that made the copy.
    pub sqlite_version: String,
    /// The state that was saved is not older than this.
    pub taken_at: Timestamp,
}

impl SqliteSource {
    /// The database at this absolute path. `staging` is the folder for the temporary copy; it needs as much room as the
    /// database, and is created if need be.
    pub fn new(database: impl Into<PathBuf>, staging: impl Into<PathBuf>) -> Self {
        Self {
            database: database.into(),
            staging: staging.into(),
            watch: None,
        }
    }

    /// Tells what was saved, beyond the snapshot.
    pub(crate) fn watched(self, watch: Arc<Mutex<Watch>>) -> Self {
        let watch = Some(watch);
        Self { watch, ..self }
    }

    fn watch(&self, tell: impl FnOnce(&mut Watch)) {
        if let Some(watch) = &self.watch {
            tell(&mut watch.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn name(&self) -> Result<&OsStr, SourceError> {
        let not_a_file = || SourceError::NotA {
            path: self.database.clone(),
            expected: "file",
        };
        self.database.file_name().ok_or_else(not_a_file)
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.database.clone()]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let name = self.name()?.to_owned();
        let taken_at = clock::now();
        let length = fs::metadata(&self.database).map_or(None, |metadata| Some(metadata.len()));
        into.progress().phase(Phase::Copying, length, Some(1));
        into.progress().file(&self.database);

        let (database, staging, cancel) = (
            self.database.clone(),
            self.staging.clone(),
            into.cancellation().child_token(),
        );
        // Tells the thread to stop when this future is dropped.
        let guard = cancel.clone().drop_guard();
        let copying = blocking(move || {
            let staging = Staging::make(&staging)?;
            copy::copy(&database, &staging.file, &cancel)?;
            let problem = copy::first_problem(&staging.file).map_err(|source| copy::failed(&database, source))?;
            match problem {
                Some(problem) => Err(Error::from(SourceError::DatabaseDamaged {
                    path: database,
                    problem,
                })),
                None => Ok(staging),
            }
        });
        let staging: Staging = copying.await??;
        drop(guard);
        self.watch(|watch| (watch.began, watch.copied) = (Some(taken_at), Some(clock::now())));

        into.progress().phase(
            Phase::Saving,
            fs::metadata(&staging.file).map_or(None, |copy| Some(copy.len())),
            Some(1),
        );
        let failed = |source| SourceError::Staging {
            path: staging.file.clone(),
            source,
        };
        let passed = Passed::default();
        let copy = File::open(&staging.file).map_err(failed)?;
        let content = match into
            .save(Hashing {
                inner: Watched {
                    inner: copy,
                    watch: self.watch.clone(),
                },
                passed: passed.clone(),
            })
            .await
        {
            Ok(content) => content,
            Err(ReadFailure::Engine(error)) => return Err(error),
            Err(ReadFailure::Reader(error)) => return Err(failed(error).into()),
        };
        let manifest = Manifest {
            schema: "opsctl.source/v1".to_owned(),
            kind: self.kind().to_owned(),
            name: name.to_string_lossy().into_owned(),
            length_bytes: content.size,
            sha256: passed.sha256(),
            tool_version: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
            sqlite_version: rusqlite::version().to_owned(),
            taken_at,
        };
        let json =
            serde_json::to_vec_pretty(&manifest).map_err(|_| Error::Internal("a manifest is always valid JSON"))?;
        let manifest = into.save_bytes(json).await?;
        into.count(|summary| {
            summary.files_new += 2;
            summary.total_files_processed += 2;
            summary.total_bytes_processed += content.size + manifest.size;
        });
        into.progress().file_done();
        let nodes = vec![
            stream_node(name, content, taken_at),
            stream_node(MANIFEST.into(), manifest, taken_at),
        ];
        Ok(Written {
            root: Tree::new(nodes),
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, restored: &Path) -> Result<Verification, Error> {
        let (file, manifest) = (restored.join(self.name()?), restored.join(MANIFEST));
        let verifying = blocking(move || verify(&file, &manifest));
        Ok(Verification {
            checks: verifying.await?,
        })
    }
}

/// A reader that shows what passes to who ships changes.
struct Watched<R> {
    inner: R,
    watch: Option<Arc<Mutex<Watch>>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(watch) = &self.watch {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.table.update(&buffer[..count]);
        }
        Ok(count)
    }
}

fn verify(file: &Path, manifest: &Path) -> Vec<VerifiedCheck> {
    let check = |name, outcome: Result<Option<String>, String>| VerifiedCheck {
        name,
        problem: outcome.unwrap_or_else(Some),
    };
    vec![
        check(
            "manifest",
            against_manifest(file, manifest).map_err(|error| error.to_string()),
        ),
        check(
            "integrity_check",
            copy::first_problem(file).map_err(|error| error.to_string()),
        ),
        check(
            "foreign_key_check",
            foreign_keys(file).map_err(|error| error.to_string()),
        ),
    ]
}

fn foreign_keys(file: &Path) -> rusqlite::Result<Option<String>> {
    let connection = copy::open_still(file)?;
    let violations = connection
        .prepare("PRAGMA foreign_key_check")?
        .query_map([], |_| Ok(()))?
        .count();
    Ok((violations > 0).then(|| format!("{violations} rows refer to rows that do not exist")))
}

/// A folder for one temporary copy, removed when dropped. What killed processes left is removed by the next one.
pub(crate) struct Staging {
    folder: PathBuf,
    pub(crate) file: PathBuf,
}

const STAGED: &str = ".opsctl-copy-";

impl Staging {
    pub(crate) fn make(parent: &Path) -> Result<Self, Error> {
        let made = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            sweep(parent)?;
            let folder = parent.join(format!("{STAGED}{}-{:08x}", host::pid(), rand::random::<u32>()));
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            Ok(Self {
                file: folder.join("copy.db"),
                folder,
            })
        };
        made().map_err(|source: io::Error| {
            let path = parent.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SourceError::StagingFull { path },
                _ => SourceError::Staging { path, source },
            }
            .into()
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(STAGED)?.split('-').next()?.parse().ok());
        let ours = entry
            .metadata()
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == host::user().0);
        if ours && pid.is_some_and(|pid| !host::process_exists(pid)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
