//! What a recovery is fed with: a socket that hands out the files of the log, and the settings that make PostgreSQL ask
//! there, stop at the plan's position and at no other, and never go on without a file that it must have.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use replication::SegmentSize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::super::reach::Piece;
use super::super::search;
use super::super::serve::{Served, Server, Supply};
use super::{Plan, RecoveryError};
use crate::error::{Error, chain};
use crate::postgres::PostgresError;
use crate::postgres::programs::{self, Installation};
use crate::postgres::scratch::{ScratchError, ScratchOptions};
use crate::process::{self, Launch, Variable};
use crate::proof::Scratch;
use crate::threads::blocking;

/// More than `pg_controldata` prints.
const CONTROL_DATA: u64 = 64 << 10;
/// So many transactions may be prepared while the log is replayed, whatever was set at the checkpoint.
const PREPARED: u32 = 64;

/// How every problem begins that a file of the log is.
pub(super) const NOT_WHOLE: &str = "the log is not whole";

/// What a recovery needs besides its plan.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data folder, with the base backup restored into it. As root: its owner runs the server.
    pub data: PathBuf,
    /// The folder of the programs, if they are not where they are looked for.
    pub programs: Option<PathBuf>,
    /// Our own executable, for `restore_command`.
    pub executable: PathBuf,
    /// Where scratch folders are noted.
    pub home: PathBuf,
    /// Where sockets are made: a short path.
    pub sockets: PathBuf,
    /// Roles that may exist in the cluster, to ask it how far it came.
    pub roles: Vec<String>,
    /// What comes of it is kept: it must outlive a power cut.
    pub lasting: bool,
}

/// The log of a plan on its way into a server. It is handed out as long as this is not dropped.
pub(super) struct Feed {
    server: Server,
    options: ScratchOptions,
    installation: Installation,
    /// Removed when nobody asks any more.
    _scratch: Scratch,
}

impl Feed {
    /// Begins to fetch what `plan` needs.
    pub(super) async fn open(plan: &Plan, place: &Place, supply: Arc<dyn Supply>) -> Result<Self, Error> {
        let major = plan.backup.base.version().major();
        let wanted = ["postgres", "pg_controldata"];
        let installation = programs::find(place.programs.as_deref(), &wanted, major, major).await?;
        if installation.major != major {
            return Err(RecoveryError::OtherVersion {
                wanted: major,
                found: installation.major,
            }
            .into());
        }
        let (made, owned) = (place.clone(), owner(&place.data)?);
        let (scratch, executable) = blocking(move || prepare(&made, owned)).await??;
        let server = Server::start(
            &scratch.folder().join("wal"),
            owned,
            plan.way.clone(),
            plan.histories.clone(),
            supply,
            Some(place.data.join("pg_wal")),
        )?;
        let restore = restore_command(&executable, server.socket());
        let prepared = prepared(&installation, place, owned).await?.max(PREPARED);
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let recovery = vec![
            setting("restore_command", restore),
            setting("recovery_target_inclusive", plan.stop.inclusive.to_string()),
            setting("recovery_target_timeline", plan.way.timeline.to_string()),
            setting("recovery_target_action", "promote".to_owned()),
            setting("recovery_min_apply_delay", "0".to_owned()),
            // One kind of target may be set, and by this one the others are forgotten: it comes last.
            setting("recovery_target_lsn", plan.stop.lsn.to_string()),
        ];
        let options = ScratchOptions {
            programs: installation.folder().to_owned(),
            data: place.data.clone(),
            roles: place.roles.clone(),
            recovery: Some(recovery),
            settings: vec![
                setting("max_prepared_transactions", prepared.to_string()),
                // What it writes after the recovery, and ends with a checkpoint, is for a receiver that comes later: without
                // it there is a gap between the timelines.
                setting("wal_keep_size", format!("{}MB", 4 * (plan.way.size.bytes() >> 20))),
            ],
            sockets: Some(scratch.folder().to_owned()),
            lasting: place.lasting,
        };
        Ok(Self {
            server,
            options,
            installation,
            _scratch: scratch,
        })
    }

    /// What the server is started with.
    pub(super) fn options(&self) -> &ScratchOptions {
        &self.options
    }

    /// How far it has asked.
    pub(super) fn served(&self) -> watch::Receiver<Served> {
        self.server.served()
    }

    /// The version of the programs, such as `15.6`.
    pub(super) fn version(&self) -> &str {
        &self.installation.version
    }

    /// The major version of the programs.
    pub(super) fn major(&self) -> u32 {
        self.installation.major
    }

    /// Why a file of the log was refused, if one was: then that is why the server ended.
    pub(super) fn refused(&self) -> Option<String> {
        let refused = self.server.served().borrow().refused.clone();
        refused.map(|refused| format!("{NOT_WHOLE}: {refused}"))
    }

    /// What it means that there is no server, or none any more.
    pub(super) fn failed(&self, error: ScratchError) -> Error {
        match error {
            ScratchError::Ended { problem, log } => RecoveryError::Failed {
                problem: self.refused().unwrap_or(problem),
                said: log,
            }
            .into(),
            error => error.into(),
        }
    }
}

