//! Brings the files of a snapshot into a folder of their own and proves them. A folder that is not finished has another
//! name than one that is, so that a kill leaves nothing that looks whole.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use backups::snapshots::SnapshotRecord;
use backups::source::Source;
use backups::{Repository as Engine, RestoreOptions, RestoreReport};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Datastore;
use crate::context::Context;
use crate::error::{self, Failure};
use crate::exit::Exit;
use crate::output::{bytes, one_line, plural, seconds};
use crate::repository::{self, Shown};

use super::at;

/// `opsctl.restore/v1`.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) schema: &'static str,
    pub(super) r#type: &'static str,
    pub(super) run: Option<String>,
    pub(super) datastore: String,
    pub(super) snapshot: String,
    pub(super) snapshot_time: jiff::Timestamp,
    /// The moment that was reached, with `--at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reached: Option<jiff::Timestamp>,
    /// Where the data is now.
    pub(super) target: String,
    /// Where the replaced data is, with `--replace`.
    pub(super) kept: Option<String>,
    pub(super) files: u64,
    pub(super) unchanged: u64,
    pub(super) restored_bytes: u64,
    /// What was at its place already, and right.
    pub(super) reused_bytes: u64,
    /// What came from the repository.
    pub(super) fetched_bytes: u64,
    /// Extended attributes that `--with` would have restored.
    pub(super) withheld_attributes: u64,
    pub(super) elapsed_seconds: f64,
    pub(super) checks: Vec<backups::source::VerifiedCheck>,
    pub(super) damaged: Vec<Item>,
    pub(super) skipped: Vec<Item>,
}

/// Something that was not restored.
#[derive(Debug, Serialize)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) reason: String,
}

/// What to fetch and where to.
pub(super) struct Fetch<'a> {
    pub(super) engine: &'a Engine,
    pub(super) store: &'a Datastore,
    pub(super) source: &'a dyn Source,
    pub(super) record: &'a SnapshotRecord,
    /// Where to go from the snapshot, if a moment was asked for.
    pub(super) moment: Option<&'a at::Found>,
    pub(super) options: RestoreOptions,
    /// The snapshot is restored as a whole, so that it can be proved.
    pub(super) is_whole: bool,
    /// The folder that is filled; a former attempt in it is continued.
    pub(super) folder: PathBuf,
}

impl Fetch<'_> {
    /// Fills the folder and proves what is in it.
    ///
    /// Errors: exit 4 when the data came back whole and the proof failed.
    pub(super) async fn run(self, context: &Context, cancel: &CancellationToken) -> Result<Document, Failure> {
        let what = || format!("could not restore `{}`", self.store.name);
        make_folder(&self.folder).map_err(|error| {
            Failure::io(
                format!("could not make the folder `{}`", context.shown(&self.folder)),
                &error,
            )
        })?;
        let started = context.now();
        let progress = Shown::start(context, format!("restoring {}", self.store.name));
        let (record, folder, options) = (&self.record.id, &self.folder, &self.options);
        let report = match self.moment {
            None => backups::restore(self.engine, record, folder, options, &progress, cancel).await,
            Some(moment) => {
                let database = repository::path_of(self.store)?;
                let applied = moment
                    .plan
                    .apply(self.engine, &database, folder, options.durable, &progress, cancel);
                applied.await.map(|applied| applied.report)
            }
        };
        let report = report.map_err(|error| error::backups::failure(what(), &error))?;
        let checks = if self.is_whole && report.damaged.is_empty() {
            let verification = self
                .source
                .verify(&self.folder)
                .await
                .map_err(|error| error::backups::failure(what(), &error))?;
            if !verification.is_sound() {
                return Err(Failure::new(Exit::No, "verification_failed", what())
                    .details(verification.checks.iter().filter_map(|check| {
                        check
                            .problem
                            .as_ref()
                            .map(|problem| format!("{}: {problem}", check.name))
                    }))
                    .cause(format!(
                        "the data in `{}` did not prove sound",
                        context.shown(&self.folder)
                    ))
                    .help("try an older snapshot: opsctl snapshot list"));
            }
            verification.checks
        } else {
            Vec::new()
        };
        drop(progress);
        Ok(self.document(&report, checks, context.now().duration_since(started).as_secs_f64()))
    }

    fn document(
        &self,
        report: &RestoreReport,
        checks: Vec<backups::source::VerifiedCheck>,
        elapsed_seconds: f64,
    ) -> Document {
        Document {
            schema: "opsctl.restore/v1",
            r#type: "restore",
            run: None,
            datastore: self.store.name.clone(),
            snapshot: self.record.id.to_string(),
            snapshot_time: self.record.snapshot.time,
            reached: self.moment.map(|moment| moment.plan.reached),
            target: self.folder.display().to_string(),
            kept: None,
            files: report.files,
            unchanged: report.unchanged,
            restored_bytes: report.bytes,
            reused_bytes: report.reused_bytes,
            fetched_bytes: report.fetched_bytes,
            withheld_attributes: report.withheld_attributes,
            elapsed_seconds,
            checks,
            damaged: report
                .damaged
                .iter()
                .map(|item| Item {
                    path: item.path.display().to_string(),
                    reason: item.reason.clone(),
                })
                .collect(),
            skipped: report
                .skipped
                .iter()
                .map(|item| Item {
                    path: item.path.display().to_string(),
                    reason: item.reason.clone(),
                })
                .collect(),
        }
    }
}

impl Document {
    /// Whether something is missing.
    pub(super) fn is_partial(&self) -> bool {
        !self.damaged.is_empty() || !self.skipped.is_empty()
    }

    /// Says what is missing, on stderr.
    pub(super) fn warn(&self, context: &Context) {
        for item in &self.damaged {
            context.out.warn(format!(
                "damaged, not restored: {}: {}",
                one_line(&item.path),
                item.reason
            ));
        }
        for item in &self.skipped {
            context
                .out
                .warn(format!("not restored: {}: {}", one_line(&item.path), item.reason));
        }
        if self.withheld_attributes > 0 {
            context.out.note(format!(
                "{} left out: `--with security,trusted` restores those of these names",
                plural(
                    self.withheld_attributes,
                    "extended attribute was",
                    "extended attributes were"
                )
            ));
        }
    }

    /// One line about what was done.
    pub(super) fn summary(&self) -> String {
        let proved = if self.checks.is_empty() {
            String::new()
        } else {
            format!(
                ", verified ({})",
                self.checks
                    .iter()
                    .map(|check| check.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        let reused = if self.reused_bytes > 0 {
            format!(" ({} were there already)", bytes(self.reused_bytes))
        } else {
            String::new()
        };
        let time = "%Y-%m-%d %H:%M:%S%.fZ";
        let state = match self.reached {
            Some(reached) => format!("as it was at {}", reached.strftime(time)),
            None => format!(
                "from snapshot {} of {}",
                &self.snapshot[..8],
                self.snapshot_time.strftime("%Y-%m-%d %H:%M:%SZ")
            ),
        };
        format!(
            "restored {} {state}: {}, {}{reused}{proved}, {}",
            self.datastore,
            plural(self.files + self.unchanged, "file", "files"),
            bytes(self.restored_bytes),
            seconds(self.elapsed_seconds)
        )
    }
}

/// The folder `<path>.<suffix>` beside `path`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        result => result,
    }
}
