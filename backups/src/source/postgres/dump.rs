//! The databases of a server as `pg_dump` writes them, each in the custom format and not compressed, since the repository
//! compresses and what is compressed before cannot be told to be the same; `pg_dumpall` writes roles beside them. Nothing
//! is written to a disk on the way.
//!
//! `pg_dump` marks no end, so its exit status decides. Each database is the state of one moment; several are of several
//! moments.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;

use super::manifest::{Dumped, GLOBALS, Globals, Manifest, file_of};
use crate::postgres::{Client, Contents, Dsn, PostgresError, load, programs};
use crate::process::{self, Launch};
use crate::progress::Phase;
use crate::repo::{Node, Tree, Writer};
use crate::source::command::CommandFailure;
use crate::source::stream::{MANIFEST, Outcome, Passed, compare, stream_node, take};
use crate::source::{Source, Verification, VerifiedCheck, Written};
use crate::threads::blocking;
use crate::{Error, clock};

/// What to dump, and with what.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// What the snapshot says it is of.
    pub name: String,
    /// The server. To prove a copy none is needed.
    pub server: Option<Dsn>,
    /// The databases; without any, all that somebody may connect to.
    pub databases: Vec<String>,
    /// Roles and what else is of all databases are saved, too.
    pub globals: bool,
    /// The folder of the programs, if they are not where they are looked for.
    pub programs: Option<PathBuf>,
}

/// The databases of a server.
#[derive(Debug)]
pub struct DumpSource {
    options: DumpOptions,
    notes: Mutex<Vec<String>>,
}

/// What a server has.
#[derive(Debug, Deserialize)]
pub(crate) struct Server {
    version: String,
    number: u32,
    /// Those that can be dumped, by name.
    pub(crate) databases: Vec<Database>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) owner: String,
    /// Bytes on the server's disk, if we may know.
    pub(crate) size: Option<u64>,
}

const SERVER: &str = "SELECT json_build_object('version', current_setting('server_version'), \
    'number', current_setting('server_version_num')::int, 'databases', (SELECT coalesce(json_agg(json_build_object(\
    'name', datname, 'owner', pg_get_userbyid(datdba), \
    'size', CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END) ORDER BY datname), '[]') \
    FROM pg_database WHERE datallowconn AND NOT datistemplate))";

/// Asks a server what it has.
pub(crate) async fn look(client: &Client) -> Result<Server, PostgresError> {
    client.ask(SERVER).await
}

impl DumpSource {
    /// The databases of a server.
    pub fn new(options: DumpOptions) -> Self {
        Self {
            options,
            notes: Mutex::default(),
        }
    }

    fn note(&self, note: impl Into<String>) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(note.into());
    }

    /// Those that were asked for, or all.
    fn chosen<'a>(&self, client: &Client, server: &'a Server) -> Result<Vec<&'a Database>, PostgresError> {
        if self.options.databases.is_empty() {
            let all = server.databases.iter();
            return Ok(all.filter(|database| !load::is_temporary(&database.name)).collect());
        }
        let named = self.options.databases.iter().map(|name| {
            let found = server.databases.iter().find(|database| database.name == *name);
            found.ok_or_else(|| PostgresError::NoDatabase {
                address: client.dsn.to_string(),
                name: name.clone(),
            })
        });
        named.collect()
    }

    /// Runs a program and stores what it prints.
    async fn stream(
        &self,
        into: &Writer<'_>,
        client: &Client,
        (program, launch): (&str, Launch),
        file: &str,
    ) -> Result<(Node, u64, String), Error> {
        into.progress().file(Path::new(file));
        let started = blocking(move || process::start(launch)).await?;
        let (mut running, output) = started.map_err(|source| PostgresError::Start {
            program: program.to_owned(),
            source,
        })?;
        let passed = Passed::default();
        let failure = match take(into, &mut running, &passed, output).await {
            Ok((content, _)) if content.size == 0 => CommandFailure::Nothing,
            Ok((content, _)) => {
                running.release();
                into.progress().file_done();
                let size = content.size;
                return Ok((stream_node(file.into(), content, clock::now()), size, passed.sha256()));
            }
            Err(Outcome::Engine(error)) => return Err(error),
            Err(Outcome::Failed(failure)) => failure,
        };
        let said = running.give_up().await;
        Err(client.failed(program, failure, &said).into())
    }

    /// Roles with what they prove themselves with; without that where we may not read it.
    async fn globals(&self, into: &Writer<'_>, client: &Client) -> Result<(Node, Globals), Error> {
        let launch = |more: &[&str]| {
            let arguments = [&["--globals-only"], more].concat();
            let mut launch = client.launch("pg_dumpall", &arguments);
            // It takes the database to begin with from here.
            if let Some(database) = client.dsn.database() {
                launch.arguments.extend(["-l".into(), database.into()]);
            }
            ("pg_dumpall", launch)
        };
        let (node, length_bytes, sha256, role_passwords) = match self.stream(into, client, launch(&[]), GLOBALS).await {
            Ok((node, length, hash)) => (node, length, hash, true),
            Err(Error::Postgres(PostgresError::Failed { said, .. })) if said.contains("permission denied") => {
                self.note("roles are saved without their passwords: reading those needs more rights");
                let without = launch(&["--no-role-passwords"]);
                let (node, length, hash) = self.stream(into, client, without, GLOBALS).await?;
                (node, length, hash, false)
            }
            Err(error) => return Err(error),
        };
        let globals = Globals {
            file: GLOBALS.to_owned(),
            length_bytes,
            sha256,
            role_passwords,
        };
        Ok((node, globals))
    }
}

