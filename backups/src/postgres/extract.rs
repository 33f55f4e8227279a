//! One database of a server of our own, as a dump in a folder: what was recovered as a whole goes on from there as every
//! other dump does ([`load`](super::load)). The server is the copy, so that nobody else is asked for anything.

use std::path::{Path, PathBuf};

use super::ladder::only;
use super::{Client, Dsn, PostgresError, programs};
use crate::Error;
use crate::clock;
use crate::pitr::postgres::recovery::run::Recovered;
use crate::source::postgres::dump;
use crate::source::postgres::manifest::{Dumped, GLOBALS, file_of};
use crate::threads::blocking;

/// What is wanted of the copy.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// The folder of the programs, if they are not where they are looked for.
    pub programs: Option<PathBuf>,
    /// The database; without a name the only one besides `postgres`.
    pub database: Option<String>,
    /// Roles, too.
    pub globals: bool,
}

/// A dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// What it is of. Its hash is not taken: it is read where it was written.
    pub dumped: Dumped,
    /// Where it is.
    pub dump: PathBuf,
    /// The script of roles, if they were wanted.
    pub globals: Option<PathBuf>,
    /// There is no other database besides `postgres`.
    pub is_alone: bool,
}

/// Dumps a database of `copy` into `folder`. Dropping the future ends what dumps.
///
/// # Errors
/// [`PostgresError::WhichDatabase`] and [`PostgresError::NotInSnapshot`], and how `pg_dump` failed.
pub async fn extract(copy: &Recovered, options: &ExtractOptions, folder: &Path) -> Result<Extracted, Error> {
    let major = copy.major();
    let wanted: &[&str] = if options.globals {
        &["psql", "pg_dump", "pg_dumpall"]
    } else {
        &["psql", "pg_dump"]
    };
    let client = Client {
        installation: programs::find(options.programs.as_deref(), wanted, major, major).await?,
        dsn: Dsn::of_socket(copy.sockets(), copy.superuser()).with_database("template1"),
        is_ours: true,
    };
    let databases = dump::look(&client).await?.databases;
    let names = || {
        databases
            .iter()
            .map(|database| database.name.clone())
            .collect::<Vec<_>>()
    };
    let name = match &options.database {
        Some(name) => name.clone(),
        None => only(names()).ok_or_else(|| PostgresError::WhichDatabase { names: names() })?,
    };
    let found = databases.iter().find(|database| database.name == name);
    let database = found.ok_or_else(|| PostgresError::NotInSnapshot { name, names: names() })?;

    let globals = if options.globals {
        let file = folder.join(GLOBALS);
        let mut launch = client.launch("pg_dumpall", &["--globals-only", "-l", "template1"]);
        launch.arguments.extend(["-f".into(), file.clone().into()]);
        client.to_end("pg_dumpall", launch).await?;
        Some(file)
    } else {
        None
    };
    let taken_at = clock::now();
    let file = file_of(&database.name);
    let path = folder.join(&file);
    let mut launch = client
        .in_database(&database.name)
        .launch("pg_dump", &["--format=custom", "--compress=0"]);
    launch.arguments.extend(["-f".into(), path.clone().into()]);
    client.to_end("pg_dump", launch).await?;
    let measured = path.clone();
    let length = blocking(move || measured.metadata()).await?;
    let length = length.map_err(|source| Error::Target {
        action: "read",
        path: path.clone(),
        source,
    })?;
    Ok(Extracted {
        dumped: Dumped {
            name: database.name.clone(),
            file,
            length_bytes: length.len(),
            sha256: String::new(),
            owner: database.owner.clone(),
            size_bytes: database.size,
            taken_at,
            ended_at: clock::now(),
        },
        dump: path,
        globals,
        is_alone: only(names()).as_ref() == Some(&database.name),
    })
}
