//! PostgreSQL stores that are saved as a whole, with their log (`backup.method = "physical"`): where the server is, where
//! its log is archived, and what several commands need of both.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backups::Repository as Engine;
use backups::pitr::Datastore as Shipped;
use backups::pitr::postgres::archive::Archive;
use backups::pitr::postgres::keep::Keeper;
use backups::pitr::postgres::receiver::ReceiverOptions;
use backups::pitr::postgres::recovery::{self, BaseBackups, Place, Plan};
use backups::pitr::postgres::{Address, Checkpoint};
use backups::proof::{self, Scratch};
use backups::source::BaseSource;
use backups::source::postgres::base::{BaseOptions, CorruptPages, KeepLog, Owner};
use backups::{postgres, snapshots};

use crate::config::{Config, Datastore, DatastoreKind, Method};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::exit::Exit;
use crate::output::bytes;
use crate::repository;

/// How much may be lost where nobody says.
const RPO: Duration = Duration::from_mins(1);

/// Whether a store is a PostgreSQL that is saved as a whole.
pub(crate) fn is_physical(store: &Datastore) -> bool {
    store.kind == DatastoreKind::Postgres
        && store
            .postgres
            .as_ref()
            .is_some_and(|keys| keys.method == Method::Physical)
}

/// Exit 2 for every other store.
pub(crate) fn only(store: &Datastore, what: &str) -> Result<(), Failure> {
    if is_physical(store) {
        return Ok(());
    }
    Err(Failure::usage("not_physical", what)
        .cause(format!(
            "`{}` is no PostgreSQL that is saved as a whole with its log",
            store.name
        ))
        .help(format!(
            "say `backup = {{ method = \"physical\" }}` in its table, at {}",
            store.origin
        )))
}

/// Where the server is. The user needs the right `REPLICATION`.
pub(crate) fn address(context: &Context, store: &Datastore) -> Result<Address, Failure> {
    let what = format!("the `dsn` of datastore `{}`", store.name);
    let source = store.dsn.as_ref().ok_or_else(|| {
        Failure::usage("config_invalid", format!("datastore `{}` has no `dsn`", store.name))
            .cause(format!("it is declared at {}", store.origin))
            .help("say where its address comes from, such as `dsn = { env = \"DATABASE_URL\" }`")
    })?;
    let text = source.fetch(context, &what)?;
    Address::parse(text.expose())
        .map_err(|error| Failure::usage("config_invalid", format!("{what} is no address")).because(&error))
}

/// The name under which its log is archived.
fn shipped(config: &Config, store: &Datastore) -> Result<Shipped, Failure> {
    let name = format!("{}.{}", config.environment.name, store.name);
    Shipped::new(name)
        .map_err(|error| error::backups::failure(format!("could not archive the log of `{}`", store.name), &error))
}

/// Where its log is archived.
pub(crate) fn archive(config: &Config, store: &Datastore, engine: &Engine) -> Result<Archive, Failure> {
    Ok(Archive::new(engine, shipped(config, store)?))
}

/// How its log is received.
pub(crate) fn receiver(context: &Context, config: &Config, store: &Datastore) -> Result<ReceiverOptions, Failure> {
    let options = ReceiverOptions::new(address(context, store)?, &shipped(config, store)?);
    let promised = store.proof.objectives.rpo_seconds.map(Duration::from_secs_f64);
    Ok(ReceiverOptions {
        rpo: store.ship.or(promised).unwrap_or(RPO).max(Duration::from_secs(1)),
        ..options
    })
}

/// The server as a source of a snapshot; `log` keeps its log meanwhile.
pub(crate) fn source(context: &Context, store: &Datastore, log: Arc<dyn KeepLog>) -> Result<BaseSource, Failure> {
    let options = BaseOptions {
        address: address(context, store)?,
        name: store.name.clone(),
        checkpoint: Checkpoint::Fast,
        corrupt_pages: CorruptPages::default(),
    };
    Ok(BaseSource::new(options, log))
}

/// Who keeps the log of a backup that is taken alone.
pub(crate) fn keeper(
    context: &Context,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
) -> Result<Arc<Keeper>, Failure> {
    let options = receiver(context, config, store)?;
    Ok(Arc::new(Keeper::own(archive(config, store, engine)?, options)))
}

/// Its base backups, oldest first.
pub(crate) async fn base_backups(
    config: &Config,
    store: &Datastore,
    engine: &Engine,
) -> Result<BaseBackups, backups::Error> {
    let list = snapshots::list(engine, &repository::filter_of(config, store)).await?;
    recovery::backups_of(engine, &list.snapshots).await
}

/// Whether what is recovered is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    No,
}

/// Where a server recovers what is restored into `data`.
pub(crate) fn place(
    context: &Context,
    config: &Config,
    store: &Datastore,
    data: &Path,
    kept: Kept,
) -> Result<Place, Failure> {
    Ok(Place {
        data: data.to_owned(),
        programs: repository::programs(store).map(Path::to_path_buf),
        executable: executable()?,
        home: config.state().join("scratch"),
        sockets: std::env::temp_dir(),
        roles: roles(context, store),
        lasting: kept == Kept::Yes,
    })
}

/// A scratch folder for a cluster that is thrown away, below `wanted` if the server's user gets there.
pub(crate) fn scratch(home: &Path, wanted: &Path) -> Result<Scratch, backups::Error> {
    let made = Scratch::make(home, &postgres::scratch::parent(wanted, home))?;
    if rustix::process::geteuid().is_root() {
        // It leads through, and shows nothing.
        std::fs::set_permissions(made.folder(), Permissions::from_mode(0o711)).map_err(|source| {
            backups::Error::Target {
                action: "open",
                path: made.folder().to_owned(),
                source,
            }
        })?;
    }
    Ok(made)
}

/// Whose restored files are: whoever runs a server on them.
pub(crate) fn owner(what: &str) -> Result<Owner, Failure> {
    let user = postgres::scratch::user().map_err(|error| error::backups::failure(what, &error.into()))?;
    Ok(user.map_or(Owner::Process, |(uid, gid)| Owner::User { uid, gid }))
}

/// What a recovery takes: the files, and a part of the log while it is replayed.
pub(crate) fn needed_bytes(plan: &Plan) -> u64 {
    plan.backup.base.bytes.saturating_add(plan.log_bytes() / 4)
}

/// Exit 1 where there is not enough room; `flag` says how to choose another place.
pub(crate) fn enough_room(
    context: &Context,
    what: &str,
    needed: u64,
    folder: &Path,
    flag: &str,
) -> Result<(), Failure> {
    let free = proof::free_bytes(folder).map_err(|error| error::backups::failure(what, &error))?;
    if free >= needed {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "disk_full", what)
        .cause(format!(
            "it needs {}, and `{}` has {} free",
            bytes(needed),
            context.shown(folder),
            bytes(free)
        ))
        .help(format!("free some space there, or restore elsewhere with `{flag}`")))
}

/// Roles that may be there: that of the address, and the usual one.
fn roles(context: &Context, store: &Datastore) -> Vec<String> {
    let mut roles = vec!["postgres".to_owned()];
    if store.dsn.is_some()
        && let Ok(address) = address(context, store)
        && let Some(user) = address.user()
        && user != "postgres"
    {
        roles.push(user.to_owned());
    }
    roles
}

/// Our own executable, which PostgreSQL calls for each file of the log.
fn executable() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::io("could not find the executable of opsctl", &error))
}
