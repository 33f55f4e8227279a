//! Opening the repository that the environment backs up to, and telling its progress. The engine is the crate
//! `backups`; this file knows where, with which password, and in which words.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backups::postgres::Dsn;
use backups::snapshots::SnapshotFilter;
use backups::source::command::{CommandOptions, Variable};
use backups::source::postgres::DumpOptions;
use backups::source::{CommandSource, DumpSource, Excludes, FilesOptions, FilesSource, Marker, Source, SqliteSource};
use backups::store::s3::{Checksums, Credentials, Keys, S3Options};
use backups::store::{LocalStore, S3Store};
use backups::{InitOptions, Phase, Repository as Engine, Store};
use tokio_util::sync::CancellationToken;

use crate::config::{self, CommandKeys, Config, Datastore, DatastoreKind, Given, Method, Secret, SecretSource};
use crate::context::{Context, Signals, Stop};
use crate::error::{self, Failure};
use crate::exit::Exit;
use crate::output::{Amount, ProgressLine};
use crate::platform::specs;

/// The repository's declaration: `--repository`, else the environment's, else the only one.
pub(crate) fn declared<'a>(config: &'a Config, named: Option<&str>) -> Result<&'a config::Repository, Failure> {
    if let Some(name) = named.or(config.environment.repository.as_deref()) {
        return config.repositories.get(name).ok_or_else(|| {
            let known: Vec<&str> = config.repositories.keys().map(String::as_str).collect();
            Failure::usage("unknown_repository", format!("there is no repository `{name}`"))
                .cause(format!("declared are {}", known.join(", ")))
        });
    }
    let mut all = config.repositories.values();
    match (all.next(), all.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(
            Failure::usage("nothing_declared", "there is no repository: none is declared")
                .help("`opsctl init` declares one, see also `opsctl help config`"),
        ),
        (Some(_), Some(_)) => Err(Failure::usage("ambiguous", "which repository is meant is not clear")
            .details(config.repositories.keys().cloned())
            .help(format!(
                "set `repository` in `[env.{}]` of opsctl.toml",
                config.environment.name
            ))),
    }
}

/// Whether an empty store becomes a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfEmpty {
    /// It does: the first backup.
    Make,
    /// It is an error.
    Fail,
}

/// Opens the repository that was declared. The password is fetched before the store is touched.
pub(crate) async fn open(
    context: &Context,
    declared: &config::Repository,
    if_empty: IfEmpty,
) -> Result<Engine, Failure> {
    let what = format!("could not open repository `{}`", declared.name);
    let store = store(declared)?;
    if if_empty == IfEmpty::Fail {
        // Before the password: an empty store needs none, and says more.
        let exists = Engine::exists(store.as_ref())
            .await
            .map_err(|error| error::backups::failure(&what, &error))?;
        if !exists {
            let missing = backups::Error::NoRepository {
                location: store.location(),
            };
            return Err(error::backups::failure(what, &missing));
        }
    }
    let password = password(context, declared)?;
    warn_same_disk(context, declared);
    match if_empty {
        IfEmpty::Fail => Engine::open(store, password.expose())
            .await
            .map_err(|error| error::backups::failure(what, &error)),
        IfEmpty::Make => {
            let (engine, made) = Engine::open_or_init(store, password.expose(), &InitOptions::default())
                .await
                .map_err(|error| error::backups::failure(what, &error))?;
            if made {
                context
                    .out
                    .done(format!("made repository `{}` at {}", declared.name, engine.location()));
            }
            Ok(engine)
        }
    }
}

/// Its password.
pub(crate) fn password(context: &Context, declared: &config::Repository) -> Result<Secret, Failure> {
    let source = &declared.password;
    let fetched = source.fetch(context, &format!("the password of repository `{}`", declared.name));
    fetched.map_err(|failure| match source {
        SecretSource::File(path) if !path.exists() => failure.help(format!(
            "a repository whose password is lost cannot be read: put the old one back into `{}`; only for a new repository let `opsctl init` make one",
            context.shown(path)
        )),
        _ => failure,
    })
}

/// The store that was declared. Nothing is asked, and no credentials are fetched, before it is used.
pub(crate) fn store(declared: &config::Repository) -> Result<Arc<dyn Store>, Failure> {
    match (&declared.folder, &declared.bucket) {
        (Some(folder), _) => Ok(Arc::new(LocalStore::new(folder))),
        (None, Some(bucket)) => Ok(Arc::new(S3Store::new(bucket_options(declared, bucket)?))),
        (None, None) => Err(Failure::usage(
            "config_invalid",
            format!("repository `{}` is at {}", declared.name, declared.store),
        )
        .help("use `store = \"file:FOLDER\"` or `store = \"s3://BUCKET/PREFIX\"`")),
    }
}

