//! PostgreSQL recovers a base backup up to the record of a plan: started on the restored files with settings of ours, fed
//! by our server, watched until it takes connections or gives up, and held against the plan.
//!
//! Nothing is written into its configuration: what recovery needs is said on its command line, so that what is left is a
//! plain cluster on a timeline of its own. Its own configuration is not read either but for `postgresql.auto.conf`, of
//! which whatever could reach others (its archive, its primary) or could keep it from starting here is overruled.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use replication::{Lsn, SegmentSize, Timeline};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::super::reach::Piece;
use super::super::search;
use super::super::serve::{Served, Server, Supply};
use super::{Plan, RecoveryError};
use crate::error::{Error, chain};
use crate::postgres::PostgresError;
use crate::postgres::programs::{self, Installation};
use crate::process::{self, Launch, Running, Variable};
use crate::proof::Scratch;
use crate::threads::blocking;

/// How often it is asked whether it is there.
const POLL: Duration = Duration::from_millis(50);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_mins(1);
/// More than `pg_controldata` prints.
const CONTROL_DATA: u64 = 64 << 10;

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

/// A server that recovered, and now takes writes on a timeline of its own.
pub struct Recovered {
    running: Option<Running>,
    sockets: PathBuf,
    superuser: String,
    installation: Installation,
    /// Up to where it replayed the log.
    pub reached: Lsn,
    /// The timeline that it is on now.
    pub timeline: Timeline,
    /// Removed after the server has ended.
    _scratch: Scratch,
}

/// Lets PostgreSQL recover what lies in `place`, up to the record of `plan`, and promotes it. `tell` hears how far it has
/// asked for the log.
///
/// # Errors
/// [`RecoveryError`] if it did not come as far as the plan says; [`PostgresError`] if there are no programs of its version.
pub async fn recover(
    plan: &Plan,
    place: &Place,
    supply: Arc<dyn Supply>,
    tell: &(dyn Fn(&Served) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Recovered, Error> {
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
    let (scratch, private, executable) = blocking(move || prepare(&made, owned)).await??;
    let server = Server::start(
        &private.join("wal"),
        owned,
        plan.way.clone(),
        plan.histories.clone(),
        Arc::clone(&supply),
    )?;
    let restore = restore_command(&executable, server.socket());
    let control = control_data(&installation, place, owned).await?;
    let mut arguments: Vec<OsString> = vec!["-D".into(), place.data.clone().into()];
    for (name, value) in settings(plan, place, &private, &restore, &control) {
        arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    let launch = Launch {
        arguments,
        gently: true,
        ..launch(&installation, "postgres", owned)
    };
    let started = blocking(move || process::start(launch)).await?;
    let (running, output) = started.map_err(|source| PostgresError::Start {
        program: "postgres".to_owned(),
        source,
    })?;
    // It says everything on stderr.
    drop(output);
    let mut recovered = Recovered {
        running: Some(running),
        sockets: private,
        superuser: String::new(),
        installation,
        reached: Lsn::ZERO,
        timeline: Timeline::FIRST,
        _scratch: scratch,
    };
    let waited = recovered.wait(&place.roles, server.served(), tell, cancel).await;
    if let Err(error) = waited {
        return Err(named(error, plan, supply, cancel).await);
    }
    if !plan.is_reached(recovered.reached) || recovered.timeline <= plan.way.timeline {
        return Err(RecoveryError::Fewer {
            reached: recovered.reached,
            timeline: recovered.timeline,
            wanted: if plan.stop.inclusive {
                plan.stop.end
            } else {
                plan.stop.lsn
            },
        }
        .into());
    }
    Ok(recovered)
}

/// To PostgreSQL a record that it cannot read is the end of the log, so that it says no more than that it did not come
/// far enough. Which file that was, reading them all says.
async fn named(error: Error, plan: &Plan, supply: Arc<dyn Supply>, cancel: &CancellationToken) -> Error {
    let Error::Recovery(failed) = error else { return error };
    let RecoveryError::Failed { problem, said } = *failed else {
        return Error::Recovery(failed);
    };
    if problem.starts_with(NOT_WHOLE) {
        return RecoveryError::Failed { problem, said }.into();
    }
    let log = Supplied {
        supply,
        size: plan.way.size,
    };
    let read = tokio::select! {
        biased;
        () = cancel.cancelled() => return Error::Cancelled,
        read = search::read_all(&log, &plan.way, plan.backup.base.system) => read,
    };
    let problem = match read {
        Err(damage) => format!("{NOT_WHOLE}: {}; {problem}", chain(&damage)),
        Ok(()) => problem,
    };
    RecoveryError::Failed { problem, said }.into()
}

/// How every problem begins that a file of the log is.
const NOT_WHOLE: &str = "the log is not whole";

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

impl Recovered {
    /// How a database of it is connected to: as a superuser, by its socket.
    pub fn address(&self, database: &str) -> tokio_postgres::Config {
        address(&self.sockets, &self.superuser, database)
    }

    /// The folder of its socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The name of a superuser.
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// The version of its programs, such as `15.6`.
    pub fn version(&self) -> &str {
        &self.installation.version
    }

    /// Stops it in good order: what lies in the data folder is then whole without any log.
    pub async fn stop(mut self) -> Result<(), Error> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let ended = running.end(Signal::INT).await;
        let problem = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => format!("it did not stop in good order: {status}"),
            Err(error) => format!("it could not be stopped: {error}"),
        };
        Err(RecoveryError::Failed {
            problem,
            said: String::new(),
        }
        .into())
    }

    /// Waits until it takes connections, which without `hot_standby` it does when recovery is over.
    async fn wait(
        &mut self,
        roles: &[String],
        mut served: watch::Receiver<Served>,
        tell: &(dyn Fn(&Served) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        loop {
            tell(&served.borrow_and_update());
            for role in roles {
                if self.ask(role).await {
                    return Ok(());
                }
            }
            let Some(running) = &mut self.running else {
                return Err(Error::Internal("a server that is waited for was started"));
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Error::Cancelled),
                _ended = running.ended() => {}
                () = tokio::time::sleep(POLL) => continue,
            }
            let said = match self.running.take() {
                Some(running) => running.give_up().await,
                None => Vec::new(),
            };
            let said = String::from_utf8_lossy(&said).trim_end().to_owned();
            let refused = served.borrow().refused.clone();
            let problem = refused.map(|refused| format!("{NOT_WHOLE}: {refused}"));
            let problem = problem
                .or_else(|| last_words(&said))
                .unwrap_or_else(|| "it ended".to_owned());
            return Err(RecoveryError::Failed { problem, said }.into());
        }
    }

    /// How far it came, if it lets this role in.
    async fn ask(&mut self, role: &str) -> bool {
        let Ok((client, connection)) = address(&self.sockets, role, "postgres").connect(NoTls).await else {
            return false;
        };
        let connection = tokio::spawn(connection);
        let query = "select pg_last_wal_replay_lsn()::text, \
                     (select timeline_id from pg_control_checkpoint()), \
                     (select rolname::text from pg_roles where oid = 10), \
                     pg_is_in_recovery()";
        let answer = tokio::time::timeout(ANSWER, client.query_one(query, &[])).await;
        drop(client);
        connection.abort();
        let Ok(Ok(row)) = answer else { return false };
        let told = (
            row.try_get::<_, Option<String>>(0)
                .ok()
                .flatten()
                .and_then(|lsn| lsn.parse().ok()),
            row.try_get::<_, i32>(1)
                .ok()
                .and_then(|number| u32::try_from(number).ok()),
            row.try_get::<_, String>(2).ok(),
            row.try_get::<_, bool>(3).ok(),
        );
        let (Some(reached), Some(timeline), Some(superuser), Some(false)) = told else {
            return false;
        };
        (self.reached, self.timeline, self.superuser) = (reached, Timeline(timeline), superuser);
        true
    }
}

fn address(sockets: &Path, role: &str, database: &str) -> tokio_postgres::Config {
    let mut address = tokio_postgres::Config::new();
    address.host_path(sockets).user(role).dbname(database);
    address.connect_timeout(ANSWER).application_name("opsctl");
    address
}

/// Who runs the server: we do, unless we are root.
fn owner(data: &Path) -> Result<Option<(u32, u32)>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = data.metadata().map_err(|source| target("read", data, source))?;
    match metadata.uid() {
        0 => Err(PostgresError::NoUser.into()),
        user => Ok(Some((user, metadata.gid()))),
    }
}

