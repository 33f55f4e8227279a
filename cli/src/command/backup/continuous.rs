//! `opsctl backup --continuous`: a snapshot of each SQLite database, then what changes in it, until Ctrl-C. The shipping
//! itself is the crate `backups`'; this file chooses the databases, lets one process a database do it, and tells.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use backups::Repository as Engine;
use backups::pitr::sqlite::{Event, Outcome as Step, ShipOptions, Shipper};
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Args;
use crate::config::{Config, Datastore, DatastoreKind};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, seconds};
use crate::repository::{self, IfEmpty};

/// How often, where nobody says.
const EVERY: Duration = Duration::from_secs(1);

/// One event of the stream under `--json`.
#[derive(Debug, Default, Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    datastore: &'a str,
    time: Timestamp,
    /// Everything that was committed before is in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What is shipped, and how often.
struct Ship<'a> {
    store: &'a Datastore,
    path: PathBuf,
    interval: Duration,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, stores: &[&Datastore]) -> Outcome {
    let ships = choose(args, stores)?;
    let declared = repository::declared(config, None)?;
    if args.dry_run {
        for ship in &ships {
            context.out.line(&format!(
                "would ship {} ({}) every {} to {}",
                ship.store.name,
                context.shown(&ship.path),
                humantime::format_duration(ship.interval),
                declared.name
            ))?;
        }
        return Ok(Exit::Done);
    }
    let locks: Vec<File> = ships
        .iter()
        .map(|ship| lock(context, config, ship.store))
        .collect::<Result<_, _>>()?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Make).await?;
        let shipping = ships
            .iter()
            .map(|ship| self::ship(args, context, config, ship, &engine, &cancel));
        for ended in join_all(shipping).await {
            ended?;
        }
        drop(locks);
        Ok(Exit::Done)
    })
}

/// A store that is named is shipped; of several those that say so.
fn choose<'a>(args: &Args, stores: &[&'a Datastore]) -> Result<Vec<Ship<'a>>, Failure> {
    let named = stores.iter().find(|store| args.target.as_ref() == Some(&store.name));
    if let Some(store) = named.filter(|store| store.kind != DatastoreKind::Sqlite) {
        return Err(
            Failure::usage("not_shipped", format!("could not ship `{}`", store.name)).cause(format!(
                "it is of kind `{}`, and only the changes of sqlite stores are shipped",
                store.kind.word()
            )),
        );
    }
    let chosen = stores
        .iter()
        .filter(|store| store.kind == DatastoreKind::Sqlite && (named.is_some() || store.ship.is_some()));
    let ships: Vec<Ship<'_>> = chosen
        .map(|store| {
            Ok(Ship {
                store,
                path: repository::path_of(store)?,
                interval: args
                    .interval
                    .or(store.ship)
                    .unwrap_or(EVERY)
                    .max(Duration::from_millis(10)),
            })
        })
        .collect::<Result<_, Failure>>()?;
    if ships.is_empty() {
        return Err(Failure::usage(
            "nothing_declared",
            "there is nothing to ship: no sqlite store says how often",
        )
        .help("write `backup = { ship = \"1s\" }` into its table in opsctl.toml, or name the store"));
    }
    Ok(ships)
}

/// Two that ship the same database would be no harm, and no use.
pub(super) fn lock(context: &Context, config: &Config, store: &Datastore) -> Result<File, Failure> {
    let path = config.state().join(format!("shipping-{}.lock", store.name));
    let failed = |error| Failure::io(format!("could not make `{}`", context.shown(&path)), &error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(config.state())
        .map_err(failed)?;
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Exit::Locked,
            "locked",
            format!("`{}` is shipped by another process", store.name),
        )
        .help("one is enough; end the other one first to ship from here")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

async fn ship(
    args: &Args,
    context: &Context,
    config: &Config,
    ship: &Ship<'_>,
    engine: &Engine,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let store = ship.store;
    let mut tags = vec![
        repository::store_tag(&store.name),
        repository::environment_tag(&config.environment.name),
    ];
    tags.extend(args.tags.iter().cloned());
    let actor = context.actor();
    let (user, host) = actor.split_once('@').unwrap_or((&actor, "localhost"));
    let options = ShipOptions {
        interval: ship.interval,
        heartbeat: ShipOptions::new("").heartbeat.max(ship.interval),
        host: host.to_owned(),
        username: user.to_owned(),
        tags,
        ..ShipOptions::new(repository::staging(config))
    };
    let mut shipper = Shipper::new(engine.clone(), repository::shipped(config, store)?, &ship.path, options);
    shipper.run(cancel, &|event| tell(context, ship, &event)).await;
    event(context, store, "stopped", Document::default());
    context.out.done(format!("{} is no longer shipped", store.name));
    Ok(())
}

fn event(context: &Context, store: &Datastore, kind: &'static str, document: Document<'_>) {
    if context.out.json {
        // A reader that went away does not end the shipping.
        let _ = context.out.event(&Document {
            schema: "opsctl.shipping/v1",
            r#type: kind,
            datastore: &store.name,
            time: context.now(),
            ..document
        });
    }
}

fn tell(context: &Context, ship: &Ship<'_>, told: &Event<'_>) {
    let (store, name) = (ship.store, &ship.store.name);
    match told {
        Event::Shipped(shipped) => {
            if let Some(generation) = &shipped.generation {
                context.out.done(format!(
                    "shipping {name} every {}, from snapshot {} on",
                    humantime::format_duration(ship.interval),
                    generation.snapshot.short()
                ));
                let snapshot = Some(generation.snapshot.to_string());
                event(
                    context,
                    store,
                    "generation",
                    Document {
                        snapshot,
                        ..Document::default()
                    },
                );
            }
            let Step::Changed {
                pages,
                bytes: stored,
                missed,
                ..
            } = shipped.outcome
            else {
                return;
            };
            if missed > 0 {
                context.out.warn(format!(
                    "{name}: {missed} changed pages were not in the log of the database; they are shipped now"
                ));
            }
            context.out.detail(format!("{name}: {pages} pages, {}", bytes(stored)));
            let document = Document {
                until: Some(shipped.until),
                pages: Some(pages),
                stored_bytes: Some(stored),
                ..Document::default()
            };
            event(context, store, "shipped", document);
        }
        Event::Failing { error, since, until } => {
            let failure = error::backups::failure(format!("could not ship `{name}`"), error);
            let causes = failure.causes.join(": ");
            let lost = until.map_or_else(
                || "nothing is shipped yet".to_owned(),
                |until| format!("nothing that was committed after {until} is in the repository"),
            );
            context.out.warn(format!("{name}: {causes}; {lost}; trying again"));
            let document = Document {
                until: *until,
                since: Some(*since),
                error: Some(causes),
                ..Document::default()
            };
            event(context, store, "failing", document);
        }
        Event::Recovered { since } => {
            let away = context.now().duration_since(*since).as_secs_f64();
            context
                .out
                .done(format!("{name} is shipped again, after {}", seconds(away)));
            event(
                context,
                store,
                "recovered",
                Document {
                    since: Some(*since),
                    ..Document::default()
                },
            );
        }
    }
}
