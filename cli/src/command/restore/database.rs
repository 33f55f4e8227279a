//! `restore --into` of a PostgreSQL: a new database on a live server, from a dump. Nothing that is there is written to: it
//! is filled under a temporary name and gets its own at the very end.

use std::path::{Path, PathBuf};

use backups::pitr::postgres::{Lsn, Timeline};
use backups::postgres::load::{LoadOptions, LoadReport, Target};
use backups::postgres::{Dsn, Selection};
use backups::proof::{self, Scratch};
use backups::snapshots::SnapshotRecord;
use backups::source::VerifiedCheck;
use backups::source::postgres::manifest::{Dumped, Manifest};
use backups::{Error, Repository as Engine, RestoreOptions, RestoreReport};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Args, find};
use crate::config::{Config, Datastore, DatastoreKind};
use crate::consent::{Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, plural, seconds};
use crate::repository::{self, IfEmpty, Shown};

/// Where a database is to be.
pub(super) struct Place {
    pub(super) server: Dsn,
    pub(super) database: String,
}

/// The database that `--into` names, if it names one and no folder.
pub(super) fn place(args: &Args, context: &Context, store: &Datastore) -> Result<Option<Place>, Failure> {
    let chosen = [
        (args.database.is_some(), "--database"),
        (!args.schema.is_empty(), "--schema"),
        (!args.table.is_empty(), "--table"),
        (args.globals, "--globals"),
        (args.no_owner, "--no-owner"),
    ];
    let into = args.into.as_deref().and_then(Path::to_str);
    let is_address = |into: &str| into.contains("://") || into.contains('=');
    let is_folder = |into: &str| into.contains('/') || matches!(into, "" | "." | "..");
    let named = into.filter(|into| is_address(into) || !is_folder(into));
    let (Some(into), DatastoreKind::Postgres) = (named, store.kind) else {
        return match chosen.into_iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(
                Failure::usage("usage", format!("{flag} is of a database that is restored")).cause(
                    "it goes with a PostgreSQL that is restored into a database: --into NAME, or --into postgres://…; --database also with --replace",
                ),
            ),
            None => Ok(None),
        };
    };
    if !is_address(into) {
        return Ok(Some(Place {
            server: repository::server(context, store)?,
            database: into.to_owned(),
        }));
    }
    let unusable = |error| error::backups::failure("--into is no address", &Error::Postgres(error));
    let given = Dsn::parse(into).map_err(|error| unusable(error.into()))?;
    if given.has_password() {
        return Err(Failure::usage("secret_in_argument", "a password stands in --into")
            .cause("everybody on this machine can see what a command was started with")
            .help(
                "leave it out: that of the datastore's `dsn` is used on the same server, else PGPASSWORD or ~/.pgpass",
            ));
    }
    let Some(database) = given.database().map(str::to_owned) else {
        return Err(Failure::usage("usage", "--into names a server and no database")
            .help("add the name of the new one: postgres://user@host/NAME"));
    };
    let mut server = given.with_database("postgres");
    if store.dsn.is_some() {
        // Only its own server ever gets to know a password.
        let own = repository::server(context, store)?;
        if ["host", "hostaddr", "port", "user"]
            .iter()
            .all(|name| own.setting(name) == given.setting(name))
        {
            server = server.or_password_of(&own);
        }
    }
    Ok(Some(Place { server, database }))
}

/// `opsctl.restore/v1` of a database.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) schema: &'static str,
    pub(super) r#type: &'static str,
    pub(super) run: Option<String>,
    pub(super) datastore: String,
    pub(super) snapshot: String,
    pub(super) snapshot_time: jiff::Timestamp,
    /// The new database and its server, for people.
    pub(super) target: String,
    pub(super) kept: Option<String>,
    pub(super) files: u64,
    pub(super) unchanged: u64,
    pub(super) restored_bytes: u64,
    pub(super) reused_bytes: u64,
    pub(super) fetched_bytes: u64,
    pub(super) elapsed_seconds: f64,
    pub(super) checks: Vec<VerifiedCheck>,
    /// The database that was dumped.
    pub(super) of: String,
    /// The new database.
    pub(super) database: String,
    /// Tables whose data came back.
    pub(super) tables: usize,
    /// Roles that were made.
    pub(super) roles: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Where the log was replayed to, if the database is of a cluster that was recovered.
    #[serde(flatten)]
    pub(super) recovered: Option<Recovered>,
}

