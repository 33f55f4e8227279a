//! A server of one's own: made by `initdb` in a folder that is gone afterwards, reached by a socket in that folder and by
//! nothing else, ended with whoever started it. Root cannot run one: there it runs as the user `postgres`, in a folder
//! that this user can reach.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::load::{Filling, contents, create, restorer, roles, settings_of};
use super::programs;
use super::scratch;
use super::{Client, Contents, Dsn, PostgresError, quoted};
use crate::Error;
use crate::process::{self, Launch, Running, Variable};
use crate::proof::{Check, Group, Live, Outcome, Revive, Revived, Scratch};
use crate::source::postgres::manifest::{Dumped, Manifest};
use crate::threads::blocking;

/// Its superuser, as on most servers.
const SUPERUSER: &str = "postgres";
/// The database that is connected to while others are made: nobody dumps it.
const MAINTENANCE: &str = "template1";
/// How long it may take to be there.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(25);
/// The address of a Unix socket has so many bytes.
const SOCKET_PATH: usize = 107;

/// A running server of one's own.
pub struct FreshServer {
    client: Client,
    sockets: PathBuf,
    running: Option<Running>,
    /// Removed after the server has ended.
    _places: Vec<Scratch>,
}

impl FreshServer {
    /// Starts one of the major version `major`, or of the next newer one that is installed. `home` is where scratch
    /// folders are noted, `parent` where it is to be, if whoever runs it can get there.
    pub async fn start(programs: Option<&Path>, major: u32, home: &Path, parent: &Path) -> Result<Self, Error> {
        let wanted = ["initdb", "postgres", "psql", "pg_restore"];
        let installation = programs::find(programs, &wanted, major, major).await?;
        let (home, parent) = (home.to_path_buf(), parent.to_path_buf());
        let place = blocking(move || Place::make(&home, &parent)).await??;
        let data = place.data.clone();
        let run = |program: &str, arguments: Vec<std::ffi::OsString>| Launch {
            program: installation.program(program),
            arguments,
            variables: vec![Variable {
                name: "LC_ALL".to_owned(),
                value: Zeroizing::new("C".to_owned()),
                is_secret: false,
            }],
            without: Some("PG"),
            folder: Some(place.data.clone()),
            user: place.user,
            ..Launch::default()
        };
        let mut arguments: Vec<std::ffi::OsString> = vec!["-D".into(), data.clone().into()];
        arguments.extend(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"].map(Into::into));
        let made = process::run(run("initdb", arguments), 1 << 16).await;
        let made = made.map_err(|source| PostgresError::Start {
            program: "initdb".to_owned(),
            source,
        })?;
        if !made.status.success() {
            return Err(failed("initdb failed", &made.said));
        }
        let mut arguments: Vec<std::ffi::OsString> = vec!["-D".into(), data.into()];
        let sockets = place.sockets.display();
        for setting in [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={sockets}"),
            "unix_socket_permissions=0700".to_owned(),
            // What is in it is thrown away: a power cut may take it.
            "fsync=off".to_owned(),
            "full_page_writes=off".to_owned(),
            "synchronous_commit=off".to_owned(),
            "wal_level=minimal".to_owned(),
            "max_wal_senders=0".to_owned(),
            "max_wal_size=4GB".to_owned(),
            "autovacuum=off".to_owned(),
            // In its folder: what a killed server leaves of it elsewhere nobody removes.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ] {
            arguments.extend(["-c".into(), setting.into()]);
        }
        let mut launch = run("postgres", arguments);
        launch.gently = true;
        let started = blocking(move || process::start(launch)).await?;
        let (running, output) = started.map_err(|source| PostgresError::Start {
            program: "postgres".to_owned(),
            source,
        })?;
        // It says everything on stderr.
        drop(output);
        let mut server = Self {
            client: Client {
                installation,
                dsn: Dsn::of_socket(&place.sockets, SUPERUSER),
                is_ours: true,
            },
            sockets: place.sockets,
            running: Some(running),
            _places: place.scratches,
        };
        server.wait().await?;
        Ok(server)
    }

    /// Waits until it lets us in.
    async fn wait(&mut self) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        let address = self.address(MAINTENANCE);
        loop {
            let connected = address.connect(tokio_postgres::NoTls).await;
            if connected.is_ok() {
                return Ok(());
            }
            let Some(running) = &mut self.running else {
                return Err(failed("it ended", b""));
            };
            let problem = tokio::select! {
                _ended = running.ended() => "it ended at once",
                () = tokio::time::sleep(POLL) => {
                    if Instant::now() < until {
                        continue;
                    }
                    "it did not let us in within a minute"
                }
            };
            let said = match self.running.take() {
                Some(running) => running.give_up().await,
                None => Vec::new(),
            };
            return Err(failed(problem, &said));
        }
    }