fn bucket_options(declared: &config::Repository, bucket: &config::Bucket) -> Result<S3Options, Failure> {
    let certificate = bucket.certificate.as_ref().map(|path| {
        std::fs::read(path).map_err(|error| {
            let what = format!("the certificate of repository `{}` cannot be read", declared.name);
            Failure::usage("certificate_unreadable", what)
                .cause(format!("could not open `{}`", path.display()))
                .because(&error)
        })
    });
    let credentials = bucket.credentials.clone().map_or(Credentials::Surroundings, |sources| {
        let name = declared.name.clone();
        Credentials::Fetched(Arc::new(move || keys(&sources, &name)))
    });
    Ok(S3Options {
        endpoint: bucket.endpoint.clone(),
        region: bucket.region.clone(),
        path_style: bucket.path_style,
        checksums: if bucket.checksums {
            Checksums::Always
        } else {
            Checksums::WhenRequired
        },
        credentials,
        certificate: certificate.transpose()?,
        ..S3Options::new(&bucket.name, &bucket.prefix)
    })
}

/// Fetches the keys of a bucket, which happens again when they expired.
fn keys(sources: &config::BucketCredentials, repository: &str) -> Result<Keys, std::io::Error> {
    let fetch = |source: &config::SecretSource, what: &str| {
        let secret = source.fetch_again(&format!("the {what} of repository `{repository}`"));
        secret.map_err(|failure| std::io::Error::other([&[failure.message], &failure.causes[..]].concat().join(": ")))
    };
    let token = sources.session_token.as_ref();
    let token = token.map(|token| fetch(token, "session token")).transpose()?;
    Ok(Keys {
        access_key: fetch(&sources.access_key, "access key")?.expose().to_owned(),
        secret_key: fetch(&sources.secret_key, "secret key")?.expose().to_owned().into(),
        session_token: token.map(|token| token.expose().to_owned().into()),
    })
}

/// A password beside the repository is lost together with it.
fn warn_same_disk(context: &Context, declared: &config::Repository) {
    let (config::SecretSource::File(password), Some(folder)) = (&declared.password, &declared.folder) else {
        return;
    };
    let device = |path: &Path| {
        path.ancestors()
            .find_map(|path| path.metadata().ok())
            .map(|metadata| metadata.dev())
    };
    if device(password).is_some() && device(password) == device(folder) {
        context.out.detail(format!(
            "the password of repository `{}` is on the repository's own disk: keep a copy of `{}` elsewhere",
            declared.name,
            context.shown(password)
        ));
    }
}

/// What to save of a datastore, with everything that saving it needs: the secrets of a command are fetched here.
pub(crate) fn source_to_save(
    context: &Context,
    config: &Config,
    store: &Datastore,
) -> Result<Box<dyn Source>, Failure> {
    if store.kind == DatastoreKind::Postgres {
        return of_server(store, Some(server(context, store)?));
    }
    let Some(keys) = &store.command else {
        return source(config, store);
    };
    let name = keys.command.first().map(String::as_str).unwrap_or_default();
    let folder = store.origin.folder().unwrap_or(&config.root);
    let Some((program, _)) = specs::locate(context, folder, name)? else {
        return Err(Failure::usage(
            "program_not_found",
            format!("the program `{name}` of datastore `{}` is not there", store.name),
        )
        .cause(format!("it is named at {}", store.origin))
        .help("a name without `/` is looked for beside opsctl and on PATH, one with `/` from the file that names it"));
    };
    let mut variables = Vec::new();
    for (name, given) in &keys.variables {
        let (value, is_secret) = match given {
            Given::Plain(value) => (value.clone().into(), false),
            Given::Secret(source) => {
                let what = format!("the variable `{name}` of datastore `{}`", store.name);
                (source.fetch(context, &what)?.expose().to_owned().into(), true)
            }
        };
        variables.push(Variable {
            name: name.clone(),
            value,
            is_secret,
        });
    }
    let options = command_options(keys);
    Ok(Box::new(CommandSource::new(CommandOptions {
        program,
        variables,
        ..options
    })))
}

fn command_options(keys: &CommandKeys) -> CommandOptions {
    CommandOptions {
        program: keys.command.first().map(PathBuf::from).unwrap_or_default(),
        arguments: keys.command.iter().skip(1).cloned().collect(),
        variables: Vec::new(),
        folder: Some(keys.cwd.clone()),
        name: keys.filename.clone(),
        trailer: keys.trailer.clone(),
        timeout: keys.timeout,
    }
}

