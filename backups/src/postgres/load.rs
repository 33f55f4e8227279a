//! A dump becomes a database on a live server: made under a temporary name, filled by `pg_restore`, which stops at the
//! first error, and only then given its own name, in the same transaction as its owner and its settings. What was begun
//! and not finished is removed; what a killed restore left is found by its name the next time. Nothing else on the server
//! is touched.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::programs::{self, Installation};
use super::selection::{Selected, Selection, Unselected};
use super::swap::{Standing, guarded};
use super::{Client, Contents, Dsn, PostgresError, literal, quoted, script};
use crate::Error;
use crate::source::postgres::manifest::Dumped;
use crate::threads::blocking;

/// What the names of unfinished databases begin with; sixteen hexadecimal digits follow.
const TEMPORARY: &str = "opsctl_restoring_";
/// `pg_restore` works on so many objects at a time at most.
const JOBS: usize = 4;

/// A name for a database that is not finished, which no other has.
pub fn temporary_name() -> String {
    format!("{TEMPORARY}{:016x}", rand::random::<u64>())
}

/// Whether a database is one that is being restored, or was when somebody was killed.
pub(crate) fn is_temporary(name: &str) -> bool {
    let digits = name.strip_prefix(TEMPORARY);
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// How a dump is brought back.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which part of it.
    pub selection: Selection,
    /// The script of roles, if those that are missing are to be made.
    pub globals: Option<PathBuf>,
    /// Everything belongs to whom we are, and nobody else gets rights.
    pub no_owner: bool,
    /// Said of the database as long as it is not finished.
    pub remark: String,
}

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// The database.
    pub database: String,
    /// Tables whose data came back.
    pub tables: usize,
    /// Roles that were made.
    pub roles: Vec<String>,
    /// What is worth telling.
    pub notes: Vec<String>,
}

/// A server that a dump is brought back to, after a look at it.
#[derive(Debug)]
pub struct Target {
    client: Client,
    database: String,
    look: Look,
}

#[derive(Debug, Deserialize)]
struct Look {
    number: u32,
    exists: bool,
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    left: Vec<String>,
}

impl Target {
    /// Looks at the server whether `database` can be made there. The address names the database to be connected to
    /// meanwhile, else it is `postgres`.
    ///
    /// Errors: [`PostgresError::Exists`].
    pub async fn open(programs: Option<&Path>, server: &Dsn, database: &str) -> Result<Self, PostgresError> {
        let server = if server.database().is_some() {
            server.clone()
        } else {
            server.with_database("postgres")
        };
        let installation = programs::find(programs, &["psql", "pg_restore"], 0, u32::MAX).await?;
        let client = Client::new(installation, server);
        let look = look(&client, database).await?;
        if look.exists {
            return Err(PostgresError::Exists {
                name: database.to_owned(),
            });
        }
        Ok(Self {
            client,
            database: database.to_owned(),
            look,
        })
    }

    /// Unfinished databases that nobody is at work on: what killed restores left.
    pub fn left(&self) -> &[String] {
        &self.look.left
    }

    /// The server, without password.
    pub fn address(&self) -> String {
        self.client.dsn.to_string()
    }

    /// Brings `dump` back. After an error or a cancellation there is neither the database nor a role that was not there
    /// before.
    pub async fn load(
        &self,
        programs: Option<&Path>,
        dump: &Path,
        dumped: &Dumped,
        options: &LoadOptions,
        cancel: &CancellationToken,
    ) -> Result<LoadReport, Error> {
        let prepared = self.prepare(programs, dump, options).await?;
        let temporary = temporary_name();
        let result = async {
            self.fill(&prepared, &temporary, dump, options, cancel).await?;
            let owner = self.owner(&prepared, dumped, options);
            let whole = options.selection.is_all();
            let statements = finish(&temporary, &self.database, owner, &prepared.contents, whole)?;
            prepared.client.execute(&statements).await?;
            Ok(())
        };
        self.reported(prepared.report(&self.database), result.await, &prepared, &temporary)
            .await
    }