    /// How a database of it is connected to.
    pub fn address(&self, database: &str) -> tokio_postgres::Config {
        let mut address = tokio_postgres::Config::new();
        address.host_path(&self.sockets).user(SUPERUSER).dbname(database);
        address.connect_timeout(PATIENCE).application_name("opsctl");
        address
    }

    /// The version of its programs.
    pub fn version(&self) -> &str {
        &self.client.installation.version
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<(), Error> {
        if let Some(running) = self.running.take() {
            // Nobody reads what is in it again: without a last checkpoint.
            let ended = running.end(Signal::QUIT).await;
            ended.map_err(|error| failed(&error.to_string(), b""))?;
        }
        Ok(())
    }

    fn in_maintenance(&self) -> Client {
        self.client.in_database(MAINTENANCE)
    }
}

fn failed(problem: &str, said: &[u8]) -> Error {
    PostgresError::Scratch {
        problem: problem.to_owned(),
        said: String::from_utf8_lossy(said).trim_end().to_owned(),
    }
    .into()
}

/// Where a server is.
struct Place {
    data: PathBuf,
    sockets: PathBuf,
    user: Option<(u32, u32)>,
    scratches: Vec<Scratch>,
}

impl Place {
    fn make(home: &Path, parent: &Path) -> Result<Self, Error> {
        let user = scratch::user()?;
        let temporary = std::env::temp_dir();
        let mut scratches = vec![Scratch::make(home, &scratch::parent(parent, home))?];
        let data = within(&scratches[0], "server", user)?;
        let mut sockets = scratches[0].folder().join("s");
        if sockets.as_os_str().len() + "/.s.PGSQL.5432.lock".len() > SOCKET_PATH {
            scratches.push(Scratch::make(
                home,
                if is_short(&temporary) {
                    &temporary
                } else {
                    Path::new("/tmp")
                },
            )?);
            sockets = within(&scratches[1], "s", user)?;
        } else {
            within(&scratches[0], "s", user)?;
        }
        Ok(Self {
            data,
            sockets,
            user,
            scratches,
        })
    }
}

fn is_short(folder: &Path) -> bool {
    folder.as_os_str().len() < 50
}

/// A folder in a scratch folder, for the user who runs the server.
fn within(scratch: &Scratch, name: &str, user: Option<(u32, u32)>) -> Result<PathBuf, Error> {
    let folder = scratch.folder().join(name);
    let make = || {
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid))?;
            // It leads through, and shows nothing.
            fs::set_permissions(scratch.folder(), fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    };
    match make() {
        Ok(()) => Ok(folder),
        Err(source) => Err(Error::Target {
            action: "make a folder for a server at",
            path: folder,
            source,
        }),
    }
}

/// Brings dumps to life: a server of one's own with every database of a snapshot in it.
#[derive(Debug, Clone)]
pub struct DumpRevival {
    /// The folder of the programs, if they are not where they are looked for.
    pub programs: Option<PathBuf>,
    /// Where scratch folders are noted.
    pub home: PathBuf,
    /// Where the server is to be.
    pub parent: PathBuf,
    /// The database that is asked where none is named.
    pub asked: Option<String>,
}

/// A server with what was dumped.
struct Revival {
    server: FreshServer,
    asked: Option<String>,
}

#[async_trait]
impl Live for Revival {
    fn address(&self, database: Option<&str>) -> Result<tokio_postgres::Config, String> {
        match database.or(self.asked.as_deref()) {
            Some(database) => Ok(self.server.address(database)),
            None => Err("there are several databases: say which one is asked with `database`".to_owned()),
        }
    }

    fn version(&self) -> String {
        self.server.version().to_owned()
    }

    async fn stop(self: Box<Self>) -> Result<(), Error> {
        self.server.stop().await
    }
}

