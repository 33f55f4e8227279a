//! A server over a data folder that was restored, for nobody but us: reached by a socket in a private folder, with a
//! configuration of ours instead of the one that came back, which names files, memory and libraries of another machine.
//! It ends with the value, and when we are killed.
//!
//! It is a scratch server: the folder becomes its user's, and what it writes there is of no use to others. Nor does it
//! decide whether what was recovered is enough: it says how far it came.

mod place;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use replication::{Lsn, Timeline};
use rustix::process::Signal;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use self::place::Place;
use super::guard::{Guarded, Line, Task};
use crate::threads::blocking;

/// What the superuser of most clusters is called.
const SUPERUSER: &str = "postgres";
/// The number in the socket's name. The folder is its own, so that it need not differ from others.
pub(crate) const PORT: u16 = 5432;
/// How long it may take to answer to a connection once it is ready.
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to write its last checkpoint.
const STOPS_WITHIN: Duration = Duration::from_mins(10);

/// It takes connections, and still recovers.
const READ_ONLY: u8 = 1;
/// Recovery has come to its target and waits.
const PAUSED: u8 = 2;
/// Recovery is over.
const READY: u8 = 3;

/// What a scratch server is started with.
#[derive(Debug, Clone)]
pub struct ScratchOptions {
    /// The folder with the programs of the cluster's major version: `postgres` at least.
    pub programs: PathBuf,
    /// The data folder.
    pub data: PathBuf,
    /// Roles that may be in the cluster besides `postgres`: as the first that is, a superuser is found, whom everything is
    /// done as.
    pub roles: Vec<String>,
    /// Settings of recovery, such as `restore_command`: with them the log is replayed up to the target that they name. A
    /// `recovery_target…` must be among them, since PostgreSQL takes a file that is missing for the end of the log
    /// otherwise. Without them the copy must hold the log that it needs.
    pub recovery: Option<Vec<(String, String)>>,
    /// Other settings, which go before ours.
    pub settings: Vec<(String, String)>,
    /// Where its private folder is made, if not beside the data.
    pub sockets: Option<PathBuf>,
    /// What comes of it is kept: it must outlive a power cut, and `postgresql.auto.conf` stays as it came back.
    pub lasting: bool,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The folder is no cluster.
    #[error("{} is no data folder of PostgreSQL", .0.display())]
    NotACluster(PathBuf),
    /// The programs are not there, or of another version.
    #[error("there is no {program} in {}", folder.display())]
    NoProgram {
        /// What is missing.
        program: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// We are root, the folder is root's, and there is no user `postgres`.
    #[error("PostgreSQL does not run as root, and there is no user `postgres` to run it as")]
    NoUser,
    /// The server's user does not get to its data.
    #[error("the user with the number {user} cannot get through {}", folder.display())]
    Unreachable {
        /// The folder that lets nobody through.
        folder: PathBuf,
        /// Whom the server would run as.
        user: u32,
    },
    /// The settings of recovery name no target.
    #[error("the recovery has no target: what is missing of the log would pass for its end")]
    NoTarget,
    /// A file or folder could not be made.
    #[error("cannot {action} {}", path.display())]
    Prepare {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A program cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The server ended, or cannot go on.
    #[error("the server gave up: {problem}")]
    Ended {
        /// Its last complaint, or how it ended.
        problem: String,
        /// The end of its log.
        log: String,
    },
    /// It does not let us in.
    #[error("the server does not let {user:?} into the database {database:?}")]
    Connect {
        /// The user.
        user: String,
        /// The database.
        database: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It did not answer a question of ours.
    #[error("the server did not say {what}")]
    Ask {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// What it answered cannot be understood.
    #[error("the server says {answer:?} for {what}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What it said.
        answer: String,
    },
    /// It did not end in good order.
    #[error("the server did not end within {} s", STOPS_WITHIN.as_secs())]
    DoesNotStop,
    /// It was given up.
    #[error("it was cancelled")]
    Cancelled,
}

/// How far a copy came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The end of the last record that was replayed; without recovery, the end of the log.
    pub position: Lsn,
    /// The timeline that the server is on now: a new one after recovery.
    pub timeline: Timeline,
    /// The time of the last commit that was replayed, by the clock of the server that made it; absent where none was.
    pub last_commit: Option<SystemTime>,
    /// Whether recovery is paused, and the copy can only be read.
    pub paused: bool,
}

/// A running scratch server. Dropping it ends it at once.
pub struct ScratchServer {
    process: Guarded,
    place: Place,
    superuser: String,
    programs: PathBuf,
    data: PathBuf,
    recovered: bool,
    missing: Vec<String>,
}

impl ScratchServer {
    /// Starts one and waits until it has recovered: until it takes writes, or until it is paused at its target where the
    /// settings say `recovery_target_action` = `pause`. That takes as long as there is log to replay.
    ///
    /// Errors: [`ScratchError`]; a server that cannot go on is one, with what it said.
    pub async fn start(options: &ScratchOptions, cancel: &CancellationToken) -> Result<Self, ScratchError> {
        let program = options.programs.join("postgres");
        if !program.exists() {
            return Err(ScratchError::NoProgram {
                program: "postgres",
                folder: options.programs.clone(),
            });
        }
        if let Some(recovery) = &options.recovery {
            let target = |(name, value): &(String, String)| TARGETS.contains(&name.as_str()) && !value.is_empty();
            if !recovery.iter().any(target) {
                return Err(ScratchError::NoTarget);
            }
        }
        let (wanted, recovers) = (options.clone(), options.recovery.is_some());
        let place = blocking(move || Place::make(&wanted)).await;
        let place = place.map_err(|_| ScratchError::Cancelled)??;
        let configured = place::preloaded(&options.data);
        let (present, missing) = place::split_libraries(configured, &options.programs);
        let mut arguments: Vec<OsString> = vec!["-D".into(), options.data.clone().into()];
        for (name, value) in settings(options, &place, &present) {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let task = Task {
            program: program.clone(),
            arguments,
            variables: Vec::new(),
            user: place.user,
            silent: false,
            removed: Some(place.folder.clone()),
        };
        let process = Guarded::start(&task, of_server).map_err(|source| ScratchError::Run { program, source })?;
        let mut server = Self {
            process,
            place,
            superuser: String::new(),
            programs: options.programs.clone(),
            data: options.data.clone(),
            recovered: recovers,
            missing,
        };
        let pauses = pauses(options);
        tokio::select! {
            ready = server.is_ready(if pauses { PAUSED } else { READY }, &options.roles) => ready?,
            () = cancel.cancelled() => return Err(ScratchError::Cancelled),
        }
        Ok(server)
    }

    async fn is_ready(&mut self, wanted: u8, roles: &[String]) -> Result<(), ScratchError> {
        match self.process.reaches(wanted).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => return Err(self.gave_up(status)),
            Err(source) => {
                let program = self.programs.join("postgres");
                return Err(ScratchError::Run { program, source });
            }
        }
        self.superuser = self.find_superuser(roles).await?;
        Ok(())
    }

    /// One of these roles, if it is one; else the one that the cluster was made with.
    async fn find_superuser(&self, roles: &[String]) -> Result<String, ScratchError> {
        let what = "who its superuser is";
        let mut connected = self.connect_as(SUPERUSER, "template1").await;
        for role in roles.iter().filter(|role| *role != SUPERUSER) {
            if connected.is_err() {
                connected = self.connect_as(role, "template1").await;
            }
        }
        let client = connected?;
        let row = client
            .query_one(
                "SELECT coalesce((SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper),
                    (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10))::text",
                &[],
            )
            .await;
        row.and_then(|row| row.try_get(0))
            .map_err(|source| ScratchError::Ask { what, source })
    }

    /// How it ended, if it has or does so within this time.
    pub(super) async fn has_ended(&mut self, within: Duration) -> Option<ScratchError> {
        tokio::time::timeout(within, self.ended()).await.ok()
    }

    /// Waits until it ends by itself, and says how.
    pub async fn ended(&mut self) -> ScratchError {
        match self.process.ended().await {
            Ok(status) => self.gave_up(status),
            Err(source) => ScratchError::Run {
                program: self.programs.join("postgres"),
                source,
            },
        }
    }

    /// Why it has ended.
    fn gave_up(&self, status: ExitStatus) -> ScratchError {
        let mut problem = match self.process.marked().first() {
            Some(line) => line.clone(),
            None => format!("it ended with {status}"),
        };
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            problem = format!("{problem} (it was started without {missing}, which is not here)");
        }
        let log = self.process.said();
        ScratchError::Ended { problem, log }
    }