/// To PostgreSQL a record that it cannot read is the end of the log, so that it says no more than that it did not come
/// far enough. Which file that was, reading them all says.
///
/// Errors: [`Error::Cancelled`].
pub(super) async fn damage(
    plan: &Plan,
    supply: Arc<dyn Supply>,
    cancel: &CancellationToken,
) -> Result<Option<String>, Error> {
    let log = Supplied {
        supply,
        size: plan.way.size,
    };
    let read = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        read = search::read_all(&log, &plan.way, plan.backup.base.system) => read,
    };
    Ok(read.err().map(|damage| format!("{NOT_WHOLE}: {}", chain(&damage))))
}

/// What a recovery is fed with, to be read here.
struct Supplied {
    supply: Arc<dyn Supply>,
    size: SegmentSize,
}

/// A file that is not supplied.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be had")]
struct NotSupplied(#[source] Box<dyn std::error::Error + Send + Sync>);

#[async_trait]
impl search::Log for Supplied {
    type Error = NotSupplied;

    async fn read(&self, piece: &Piece) -> Result<Bytes, NotSupplied> {
        self.supply.piece(piece, self.size).await.map_err(NotSupplied)
    }
}

/// Who runs the server: we do, unless we are root.
fn owner(data: &Path) -> Result<Option<(u32, u32)>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = data.metadata().map_err(|source| target("read", data, source))?;
    match metadata.uid() {
        0 => Err(ScratchError::NoUser.into()),
        user => Ok(Some((user, metadata.gid()))),
    }
}

/// A private folder, and an executable of ours that the server's user can start.
fn prepare(place: &Place, owner: Option<(u32, u32)>) -> Result<(Scratch, PathBuf), Error> {
    let scratch = Scratch::make(&place.home, &place.sockets)?;
    let mut executable = place.executable.clone();
    if owner.is_some() {
        let mut make = || {
            fs::set_permissions(scratch.folder(), fs::Permissions::from_mode(0o711))?;
            if !anybody_can_start(&executable) {
                executable = scratch.folder().join("opsctl");
                fs::copy(&place.executable, &executable)?;
                fs::set_permissions(&executable, fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        };
        make().map_err(|source| target("prepare the recovery of", &place.data, source))?;
    }
    Ok((scratch, executable))
}

fn target(action: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::TargetFull { path },
        _ => Error::Target { action, path, source },
    }
}

fn anybody_can_start(executable: &Path) -> bool {
    executable
        .ancestors()
        .all(|path| path.metadata().is_ok_and(|metadata| metadata.mode() & 0o001 != 0))
}

/// How many transactions could be prepared in the cluster, as `pg_controldata` tells: a server with less cannot bring them
/// back.
async fn prepared(installation: &Installation, place: &Place, user: Option<(u32, u32)>) -> Result<u32, Error> {
    let launch = Launch {
        program: installation.program("pg_controldata"),
        arguments: vec!["-D".into(), place.data.clone().into()],
        variables: vec![Variable {
            name: "LC_ALL".to_owned(),
            value: Zeroizing::new("C".to_owned()),
            is_secret: false,
        }],
        without: Some("PG"),
        folder: Some(PathBuf::from("/")),
        user,
        ..Launch::default()
    };
    let ended = process::run(launch, CONTROL_DATA)
        .await
        .map_err(|source| PostgresError::Start {
            program: "pg_controldata".to_owned(),
            source,
        })?;
    if !ended.status.success() {
        return Err(RecoveryError::Failed {
            problem: "pg_controldata cannot read what was restored".to_owned(),
            said: String::from_utf8_lossy(&ended.said).trim_end().to_owned(),
        }
        .into());
    }
    Ok(prepared_of(&String::from_utf8_lossy(&ended.output)))
}

fn prepared_of(told: &str) -> u32 {
    let lines = told.lines().filter_map(|line| line.split_once(':'));
    let mut found = lines.filter(|(key, _)| key.trim() == "max_prepared_xacts setting");
    found
        .next()
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// What PostgreSQL hands to a shell; `%` is its own, and `'` the shell's.
fn restore_command(executable: &Path, socket: &Path) -> String {
    let word = |path: &Path| {
        format!(
            "'{}'",
            path.display().to_string().replace('%', "%%").replace('\'', "'\\''")
        )
    };
    format!("{} wal get --from {} %f %p", word(executable), word(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_paths_as_they_are() {
        let command = restore_command(Path::new("/opt/it's 100%/opsctl"), Path::new("/tmp/s/wal"));
        assert_eq!(
            command,
            "'/opt/it'\\''s 100%%/opsctl' wal get --from '/tmp/s/wal' %f %p"
        );
    }

    #[test]
    fn what_the_primary_was_run_with_is_read() {
        let told = "pg_control version number:            1300\nmax_connections setting:              250\n\
                    max_prepared_xacts setting:           7\nmax_locks_per_xact setting:           x\n";
        assert_eq!(prepared_of(told), 7);
        assert_eq!(prepared_of("max_prepared_xacts setting: none"), 0);
    }
}