/// Where the server of a datastore is.
pub(crate) fn server(context: &Context, store: &Datastore) -> Result<Dsn, Failure> {
    let what = format!("the `dsn` of datastore `{}`", store.name);
    let source = store.dsn.as_ref().ok_or_else(|| {
        Failure::usage("config_invalid", format!("datastore `{}` has no `dsn`", store.name))
            .cause(format!("it is declared at {}", store.origin))
            .help("say where its address comes from, such as `dsn = { env = \"DATABASE_URL\" }`")
    })?;
    let dsn = source.fetch(context, &what)?;
    Dsn::parse(dsn.expose()).map_err(|error| {
        let error = backups::Error::Postgres(error.into());
        error::backups::failure(format!("{what} is no address"), &error)
    })
}

/// The folder of PostgreSQL's programs, if it is declared.
pub(crate) fn programs(store: &Datastore) -> Option<&Path> {
    store.postgres.as_ref()?.programs.as_deref()
}

/// A server, saved as is declared; without an address to prove a copy alone.
fn of_server(store: &Datastore, server: Option<Dsn>) -> Result<Box<dyn Source>, Failure> {
    let keys = store.postgres.as_ref();
    match keys.map_or(Method::Dump, |keys| keys.method) {
        Method::Dump => Ok(Box::new(DumpSource::new(DumpOptions {
            name: store.name.clone(),
            server,
            databases: keys.map(|keys| keys.databases.clone()).unwrap_or_default(),
            globals: keys.is_none_or(|keys| keys.globals),
            programs: keys.and_then(|keys| keys.programs.clone()),
        }))),
        // Its files mean nothing without the log, which is no part of a snapshot.
        Method::Physical => Err(Failure::usage(
            "not_built",
            format!("`{}` is saved as a whole, and this needs dumps of it", store.name),
        )
        .help(format!("recover it instead: opsctl restore {}", store.name))),
    }
}

/// What a datastore is, to prove what was restored of it. A command gets no secrets.
pub(crate) fn source(config: &Config, store: &Datastore) -> Result<Box<dyn Source>, Failure> {
    let path = path_of(store)?;
    if let Some(keys) = &store.command {
        return Ok(Box::new(CommandSource::new(command_options(keys))));
    }
    if store.kind == DatastoreKind::Postgres {
        return of_server(store, None);
    }
    if store.kind == DatastoreKind::Sqlite {
        return Ok(Box::new(SqliteSource::new(path, staging(config))));
    }
    let keys = &store.files;
    let excludes = Excludes::new(&store.exclude)
        .and_then(|excludes| excludes.and_ignoring_case(&keys.iexclude))
        .map_err(|error| {
            Failure::usage(
                "config_invalid",
                format!("datastore `{}` has an exclude that cannot be used", store.name),
            )
            .because(&error)
        })?;
    let mut markers: Vec<Marker> = keys.exclude_if_present.iter().map(|text| Marker::new(text)).collect();
    markers.extend(keys.exclude_caches.then(Marker::cache));
    let options = FilesOptions {
        excludes,
        exclude_if_present: markers,
        exclude_larger_than: keys.exclude_larger_than,
        one_file_system: keys.one_file_system,
        attributes: match &keys.xattrs {
            Some(chosen) => chosen.iter().copied().collect(),
            None => backups::Namespaces::default(),
        },
    };
    Ok(Box::new(FilesSource::with(vec![path], options)))
}

/// Where databases are copied to on their way.
pub(crate) fn staging(config: &Config) -> PathBuf {
    config.state().join("staging")
}

/// The file or folder that a datastore is (for a command or a server: would be, beside the file that names it); exit 2 for the kinds that cannot be backed up yet.
pub(crate) fn path_of(store: &Datastore) -> Result<PathBuf, Failure> {
    if let Some(keys) = &store.command {
        let folder = store.origin.folder().unwrap_or(&keys.cwd);
        return Ok(folder.join(&keys.filename));
    }
    match (store.kind, &store.path) {
        (DatastoreKind::Sqlite | DatastoreKind::Files, Some(path)) => Ok(path.clone()),
        (DatastoreKind::Postgres, _) => Ok(store.origin.folder().unwrap_or(Path::new("/")).join(&store.name)),
        (kind, _) => Err(Failure::usage(
            "not_built",
            format!("datastore `{}` is of kind `{}`", store.name, kind.word()),
        )
        .cause("this opsctl backs up the kinds sqlite, files, command and postgres only")
        .help(format!("it is declared at {}", store.origin))),
    }
}