    /// The folder of its socket, which is what clients take for a host, with the port 5432.
    pub fn socket(&self) -> &Path {
        &self.place.folder
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.process.said()
    }

    /// Libraries that the cluster was configured to load and that are not installed here: it runs without them.
    pub fn missing_libraries(&self) -> &[String] {
        &self.missing
    }

    /// The superuser that everything is done as.
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// How a database is connected to.
    pub fn address(&self, database: &str) -> tokio_postgres::Config {
        self.address_as(&self.superuser, database)
    }

    fn address_as(&self, user: &str, database: &str) -> tokio_postgres::Config {
        let mut address = tokio_postgres::Config::new();
        address
            .host_path(&self.place.folder)
            .port(PORT)
            .user(user)
            .dbname(database);
        address.application_name("opsctl").connect_timeout(CONNECTS_WITHIN);
        address
    }

    /// A connection to a database.
    ///
    /// Errors: [`ScratchError::Connect`].
    pub async fn connect(&self, database: &str) -> Result<Client, ScratchError> {
        self.connect_as(&self.superuser, database).await
    }

    async fn connect_as(&self, user: &str, database: &str) -> Result<Client, ScratchError> {
        let connected = self.address_as(user, database).connect(NoTls).await;
        let (client, connection) = connected.map_err(|source| ScratchError::Connect {
            user: user.to_owned(),
            database: database.to_owned(),
            source,
        })?;
        // It ends with the client or with the server.
        tokio::spawn(connection);
        Ok(client)
    }