/// Up to where a cluster was recovered that a database is from.
#[derive(Debug, Serialize)]
pub(super) struct Recovered {
    /// The moment that the state is of, by the server's clock, as far as it is known.
    pub(super) reached: Option<jiff::Timestamp>,
    /// Up to where the log was replayed.
    pub(super) reached_lsn: Lsn,
    /// The timeline whose log was replayed.
    pub(super) timeline: Timeline,
    /// The last commit in it.
    pub(super) last_commit: Option<jiff::Timestamp>,
    /// Files of the log that were replayed.
    pub(super) segments: u64,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore, place: &Place) -> Outcome {
    let declared = repository::declared(config, args.repository.as_deref())?;
    let what = format!("could not restore `{}`", store.name);
    let failed = |error: Error| error::backups::failure(what.clone(), &error);
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        if args.at.is_some() {
            return Err(super::at::only_shipped(store));
        }
        let record = find(config, &engine, store, &args.snapshot).await?;
        let programs = repository::programs(store);
        let target = Target::open(programs, &place.server, &place.database).await;
        let target = target.map_err(|error| failed(error.into()))?;
        warn_of_left(context, &target);
        let told = format!(
            "from snapshot {} of {} as database {} at {}",
            record.id.short(),
            record.snapshot.time.strftime("%Y-%m-%d %H:%M:%SZ"),
            place.database,
            target.address()
        );
        if args.dry_run {
            context.out.line(&format!("would restore {} {told}", store.name))?;
            return Ok(Exit::Done);
        }
        let stake = Stake {
            question: format!("restore `{}` {told}?", store.name),
            name: &store.name,
            consequence: Consequence::UndoneByItself,
            protected: config.protected(),
        };
        approve(context, &args.consent, (), &stake)?.into_plan();

        let started = context.now();
        let home = config.state().join("scratch");
        let scratch = Scratch::make(&home, &home).map_err(failed)?;
        let fetch = Fetch {
            context,
            store,
            engine: &engine,
            record: &record,
            folder: scratch.folder(),
        };
        let (dumped, dump, options, fetched) = fetch.dump(args, &cancel).await?;
        let here = Here {
            record,
            dumped,
            dump,
            options,
            fetched,
            recovered: None,
        };
        load(context, store, &target, here, (started, &told), &cancel).await
    })
}

/// A dump that is here.
pub(super) struct Here {
    pub(super) record: SnapshotRecord,
    pub(super) dumped: Dumped,
    /// Where it is.
    pub(super) dump: PathBuf,
    pub(super) options: LoadOptions,
    /// What it took to bring it here.
    pub(super) fetched: RestoreReport,
    pub(super) recovered: Option<Recovered>,
}

/// Makes the database of it, and tells so.
pub(super) async fn load(
    context: &Context,
    store: &Datastore,
    target: &Target,
    here: Here,
    (started, told): (jiff::Timestamp, &str),
    cancel: &CancellationToken,
) -> Outcome {
    let progress = context.out.progress(format!("restoring {}", store.name));
    progress.phase("loading the dump");
    let programs = repository::programs(store);
    let loaded = target
        .load(programs, &here.dump, &here.dumped, &here.options, cancel)
        .await
        .map_err(|error| error::backups::failure(format!("could not restore `{}`", store.name), &error))?;
    drop(progress);
    let elapsed_seconds = context.now().duration_since(started).as_secs_f64();
    let loaded = (&here.dumped, loaded);
    let document = Document {
        recovered: here.recovered,
        ..document(
            store,
            &here.record,
            &target.address(),
            loaded,
            &here.fetched,
            elapsed_seconds,
        )
    };
    context.out.answer(&document, |_| format!("{}\n", document.database))?;
    for note in &document.notes {
        context.out.note(note);
    }
    if !document.roles.is_empty() {
        context
            .out
            .note(format!("roles that were made: {}", document.roles.join(", ")));
    }
    context.out.done(format!(
        "restored {} {told}: {}, {}, verified (pg_restore), {}",
        store.name,
        plural(document.tables as u64, "table", "tables"),
        bytes(document.restored_bytes),
        seconds(elapsed_seconds)
    ));
    Ok(Exit::Done)
}

pub(super) fn document(
    store: &Datastore,
    record: &SnapshotRecord,
    address: &str,
    (dumped, loaded): (&Dumped, LoadReport),
    fetched: &RestoreReport,
    elapsed_seconds: f64,
) -> Document {
    Document {
        schema: "opsctl.restore/v1",
        r#type: "restore",
        run: None,
        datastore: store.name.clone(),
        snapshot: record.id.to_string(),
        snapshot_time: record.snapshot.time,
        target: format!("{} at {address}", loaded.database),
        kept: None,
        files: fetched.files,
        unchanged: fetched.unchanged,
        restored_bytes: fetched.bytes,
        reused_bytes: fetched.reused_bytes,
        fetched_bytes: fetched.fetched_bytes,
        elapsed_seconds,
        checks: vec![VerifiedCheck {
            name: "pg_restore",
            problem: None,
        }],
        of: dumped.name.clone(),
        database: loaded.database,
        tables: loaded.tables,
        roles: loaded.roles,
        notes: loaded.notes,
        recovered: None,
    }
}