#[async_trait]
impl Source for DumpSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![Path::new("/").join(&self.options.name)]
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let dsn = self.options.server.clone();
        let dsn = dsn.ok_or(Error::Internal("a server that is saved has an address"))?;
        let dsn = if dsn.database().is_some() {
            dsn
        } else {
            dsn.with_database("postgres")
        };
        let taken_at = clock::now();
        let folder = self.options.programs.as_deref();
        // Any `psql` can ask for the version; a dump needs a `pg_dump` that knows it.
        let first = programs::find(folder, &["psql", "pg_dump"], 0, u32::MAX).await?;
        let server = look(&Client::new(first, dsn.clone())).await?;
        let major = server.number / 10_000;
        let wanted: &[&str] = if self.options.globals {
            &["psql", "pg_dump", "pg_dumpall"]
        } else {
            &["psql", "pg_dump"]
        };
        let installation = programs::find(folder, wanted, major, major).await?;
        let pg_dump_version = installation.version.clone();
        let client = Client::new(installation, dsn);
        let chosen = self.chosen(&client, &server)?;
        let sizes = chosen.iter().map(|database| database.size);
        into.progress()
            .phase(Phase::Saving, sizes.sum(), Some(chosen.len() as u64));

        let mut nodes = Vec::new();
        let globals = if self.options.globals {
            let (node, globals) = self.globals(into, &client).await?;
            nodes.push(node);
            Some(globals)
        } else {
            None
        };
        let mut databases = Vec::new();
        for database in chosen {
            let began = clock::now();
            let launch = client.in_database(&database.name).launch("pg_dump", &["-Fc", "-Z0"]);
            let file = file_of(&database.name);
            let (node, length_bytes, sha256) = self.stream(into, &client, ("pg_dump", launch), &file).await?;
            nodes.push(node);
            databases.push(Dumped {
                name: database.name.clone(),
                file,
                length_bytes,
                sha256,
                owner: database.owner.clone(),
                size_bytes: database.size,
                taken_at: began,
                ended_at: clock::now(),
            });
        }
        let ended_at = clock::now();
        let manifest = Manifest {
            schema: "opsctl.source/v1".to_owned(),
            kind: self.kind().to_owned(),
            method: "dump".to_owned(),
            server_version: server.version,
            server_version_num: server.number,
            pg_dump_version,
            databases,
            globals,
            tool_version: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
            taken_at,
            ended_at,
        };
        let json =
            serde_json::to_vec_pretty(&manifest).map_err(|_| Error::Internal("a manifest is always valid JSON"))?;
        let manifest = into.save_bytes(json).await?;
        nodes.push(stream_node(MANIFEST.into(), manifest, ended_at));
        into.count(|summary| {
            summary.files_new += nodes.len() as u64;
            summary.total_files_processed += nodes.len() as u64;
            summary.total_bytes_processed += nodes.iter().map(|node| node.size).sum::<u64>();
        });
        Ok(Written {
            root: Tree::new(nodes),
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    /// Holds every file against the manifest, and reads the table of contents of each dump. Whether a dump can be loaded
    /// shows where it is loaded: [`load`].
    async fn verify(&self, restored: &Path) -> Result<Verification, Error> {
        let manifest = Manifest::read(restored).await?;
        let folder = restored.to_path_buf();
        let work = move || {
            let (mut unequal, mut unread) = (Vec::new(), Vec::new());
            let dumps = manifest.databases.iter();
            let files = dumps
                .clone()
                .map(|dumped| (&dumped.file, dumped.length_bytes, &dumped.sha256));
            let globals = manifest
                .globals
                .iter()
                .map(|globals| (&globals.file, globals.length_bytes, &globals.sha256));
            for (file, length, hash) in files.chain(globals) {
                match compare(&folder.join(file), length, hash) {
                    Ok(true) => {}
                    Ok(false) => unequal.push(format!("{file} is not the one that was saved")),
                    Err(error) => unequal.push(format!("{file}: {error}")),
                }
            }
            for dumped in dumps {
                let read = std::fs::File::open(folder.join(&dumped.file))
                    .map_err(|error| error.to_string())
                    .and_then(|file| Contents::read(std::io::BufReader::new(file)).map_err(|error| error.to_string()));
                if let Err(problem) = read {
                    unread.push(format!("{}: {problem}", dumped.file));
                }
            }
            (unequal, unread)
        };
        let (unequal, unread) = blocking(work).await?;
        let check = |name, problems: Vec<String>| VerifiedCheck {
            name,
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
        };
        Ok(Verification {
            checks: vec![check("manifest", unequal), check("table of contents", unread)],
        })
    }
}