    /// The databases that can be connected to, by name.
    ///
    /// Errors: as [`connect`](Self::connect), and [`ScratchError::Ask`].
    pub async fn databases(&self) -> Result<Vec<String>, ScratchError> {
        let client = self.connect("template1").await?;
        let rows = client
            .query(
                "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY datname",
                &[],
            )
            .await;
        let what = "which databases there are";
        let rows = rows.map_err(|source| ScratchError::Ask { what, source })?;
        let names = rows.iter().map(|row| row.try_get(0));
        names
            .collect::<Result<_, _>>()
            .map_err(|source| ScratchError::Ask { what, source })
    }

    /// How far it came.
    ///
    /// Errors: as [`databases`](Self::databases).
    pub async fn reached(&self) -> Result<Reached, ScratchError> {
        let what = "how far it recovered";
        let ask = |source| ScratchError::Ask { what, source };
        let client = self.connect("template1").await?;
        let row = client
            .query_one(
                "SELECT pg_is_in_recovery(),
                    CASE WHEN $1 THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
                    (pg_control_checkpoint()).timeline_id,
                    CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_walfile_name(pg_current_wal_lsn()) END,
                    pg_last_xact_replay_timestamp()",
                &[&self.recovered],
            )
            .await
            .map_err(ask)?;
        let position: Option<String> = row.try_get(1).map_err(ask)?;
        let position = position.unwrap_or_default();
        let (of_checkpoint, file): (i32, String) = (row.try_get(2).map_err(ask)?, row.try_get(3).map_err(ask)?);
        // The checkpoint after a promotion may still be on its way; the file that is written to is not.
        let of_file = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        Ok(Reached {
            position: position
                .parse()
                .map_err(|_| ScratchError::Answer { what, answer: position })?,
            timeline: Timeline(of_file.unwrap_or(of_checkpoint.cast_unsigned())),
            last_commit: row.try_get(4).map_err(ask)?,
            paused: row.try_get(0).map_err(ask)?,
        })
    }