/// What killed restores left on the server is theirs who own the server: named, not removed.
pub(super) fn warn_of_left(context: &Context, target: &Target) {
    for name in target.left() {
        context.out.warn(format!(
            "a restore that was killed left a database on {}: DROP DATABASE \"{name}\"",
            target.address()
        ));
    }
}

/// How it is loaded. `of` says what it is of.
pub(super) fn options(args: &Args, context: &Context, globals: Option<PathBuf>, of: &str) -> LoadOptions {
    LoadOptions {
        selection: Selection {
            schemas: args.schema.clone(),
            tables: args.table.clone(),
        },
        globals,
        no_owner: args.no_owner,
        remark: format!(
            "opsctl: {of} is being restored here, by {} since {}",
            context.actor(),
            context.now()
        ),
    }
}

/// What is brought here first.
pub(super) struct Fetch<'a> {
    pub(super) context: &'a Context,
    pub(super) store: &'a Datastore,
    pub(super) engine: &'a Engine,
    pub(super) record: &'a SnapshotRecord,
    pub(super) folder: &'a Path,
}

impl Fetch<'_> {
    /// The dump that is meant, and what else is in the snapshot.
    pub(super) async fn meant(&self, args: &Args, cancel: &CancellationToken) -> Result<(Dumped, Manifest), Failure> {
        let failed = |error: Error| error::backups::failure(self.what(), &error);
        self.files(vec!["manifest.json".into()], cancel).await?;
        let manifest = Manifest::read(self.folder).await.map_err(failed)?;
        let dumped = manifest
            .database(args.database.as_deref())
            .map_err(|error| failed(error.into()))?;
        Ok((dumped.clone(), manifest))
    }

    /// The dump that is meant, and where it is now.
    async fn dump(
        &self,
        args: &Args,
        cancel: &CancellationToken,
    ) -> Result<(Dumped, PathBuf, LoadOptions, RestoreReport), Failure> {
        let (dumped, manifest) = self.meant(args, cancel).await?;
        let globals = match (&manifest.globals, args.globals) {
            (Some(globals), true) => Some(globals.file.clone()),
            (None, true) => {
                return Err(Failure::usage("unknown_path", self.what())
                    .cause("the snapshot holds no roles: `globals` was off when it was made"));
            }
            (_, false) => None,
        };
        let (dump, mut options, report) = self.bring(args, &dumped, globals.clone(), cancel).await?;
        options.globals = globals.map(|file| self.folder.join(file));
        Ok((dumped, dump, options, report))
    }

    /// Brings a dump here, and `more`.
    pub(super) async fn bring(
        &self,
        args: &Args,
        dumped: &Dumped,
        more: Option<String>,
        cancel: &CancellationToken,
    ) -> Result<(PathBuf, LoadOptions, RestoreReport), Failure> {
        self.enough_room(dumped.length_bytes)?;
        let mut wanted = vec![PathBuf::from(&dumped.file)];
        wanted.extend(more.map(PathBuf::from));
        let report = self.files(wanted, cancel).await?;
        let of = format!("{} of snapshot {}", dumped.name, self.record.id.short());
        let options = options(args, self.context, None, &of);
        Ok((self.folder.join(&dumped.file), options, report))
    }

    fn what(&self) -> String {
        format!("could not restore `{}`", self.store.name)
    }

    async fn files(&self, include: Vec<PathBuf>, cancel: &CancellationToken) -> Result<RestoreReport, Failure> {
        let options = RestoreOptions {
            include,
            ..RestoreOptions::default()
        };
        let progress = Shown::start(self.context, format!("restoring {}", self.store.name));
        let report = backups::restore(self.engine, &self.record.id, self.folder, &options, &progress, cancel).await;
        let report = report.map_err(|error| error::backups::failure(self.what(), &error))?;
        let missing = report
            .damaged
            .iter()
            .map(|item| format!("{}: {}", item.path.display(), item.reason));
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() {
            return Ok(report);
        }
        Err(Failure::new(Exit::Failed, "damaged", self.what())
            .details(missing)
            .help(
                "`opsctl repository check --read-data` lists everything that is damaged; other snapshots may be whole",
            ))
    }

    fn enough_room(&self, needed: u64) -> Result<(), Failure> {
        let free = proof::free_bytes(self.folder);
        let free = free.map_err(|error| error::backups::failure(self.what(), &error))?;
        if free >= needed {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "disk_full", self.what())
            .cause(format!(
                "the dump needs {} on its way, and `{}` has {} free",
                bytes(needed),
                self.context.shown(self.folder),
                bytes(free)
            ))
            .help("free some space there"))
    }
}