#[async_trait]
impl Revive for DumpRevival {
    async fn revive(&self, folder: &Path) -> Result<Revived, Error> {
        let manifest = Manifest::read(folder).await?;
        let major = manifest.server_major();
        let server = FreshServer::start(self.programs.as_deref(), major, &self.home, &self.parent).await?;
        let maintenance = server.in_maintenance();
        let mut checks = Vec::new();
        let mut with_roles = false;
        if let Some(globals) = &manifest.globals {
            let there = BTreeSet::from([SUPERUSER.to_owned()]);
            let made = match roles(&folder.join(&globals.file), &there).await {
                Ok((statements, made)) => maintenance
                    .execute(&statements)
                    .await
                    .map(|()| made)
                    .map_err(Error::from),
                Err(error) => Err(error),
            };
            with_roles = made.is_ok();
            checks.push(check(
                "roles",
                made.map(|made| (made.len(), format!("{} made", made.len()))),
            )?);
        }
        if manifest.databases.iter().any(|dumped| dumped.name == "postgres") {
            maintenance.execute(&["DROP DATABASE postgres".to_owned()]).await?;
        }
        for dumped in &manifest.databases {
            let loading = Loading {
                programs: self.programs.as_deref(),
                maintenance: &maintenance,
                folder,
                with_roles,
            };
            let name = format!("pg_restore {}", dumped.name);
            checks.push(check(&name, loading.load(dumped).await)?);
        }
        let only = match manifest.databases.as_slice() {
            [only] => Some(only.name.clone()),
            _ => None,
        };
        let named = self
            .asked
            .clone()
            .filter(|asked| manifest.databases.iter().any(|dumped| dumped.name == *asked));
        Ok(Revived {
            checks,
            live: Some(Box::new(Revival {
                server,
                asked: only.or(named),
            })),
        })
    }
}

/// What does not load is found; what keeps us from trying is an error.
fn check(name: &str, loaded: Result<(usize, String), Error>) -> Result<Check, Error> {
    let (observed, figure) = match loaded {
        Ok((figure, observed)) => (observed, Some(figure as f64)),
        Err(Error::Postgres(
            error @ (PostgresError::Failed { .. } | PostgresError::Dump { .. } | PostgresError::Answer { .. }),
        )) => {
            let mut told = error.to_string();
            if let PostgresError::Failed { said, .. } = &error {
                told = format!("{told}: {said}");
            }
            if let Some(source) = std::error::Error::source(&error) {
                told = format!("{told}: {source}");
            }
            (told, None)
        }
        Err(error) => return Err(error),
    };
    Ok(Check {
        group: Group::Restore,
        name: name.to_owned(),
        expected: "no error".to_owned(),
        outcome: Outcome::of(figure.is_some()),
        observed,
        figure,
    })
}

/// One dump on its way into the server.
struct Loading<'a> {
    programs: Option<&'a Path>,
    maintenance: &'a Client,
    folder: &'a Path,
    with_roles: bool,
}

impl Loading<'_> {
    /// How many tables came back, and that in words.
    async fn load(&self, dumped: &Dumped) -> Result<(usize, String), Error> {
        let dump = self.folder.join(&dumped.file);
        let contents = contents(&dump).await?;
        let server = self.maintenance.installation.major;
        let installation = restorer(self.programs, contents.dump_major(), server).await?;
        let client = Client {
            installation,
            ..self.maintenance.clone()
        };
        let mut observed = format!("{} tables", contents.tables());
        if let Err(error) = create(&client, &dumped.name, &contents).await {
            // A locale that only the original's machine has says nothing of the dump.
            create_plainly(&client, &dumped.name, &contents, error).await?;
            observed += ", without the locale, which is not on this machine";
        }
        let filling = Filling {
            client: &client,
            dump: &dump,
            selected: None,
            no_owner: !self.with_roles,
            no_tablespaces: true,
        };
        filling.run(&dumped.name).await?;
        if self.with_roles {
            client.execute(&settings_of(&contents, &dumped.name)?).await?;
        }
        Ok((contents.tables(), observed))
    }
}

async fn create_plainly(
    client: &Client,
    name: &str,
    contents: &Contents,
    error: PostgresError,
) -> Result<(), PostgresError> {
    match &error {
        PostgresError::Failed { said, .. } if said.contains("locale") => {}
        _ => return Err(error),
    }
    let definition = contents.of_database().map_or("", |entry| &entry.definition);
    let encoding = definition
        .split_once("ENCODING = '")
        .and_then(|(_, rest)| rest.split('\'').next());
    let encoding = encoding.filter(|encoding| {
        encoding
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    let statement = format!(
        "CREATE DATABASE {} WITH TEMPLATE = template0 ENCODING = '{}' LC_COLLATE = 'C' LC_CTYPE = 'C'",
        quoted(name),
        encoding.unwrap_or("UTF8")
    );
    client.execute(&[statement]).await
}