    /// Brings `dump` back as a database that is not finished: it has the name that the server was opened for, which is one
    /// of [`temporary_name`], and is to take the place of `like`, whose owner, rights, limits and settings it gets; without
    /// one those of the dump. Whoever calls this sees to it that it is removed should everything be killed.
    pub async fn stage(
        &self,
        programs: Option<&Path>,
        dump: &Path,
        dumped: &Dumped,
        like: Option<&Standing>,
        options: &LoadOptions,
        cancel: &CancellationToken,
    ) -> Result<LoadReport, Error> {
        let prepared = self.prepare(programs, dump, options).await?;
        let name = self.database.as_str();
        let result = async {
            self.fill(&prepared, name, dump, options, cancel).await?;
            if let Some(like) = like {
                prepared.client.execute(&like.place_for(name)).await?;
                prepared.client.execute(&like.statements_for(name)).await?;
                return Ok(());
            }
            let mut statements = settings_of(&prepared.contents, name)?;
            let owner = self.owner(&prepared, dumped, options);
            statements.extend(owner.map(|owner| format!("ALTER DATABASE {} OWNER TO {}", quoted(name), quoted(owner))));
            prepared.client.execute(&statements).await?;
            Ok(())
        };
        self.reported(prepared.report(name), result.await, &prepared, name)
            .await
    }

    /// Everything that can be known before something is made.
    async fn prepare(&self, programs: Option<&Path>, dump: &Path, options: &LoadOptions) -> Result<Prepared, Error> {
        let contents = contents(dump).await?;
        let selected = select(&contents, &options.selection)?;
        let mut notes = said_of(&options.selection, selected.as_ref());
        let (make_roles, made) = match &options.globals {
            Some(file) => roles(file, &self.look.roles).await?,
            None => (Vec::new(), Vec::new()),
        };
        if !options.no_owner {
            let missing = missing_roles(&contents, selected.as_ref(), |role| {
                self.look.roles.contains(role) || made.iter().any(|made| made == role)
            });
            if !missing.is_empty() {
                return Err(PostgresError::MissingRoles { names: missing }.into());
            }
        }
        let tablespaces = missing_tablespaces(&contents, selected.as_ref(), &self.look.tablespaces);
        if !tablespaces.is_empty() {
            notes.push(format!(
                "everything is in the default tablespace: the server has no {}",
                tablespaces.join(", ")
            ));
        }
        let server = self.look.number / 10_000;
        let installation = restorer(programs, contents.dump_major(), server).await?;
        Ok(Prepared {
            client: Client {
                installation,
                ..self.client.clone()
            },
            contents,
            selected,
            notes,
            make_roles,
            made,
            no_tablespaces: !tablespaces.is_empty(),
        })
    }

    /// Makes the database and brings into it what is in the dump.
    async fn fill(
        &self,
        prepared: &Prepared,
        name: &str,
        dump: &Path,
        options: &LoadOptions,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let client = &prepared.client;
        // What makes something is not given up half-way: then there would be nothing to remove yet, but soon.
        client.execute(&prepared.make_roles).await?;
        create(client, name, &prepared.contents).await?;
        let remark = format!("COMMENT ON DATABASE {} IS {}", quoted(name), literal(&options.remark));
        client.execute(&[remark]).await?;
        let filling = Filling {
            client,
            dump,
            selected: prepared.selected.as_ref(),
            no_owner: options.no_owner,
            no_tablespaces: prepared.no_tablespaces,
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            filled = filling.run(name) => filled,
        }
    }

    /// To whom the database is to belong, if that role is there.
    fn owner<'a>(&self, prepared: &Prepared, dumped: &'a Dumped, options: &LoadOptions) -> Option<&'a str> {
        let owner = (!options.no_owner).then_some(dumped.owner.as_str());
        owner.filter(|owner| self.look.roles.contains(*owner) || prepared.made.iter().any(|made| made == *owner))
    }

    /// The report, or the error after everything that was made is removed.
    async fn reported(
        &self,
        report: LoadReport,
        result: Result<(), Error>,
        prepared: &Prepared,
        temporary: &str,
    ) -> Result<LoadReport, Error> {
        match result {
            Ok(()) => Ok(report),
            Err(error) => {
                self.remove(&prepared.client, temporary, &prepared.made).await?;
                Err(error)
            }
        }
    }

    async fn remove(&self, client: &Client, temporary: &str, roles: &[String]) -> Result<(), PostgresError> {
        let name = quoted(temporary);
        let statements = if self.look.number >= 130_000 {
            vec![format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")]
        } else {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname =";
            vec![
                format!("{end} {}", literal(temporary)),
                format!("DROP DATABASE IF EXISTS {name}"),
            ]
        };
        let removed = client.execute(&statements).await;
        removed.map_err(|error| PostgresError::Left {
            name: temporary.to_owned(),
            source: Box::new(error),
        })?;
        for role in roles {
            // One that was not made yet is not there.
            client
                .execute(&[format!("DROP ROLE IF EXISTS {}", quoted(role))])
                .await?;
        }
        Ok(())
    }
}