/// The tag that says which datastore a snapshot is of.
pub(crate) fn store_tag(store: &str) -> String {
    format!("datastore:{store}")
}

/// The name under which the changes of a datastore are shipped.
pub(crate) fn shipped(config: &Config, store: &Datastore) -> Result<backups::pitr::sqlite::Datastore, Failure> {
    let name = format!("{}.{}", config.environment.name, store.name);
    backups::pitr::sqlite::Datastore::new(name)
        .map_err(|error| error::backups::failure(format!("could not ship `{}`", store.name), &error))
}

/// The tag that says which environment a snapshot is of.
pub(crate) fn environment_tag(environment: &str) -> String {
    format!("environment:{environment}")
}

/// The snapshots of a datastore in the chosen environment.
pub(crate) fn filter_of(config: &Config, store: &Datastore) -> SnapshotFilter {
    SnapshotFilter {
        tags: vec![store_tag(&store.name), environment_tag(&config.environment.name)],
        ..SnapshotFilter::default()
    }
}

/// A record of a drill that cannot be read proves nothing and hides no other.
pub(crate) fn warn_of_damaged_proofs(context: &Context, list: &backups::proof::ProofList) {
    for (key, damage) in &list.damaged {
        context
            .out
            .warn(format!("`{key}` is no record of a restore drill: it is {damage}"));
    }
}

/// The datastore that a snapshot is of, if a tag says so.
pub(crate) fn store_of(tags: &[String]) -> Option<&str> {
    tags.iter().find_map(|tag| tag.strip_prefix("datastore:"))
}

/// Shows the engine's progress as one line.
pub(crate) struct Shown {
    line: ProgressLine,
    bytes: AtomicU64,
    files: AtomicU64,
    total: Mutex<(Option<u64>, String)>,
}

impl Shown {
    /// Starts a line for `subject`.
    pub(crate) fn start(context: &Context, subject: impl Into<String>) -> Self {
        Self {
            line: context.out.progress(subject),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            total: Mutex::new((None, String::new())),
        }
    }

    fn tell(&self) {
        let (total, item) = self.total.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.line.amount(Amount {
            done: self.bytes.load(Ordering::Relaxed),
            total,
            bytes: true,
            item,
        });
    }
}

impl Shown {
    /// What is done now, where the engine does not know.
    pub(crate) fn say(&self, phase: &str) {
        self.bytes.store(0, Ordering::Relaxed);
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = (None, String::new());
        self.line.phase(phase);
    }
}

impl backups::Progress for Shown {
    fn phase(&self, phase: Phase, bytes: Option<u64>, _files: Option<u64>) {
        self.bytes.store(0, Ordering::Relaxed);
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = (bytes, String::new());
        self.line.phase(match phase {
            Phase::Copying => "copying the database",
            Phase::Saving => "saving",
            Phase::Restoring => "restoring",
            Phase::CheckingStructure => "checking the structure",
            Phase::CheckingData => "reading all data",
            Phase::Transferring => "copying data",
            Phase::FindingNeeded => "finding out what is needed",
            Phase::Repacking => "storing anew what is needed",
            Phase::Deleting => "deleting",
        });
    }

    fn file(&self, path: &Path) {
        self.total.lock().unwrap_or_else(PoisonError::into_inner).1 = path.display().to_string();
        self.tell();
    }

    fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
        self.tell();
    }

    fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs work that can be cancelled: Ctrl-C and SIGTERM cancel it, and the process then ends with 130 or 143.
pub(crate) fn cancellable<T, F>(context: &Context, work: impl FnOnce(CancellationToken) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    context.block_on(async {
        let cancel = CancellationToken::new();
        let mut signals = Signals::listen()?;
        let work = work(cancel.clone());
        tokio::pin!(work);
        let mut stop = None;
        loop {
            tokio::select! {
                result = &mut work => {
                    return match (result, stop) {
                        (Err(failure), Some(Stop::Terminate)) if failure.exit == Exit::Interrupted => {
                            Err(Failure { exit: Exit::Terminated, code: "terminated", ..failure })
                        }
                        (result, _) => result,
                    };
                }
                signal = signals.next() => {
                    // A closed terminal ends no backup; and `restic unlock` sends this to whoever holds a lock.
                    if signal == Stop::HangUp {
                        continue;
                    }
                    if stop.is_some() {
                        return Err(Failure::new(Exit::Interrupted, "interrupted", "interrupted twice: stopped at once")
                            .help("nothing is lost; run the same command again"));
                    }
                    context.out.note("stopping …");
                    stop = Some(signal);
                    cancel.cancel();
                }
            }
        }
    })
}