/// The private folder with what the server reads besides its data, the mark of a recovery, and an executable of ours that
/// the server's user can start.
fn prepare(place: &Place, owner: Option<(u32, u32)>) -> Result<(Scratch, PathBuf, PathBuf), Error> {
    let scratch = Scratch::make(&place.home, &place.sockets)?;
    let private = scratch.folder().join("s");
    let mut executable = place.executable.clone();
    let mut make = || {
        fs::DirBuilder::new().mode(0o700).create(&private)?;
        let mut written = vec![private.clone()];
        for (name, content) in [
            ("postgresql.conf", ""),
            ("pg_ident.conf", ""),
            // Nobody else gets into the folder of its socket.
            ("pg_hba.conf", "local all all trust\nlocal replication all trust\n"),
        ] {
            let path = private.join(name);
            fs::write(&path, content)?;
            written.push(path);
        }
        // A standby's mark would make it wait for a primary for ever.
        remove(&place.data.join("standby.signal"))?;
        let signal = place.data.join("recovery.signal");
        remove(&signal)?;
        File::options().write(true).create_new(true).mode(0o600).open(&signal)?;
        written.push(signal);
        if let Some((user, group)) = owner {
            fs::set_permissions(scratch.folder(), fs::Permissions::from_mode(0o711))?;
            for path in written {
                chown(path, Some(user), Some(group))?;
            }
            if !anybody_can_start(&executable) {
                executable = scratch.folder().join("opsctl");
                fs::copy(&place.executable, &executable)?;
                fs::set_permissions(&executable, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    };
    make().map_err(|source| target("prepare the recovery of", &place.data, source))?;
    Ok((scratch, private, executable))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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

fn launch(installation: &Installation, program: &str, user: Option<(u32, u32)>) -> Launch {
    Launch {
        program: installation.program(program),
        variables: vec![Variable {
            name: "LC_ALL".to_owned(),
            value: Zeroizing::new("C".to_owned()),
            is_secret: false,
        }],
        without: Some("PG"),
        folder: Some(PathBuf::from("/")),
        user,
        ..Launch::default()
    }
}

/// What the cluster was run with, as `pg_controldata` tells: a server with less refuses to recover it.
async fn control_data(
    installation: &Installation,
    place: &Place,
    user: Option<(u32, u32)>,
) -> Result<BTreeMap<&'static str, u32>, Error> {
    let launch = Launch {
        arguments: vec!["-D".into(), place.data.clone().into()],
        ..launch(installation, "pg_controldata", user)
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
    Ok(limits(&String::from_utf8_lossy(&ended.output)))
}

/// Settings of the primary, by their names, and how `pg_controldata` calls them.
const LIMITS: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_worker_processes", "max_worker_processes setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
];

fn limits(told: &str) -> BTreeMap<&'static str, u32> {
    let lines = told.lines().filter_map(|line| line.split_once(':'));
    let found = lines.filter_map(|(key, value)| {
        let (name, _) = LIMITS.iter().find(|(_, told)| *told == key.trim())?;
        Some((*name, value.trim().parse().ok()?))
    });
    found.collect()
}

/// Everything that is said on the command line.
fn settings(
    plan: &Plan,
    place: &Place,
    private: &Path,
    restore: &str,
    control: &BTreeMap<&'static str, u32>,
) -> Vec<(&'static str, String)> {
    let inside = |name: &str| private.join(name).display().to_string();
    let mut settings: Vec<(&'static str, String)> = vec![
        ("config_file", inside("postgresql.conf")),
        ("hba_file", inside("pg_hba.conf")),
        ("ident_file", inside("pg_ident.conf")),
        ("unix_socket_directories", private.display().to_string()),
        ("restore_command", restore.to_owned()),
        ("recovery_target_inclusive", plan.stop.inclusive.to_string()),
        ("recovery_target_timeline", plan.way.timeline.to_string()),
        // What it writes after the recovery, and ends with a checkpoint, is for a receiver that comes later: without it there
        // is a gap between the timelines.
        ("wal_keep_size", format!("{}MB", 4 * (plan.way.size.bytes() >> 20))),
    ];
    for (name, value) in [
        ("recovery_target_action", "promote"),
        // One kind of target may be set, and of this one the others are forgotten: it comes after them.
        ("recovery_target", ""),
        ("recovery_target_name", ""),
        ("recovery_target_time", ""),
        ("recovery_target_xid", ""),
        ("recovery_end_command", ""),
        ("archive_cleanup_command", ""),
        ("recovery_min_apply_delay", "0"),
        // Nobody gets in before recovery is over.
        ("hot_standby", "off"),
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_permissions", "0700"),
        ("unix_socket_group", ""),
        ("external_pid_file", ""),
        // Nothing of it reaches the archive or the standbys of the server that it comes from.
        ("archive_mode", "off"),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("synchronous_standby_names", ""),
        ("max_logical_replication_workers", "0"),
        // What may not be here, or be too large for here.
        ("shared_preload_libraries", ""),
        ("session_preload_libraries", ""),
        ("local_preload_libraries", ""),
        ("ssl", "off"),
        ("huge_pages", "off"),
        ("shared_buffers", "128MB"),
        ("dynamic_shared_memory_type", "mmap"),
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("log_min_messages", "log"),
        ("log_statement", "none"),
        ("autovacuum", "off"),
        ("fsync", if place.lasting { "on" } else { "off" }),
    ] {
        settings.push((name, value.to_owned()));
    }
    settings.push(("recovery_target_lsn", plan.stop.lsn.to_string()));
    for (name, value) in control {
        // One that is prepared while the log is replayed needs a place, whatever was set at the checkpoint.
        let least = if *name == "max_prepared_transactions" { 64 } else { 1 };
        settings.push((name, value.max(&least).to_string()));
    }
    settings
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

/// The last line of a log that says why it ended.
fn last_words(log: &str) -> Option<String> {
    let fatal = |line: &&str| line.contains("FATAL:") || line.contains("PANIC:");
    let line = log.lines().rev().find(fatal)?;
    let (_, said) = line.split_once("FATAL:").or_else(|| line.split_once("PANIC:"))?;
    Some(said.trim().to_owned())
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
        assert_eq!(
            limits(told),
            BTreeMap::from([("max_connections", 250), ("max_prepared_transactions", 7)])
        );
    }

    #[test]
    fn the_reason_is_the_last_that_is_fatal() {
        let log = "LOG:  starting\n2026 [1] FATAL:  first\n2026 [1] LOG:  x\n2026 [2] FATAL:  could not restore file \"1\"\nLOG:  aborting";
        assert_eq!(last_words(log).as_deref(), Some("could not restore file \"1\""));
        assert_eq!(last_words("LOG:  all is well"), None);
    }
}