/// A dump that was looked at, and how it comes back to the server.
struct Prepared {
    client: Client,
    contents: Contents,
    selected: Option<Selected>,
    notes: Vec<String>,
    make_roles: Vec<String>,
    made: Vec<String>,
    no_tablespaces: bool,
}

impl Prepared {
    fn report(&self, database: &str) -> LoadReport {
        LoadReport {
            database: database.to_owned(),
            tables: data_of(&self.contents, self.selected.as_ref()),
            roles: self.made.clone(),
            notes: self.notes.clone(),
        }
    }
}

async fn look(client: &Client, database: &str) -> Result<Look, PostgresError> {
    let query = format!(
        "SELECT json_build_object('number', current_setting('server_version_num')::int, \
         'exists', EXISTS (SELECT FROM pg_database WHERE datname = {}), \
         'roles', (SELECT json_agg(rolname) FROM pg_roles), \
         'tablespaces', (SELECT json_agg(spcname) FROM pg_tablespace), \
         'left', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database d \
         WHERE datname ~ '^{TEMPORARY}[0-9a-f]{{16}}$' \
         AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)))",
        literal(database)
    );
    client.ask(&query).await
}

/// The `pg_restore` that knows the dump, and is as near to the server as can be: a newer one says things that an older
/// server does not know.
pub(super) async fn restorer(
    programs: Option<&Path>,
    dump_major: u32,
    server_major: u32,
) -> Result<Installation, PostgresError> {
    programs::find(programs, &["psql", "pg_restore"], dump_major, server_major).await
}

/// The table of contents of a dump.
pub(super) async fn contents(dump: &Path) -> Result<Contents, Error> {
    let path = dump.to_path_buf();
    let read = blocking(move || {
        let file = File::open(&path)?;
        Contents::read(BufReader::new(file))
    });
    read.await?.map_err(|source| {
        let file = dump.file_name().unwrap_or_default().to_string_lossy().into_owned();
        PostgresError::Dump { file, source }.into()
    })
}

/// The entries that are wanted; `None`: all.
fn select(contents: &Contents, selection: &Selection) -> Result<Option<Selected>, PostgresError> {
    if selection.is_all() {
        return Ok(None);
    }
    let selected = selection.of(contents);
    selected
        .map(Some)
        .map_err(|Unselected(missing)| PostgresError::NotInDump(missing))
}

fn said_of(selection: &Selection, selected: Option<&Selected>) -> Vec<String> {
    let mut notes: Vec<String> = selected
        .iter()
        .flat_map(|selected| &selected.without)
        .map(|key| format!("the foreign key `{key}` is left out: it leads to what was not chosen"))
        .collect();
    if !selection.is_all() {
        notes.push("large objects and settings of the database are not part of a selection".to_owned());
    }
    notes
}

/// Whether an entry is wanted.
fn wanted<'a>(contents: &'a Contents, selected: Option<&'a Selected>) -> impl Iterator<Item = &'a super::Entry> {
    let ids: Option<BTreeSet<u32>> = selected.map(|selected| selected.ids.iter().copied().collect());
    contents
        .entries
        .iter()
        .filter(move |entry| ids.as_ref().is_none_or(|ids| ids.contains(&entry.id)))
}

fn data_of(contents: &Contents, selected: Option<&Selected>) -> usize {
    wanted(contents, selected)
        .filter(|entry| entry.kind == "TABLE DATA")
        .count()
}

/// Owners of what is in a dump that are not there.
fn missing_roles(contents: &Contents, selected: Option<&Selected>, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let owners: BTreeSet<&str> = wanted(contents, selected)
        .filter(|entry| entry.kind != "DATABASE")
        .filter_map(|entry| entry.owner.as_deref())
        .collect();
    owners
        .into_iter()
        .filter(|owner| !is_there(owner))
        .map(str::to_owned)
        .collect()
}

fn missing_tablespaces(contents: &Contents, selected: Option<&Selected>, there: &BTreeSet<String>) -> Vec<String> {
    let named: BTreeSet<&str> = wanted(contents, selected)
        .filter_map(|entry| entry.tablespace.as_deref())
        .collect();
    named
        .into_iter()
        .filter(|name| !there.contains(*name))
        .map(str::to_owned)
        .collect()
}

