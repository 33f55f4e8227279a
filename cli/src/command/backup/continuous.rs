//! `opsctl backup --continuous`: a snapshot of each SQLite database, then what changes in it, until Ctrl-C. The shipping
//! itself is the crate `backups`'; this file chooses the databases, and tells.

use std::time::Duration;

use backups::pitr::sqlite::{Event, Outcome as Step, ShipOptions, Shipper};
use backups::{BackupOptions, Repository as Engine};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Args, staying};
use crate::config::{Config, Datastore, DatastoreKind};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, seconds};
use crate::repository;

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

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, stores: &[&Datastore]) -> Outcome {
    let nothing = Failure::usage(
        "nothing_declared",
        "there is nothing to ship: no sqlite store says how often",
    )
    .help("write `backup = { ship = \"1s\" }` into its table in opsctl.toml, or name the store");
    let shipped = |store: &Datastore| store.kind == DatastoreKind::Sqlite && store.ship.is_some();
    let stores = staying::choose(args, stores, refuse, shipped, nothing)?;
    for store in &stores {
        let path = repository::path_of(store)?;
        if args.dry_run {
            context.out.line(&format!(
                "would ship {} ({}) every {} to {}",
                store.name,
                context.shown(&path),
                humantime::format_duration(interval(args, store)),
                repository::declared(config, None)?.name
            ))?;
        }
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    staying::stay(
        args,
        context,
        config,
        &stores,
        "shipped",
        async |engine, store, cancel| ship(args, context, config, store, engine, cancel).await,
    )
}

fn refuse(store: &Datastore) -> Result<(), Failure> {
    if store.kind == DatastoreKind::Sqlite {
        return Ok(());
    }
    Err(
        Failure::usage("not_shipped", format!("could not ship `{}`", store.name)).cause(format!(
            "it is of kind `{}`, and only the changes of sqlite stores are shipped",
            store.kind.word()
        )),
    )
}

fn interval(args: &Args, store: &Datastore) -> Duration {
    args.interval
        .or(store.ship)
        .unwrap_or(EVERY)
        .max(Duration::from_millis(10))
}

async fn ship(
    args: &Args,
    context: &Context,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let interval = interval(args, store);
    let path = repository::path_of(store)?;
    let BackupOptions {
        host, username, tags, ..
    } = super::options(args, context, config, store);
    let options = ShipOptions {
        interval,
        heartbeat: ShipOptions::new("").heartbeat.max(interval),
        host,
        username,
        tags,
        ..ShipOptions::new(repository::staging(config))
    };
    let mut shipper = Shipper::new(engine.clone(), repository::shipped(config, store)?, &path, options);
    let told = |event: Event<'_>| tell(context, store, interval, &event);
    shipper.run(cancel, &told).await;
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

fn tell(context: &Context, store: &Datastore, interval: Duration, told: &Event<'_>) {
    let name = &store.name;
    match told {
        Event::Shipped(shipped) => {
            if let Some(generation) = &shipped.generation {
                context.out.done(format!(
                    "shipping {name} every {}, from snapshot {} on",
                    humantime::format_duration(interval),
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