    /// Ends it in good order, with everything written that it has: what reads the files afterwards finds them whole.
    ///
    /// Errors: [`ScratchError::DoesNotStop`], or how it ended instead.
    pub async fn stop(mut self) -> Result<(), ScratchError> {
        self.process.signal(Signal::INT);
        let ended = tokio::time::timeout(STOPS_WITHIN, self.process.ended()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.gave_up(status)),
            Ok(Err(source)) => Err(ScratchError::Run {
                program: self.programs.join("postgres"),
                source,
            }),
            Err(_) => Err(ScratchError::DoesNotStop),
        }
    }

    /// Whom programs beside it run as, and where.
    pub(super) fn task(&self, program: &str, arguments: &[&str], database: Option<&str>) -> Task {
        let mut task = Task {
            program: self.programs.join(program),
            arguments: arguments.iter().map(OsString::from).collect(),
            variables: vec![
                ("PGHOST", self.place.folder.clone().into()),
                ("PGPORT", PORT.to_string().into()),
                ("PGUSER", self.superuser.clone().into()),
                ("PGAPPNAME", "opsctl".into()),
            ],
            user: self.place.user,
            silent: false,
            removed: None,
        };
        // As an argument it could be taken for an address.
        task.variables
            .extend(database.map(|name| ("PGDATABASE", OsString::from(name))));
        task
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// The settings that say where recovery ends. Not more than one may be set.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

fn pauses(options: &ScratchOptions) -> bool {
    let recovery = options.recovery.iter().flatten();
    let mut action = recovery.filter(|(name, _)| name == "recovery_target_action");
    action.next_back().is_some_and(|(_, value)| value == "pause")
}

/// What is set on the command line, which goes before `postgresql.auto.conf` of the copy. Of two for one name PostgreSQL
/// takes the later.
fn settings(options: &ScratchOptions, place: &Place, libraries: &[String]) -> Vec<(String, String)> {
    let shown = |name: &str| place.folder.join(name).display().to_string();
    let pauses = pauses(options);
    let mut settings: Vec<(&str, String)> = vec![
        ("config_file", shown("postgresql.conf")),
        ("hba_file", shown("pg_hba.conf")),
        ("ident_file", shown("pg_ident.conf")),
        ("external_pid_file", String::new()),
        ("shared_preload_libraries", libraries.join(",")),
        ("session_preload_libraries", String::new()),
        ("local_preload_libraries", String::new()),
        // In the data folder: what a killed server leaves of it elsewhere nobody removes.
        ("dynamic_shared_memory_type", "mmap".into()),
        ("huge_pages", "off".into()),
        ("shared_buffers", "128MB".into()),
        ("max_connections", "20".into()),
        // As many as the copy may need: a dump locks every table, a recovery brings back every prepared transaction.
        ("max_locks_per_transaction", "1024".into()),
        ("max_prepared_transactions", "64".into()),
        ("autovacuum", "off".into()),
        ("hot_standby", if pauses { "on" } else { "off" }.into()),
        ("primary_conninfo", String::new()),
        ("primary_slot_name", String::new()),
        ("synchronous_standby_names", String::new()),
        ("restore_command", String::new()),
        ("recovery_end_command", String::new()),
        ("archive_cleanup_command", String::new()),
    ];
    settings.extend(TARGETS.map(|name| (name, String::new())));
    let mut settings: Vec<(String, String)> = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    settings.extend(options.settings.iter().cloned());
    settings.extend(options.recovery.iter().flatten().cloned());
    // What makes it ours alone goes before everything.
    let ours = [
        ("listen_addresses", String::new()),
        ("unix_socket_directories", place.folder.display().to_string()),
        ("unix_socket_permissions", "0700".into()),
        ("unix_socket_group", String::new()),
        ("port", PORT.to_string()),
        ("ssl", "off".into()),
        ("archive_mode", "off".into()),
        ("archive_command", String::new()),
        ("fsync", if options.lasting { "on" } else { "off" }.into()),
        ("full_page_writes", if options.lasting { "on" } else { "off" }.into()),
        // Nothing of it goes to where the original subscribes.
        ("max_logical_replication_workers", "0".into()),
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
        ("log_line_prefix", String::new()),
        ("log_min_messages", "warning".into()),
        // The log is shown, and what is asked of the copy is nobody else's business.
        ("log_min_error_statement", "panic".into()),
        ("log_statement", "none".into()),
        ("log_min_duration_statement", "-1".into()),
        ("lc_messages", "C".into()),
        ("restart_after_crash", "off".into()),
    ];
    settings.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    if place.major >= 17 {
        // What the copy does when somebody logs in is not to happen here.
        settings.push(("event_triggers".to_owned(), "off".to_owned()));
    }
    settings
}

/// What a line of the server's log is. The words are PostgreSQL's, without translation.
fn of_server(line: &str) -> Line {
    let is_said = |words: &str| line.contains(words);
    if line.starts_with("FATAL:") || line.starts_with("PANIC:") {
        // What clients are told who come too early or are sent away.
        let passing = [
            "starting up",
            "shutting down",
            "not yet accepting",
            "terminating connection",
        ];
        // And those who ask for what the cluster does not have.
        let asked_for = ["FATAL:  role \"", "FATAL:  database \""];
        let line_is_passing = passing.iter().any(|words| is_said(words))
            || (line.ends_with("does not exist") && asked_for.iter().any(|words| line.starts_with(words)));
        return if line_is_passing { Line::Plain } else { Line::Marked };
    }
    if is_said("database system is ready to accept connections") {
        Line::Stage(READY)
    } else if is_said("pausing at the end of recovery") || is_said("recovery has paused") {
        Line::Stage(PAUSED)
    } else if is_said("database system is ready to accept read") {
        Line::Stage(READ_ONLY)
    } else {
        Line::Plain
    }
}

/// User and group that a server of ours runs as; `None`: ours. As root that is the user `postgres`.
///
/// Errors: [`ScratchError::NoUser`].
pub fn user() -> Result<Option<(u32, u32)>, ScratchError> {
    place::user()
}

/// Where a scratch folder can be so that the server's user gets to it: `wanted` if it can, else `home` or a temporary folder.
pub fn parent(wanted: &Path, home: &Path) -> PathBuf {
    place::parent(wanted, home)
}

/// The major version that a data folder is of.
pub(super) fn major(data: &Path) -> Result<u32, ScratchError> {
    let file = data.join("PG_VERSION");
    let number = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| ScratchError::NotACluster(data.to_owned()))
}