/// The statements that make the missing roles of a script, and their names.
pub(super) async fn roles(file: &Path, existing: &BTreeSet<String>) -> Result<(Vec<String>, Vec<String>), Error> {
    let path = file.to_path_buf();
    let text = blocking(move || std::fs::read_to_string(path)).await?;
    let text = text.map_err(|source| Error::Target {
        action: "read",
        path: file.to_path_buf(),
        source,
    })?;
    script::roles(&text, existing).map_err(|odd| odd_script(file, odd))
}

fn odd_script(file: &Path, odd: script::Odd) -> Error {
    let program = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    PostgresError::Answer {
        program,
        problem: odd.to_string(),
    }
    .into()
}

/// Makes the database as the dumped one was: its encoding and its locale.
pub(super) async fn create(client: &Client, name: &str, contents: &Contents) -> Result<(), PostgresError> {
    let like = contents
        .of_database()
        .and_then(|entry| script::creation(&entry.definition));
    let statement = format!(
        "CREATE DATABASE {} WITH TEMPLATE = template0 {}",
        quoted(name),
        like.unwrap_or_default()
    );
    client.execute(&guarded([statement])).await
}

/// `pg_restore`, ready to run.
pub(super) struct Filling<'a> {
    pub(super) client: &'a Client,
    pub(super) dump: &'a Path,
    pub(super) selected: Option<&'a Selected>,
    pub(super) no_owner: bool,
    pub(super) no_tablespaces: bool,
}

impl Filling<'_> {
    /// Fills a database that is there and empty. Dropping the future kills `pg_restore`.
    pub(super) async fn run(&self, database: &str) -> Result<(), Error> {
        let jobs = std::thread::available_parallelism()
            .map_or(1, |count| count.get().min(JOBS))
            .to_string();
        let mut arguments = vec!["--exit-on-error", "--jobs", &jobs];
        if self.no_owner {
            arguments.extend(["--no-owner", "--no-privileges"]);
        }
        if self.no_tablespaces {
            arguments.push("--no-tablespaces");
        }
        let client = self.client.in_database(database);
        let mut launch = client.launch("pg_restore", &arguments);
        if let Some(selected) = self.selected {
            let list = self.dump.with_extension("list");
            let lines: Vec<String> = selected.ids.iter().map(|id| format!("{id};\n")).collect();
            let path = list.clone();
            let written = blocking(move || std::fs::write(path, lines.concat())).await?;
            written.map_err(|source| Error::Target {
                action: "write",
                path: list.clone(),
                source,
            })?;
            launch.arguments.extend(["-L".into(), list.into()]);
        }
        launch.arguments.push(self.dump.into());
        client.to_end("pg_restore", launch).await?;
        Ok(())
    }
}

/// The statements that make of the temporary database the one that was asked for, all or none of them.
fn finish(
    temporary: &str,
    database: &str,
    owner: Option<&str>,
    contents: &Contents,
    settings: bool,
) -> Result<Vec<String>, PostgresError> {
    let mut statements = vec![
        "BEGIN".to_owned(),
        format!("COMMENT ON DATABASE {} IS NULL", quoted(temporary)),
        format!("ALTER DATABASE {} RENAME TO {}", quoted(temporary), quoted(database)),
    ];
    if settings {
        statements.extend(settings_of(contents, database)?);
    }
    if let Some(owner) = owner {
        statements.push(format!(
            "ALTER DATABASE {} OWNER TO {}",
            quoted(database),
            quoted(owner)
        ));
    }
    statements.push("COMMIT".to_owned());
    Ok(statements)
}

/// What the dump says of the database's settings, for a database of another name.
pub(super) fn settings_of(contents: &Contents, database: &str) -> Result<Vec<String>, PostgresError> {
    let mut statements = Vec::new();
    for entry in contents
        .entries
        .iter()
        .filter(|entry| entry.kind == "DATABASE PROPERTIES")
    {
        let settings = script::settings(&entry.definition, database).map_err(|odd| PostgresError::Answer {
            program: "pg_dump".to_owned(),
            problem: odd.to_string(),
        });
        statements.extend(settings?);
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_database_is_known_by_its_name() {
        assert!(is_temporary("opsctl_restoring_0123456789abcdef"));
        for name in ["opsctl_restoring_", "opsctl_restoring_0123456789abcdeg", "orders"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
