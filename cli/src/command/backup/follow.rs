//! `opsctl backup --follow`: receives the log of PostgreSQL servers that are saved as a whole, until Ctrl-C, and takes a
//! base backup whenever none leads to what is received: at the first time, and after log was lost for ever. The receiving
//! itself is the crate `backups`'; this file lets one process a server do it, and tells.

use std::sync::Arc;
use std::time::Duration;

use backups::Repository as Engine;
use backups::pitr::postgres::Lsn;
use backups::pitr::postgres::archive::Lost;
use backups::pitr::postgres::keep::Keeper;
use backups::pitr::postgres::reach::Branch;
use backups::pitr::postgres::receiver::{Ended, Flusher, Phase, Receiver, Status, Warning};
use backups::pitr::postgres::recovery::{Target, plan};
use backups::{BackupOptions, BackupReport, Parent, Silent};
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Args, continuous};
use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, seconds};
use crate::physical;
use crate::repository::{self, IfEmpty};

/// A base backup that failed is tried again after so long.
const AGAIN: Duration = Duration::from_mins(1);
/// How often how it stands is told at least, as events.
const TOLD: Duration = Duration::from_secs(5);

/// One event of the stream under `--json`.
#[derive(Debug, Default, Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    datastore: &'a str,
    time: Timestamp,
    /// Up to here the log is in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<Lsn>,
    /// Everything that was acknowledged before, by the server's clock, is in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// What the server has and the repository has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_bytes: Option<u64>,
    /// What the server keeps for us.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    /// What is lost for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, stores: &[&Datastore]) -> Outcome {
    let named = stores.iter().find(|store| args.target.as_ref() == Some(&store.name));
    if let Some(store) = named {
        physical::only(store, &format!("could not follow `{}`", store.name))?;
    }
    let stores: Vec<&Datastore> = stores
        .iter()
        .copied()
        .filter(|store| physical::is_physical(store))
        .collect();
    if stores.is_empty() {
        return Err(Failure::usage(
            "nothing_declared",
            "there is nothing to follow: no datastore is saved as a whole",
        )
        .help("write `backup = { method = \"physical\" }` into the table of a postgres store in opsctl.toml"));
    }
    let declared = repository::declared(config, None)?;
    if args.dry_run {
        for store in &stores {
            let told = format!("would follow {} into {}", store.name, declared.name);
            context.out.line(&told)?;
        }
        return Ok(Exit::Done);
    }
    let locks: Result<Vec<_>, Failure> = stores
        .iter()
        .map(|store| continuous::lock(context, config, store))
        .collect();
    let locks = locks?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Make).await?;
        let following = stores.iter().map(|store| {
            let follow = Follow {
                args,
                context,
                config,
                store,
                engine: &engine,
            };
            let cancel = cancel.clone();
            async move { Box::pin(follow.run(&cancel)).await }
        });
        for ended in join_all(following).await {
            ended?;
        }
        drop(locks);
        Ok(Exit::Done)
    })
}

struct Follow<'a> {
    args: &'a Args,
    context: &'a Context,
    config: &'a Config,
    store: &'a Datastore,
    engine: &'a Engine,
}

impl Follow<'_> {
    async fn run(&self, cancel: &CancellationToken) -> Result<(), Failure> {
        let (context, name) = (self.context, &self.store.name);
        let archive = physical::archive(self.config, self.store, self.engine)?;
        let receiver = Receiver::new(archive, physical::receiver(context, self.config, self.store)?);
        let mut base_due = (!self.leads_on().await?).then(Instant::now);
        loop {
            let ended = Box::pin(self.session(&receiver, &mut base_due, cancel)).await;
            match ended {
                Ok(Ended::Cancelled) => break,
                Ok(Ended::Gap(lost)) => {
                    self.tell_lost(&lost);
                    base_due = Some(Instant::now());
                }
                Err(error) => {
                    return Err(
                        Failure::new(Exit::Failed, "not_followed", format!("could not follow `{name}`"))
                            .because(&error)
                            .help("nothing that was archived is lost; the server keeps the rest for the slot"),
                    );
                }
            }
        }
        self.event("stopped", Document::default());
        context.out.done(format!("{name} is no longer followed"));
        Ok(())
    }

    /// Whether a base backup leads to the end of what is archived.
    async fn leads_on(&self) -> Result<bool, Failure> {
        let failed = |error| error::backups::failure(format!("could not follow `{}`", self.store.name), &error);
        let archive = physical::archive(self.config, self.store, self.engine)?;
        let bases = physical::base_backups(self.config, self.store, self.engine)
            .await
            .map_err(failed)?;
        match plan(&archive, &bases, &Target::Latest, Branch::Newest, false).await {
            Ok(_) => Ok(true),
            Err(backups::Error::Recovery(why)) => {
                self.context.out.detail(format!("{}: {why}", self.store.name));
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Receives until that ends, takes the base backup that is due meanwhile, and tells.
    async fn session(
        &self,
        receiver: &Receiver,
        base_due: &mut Option<Instant>,
        cancel: &CancellationToken,
    ) -> Result<Ended, backups::pitr::postgres::receiver::ReceiverError> {
        let line = self.context.out.progress(format!("following {}", self.store.name));
        let mut news = receiver.status();
        let receiving = receiver.run(cancel);
        tokio::pin!(receiving);
        let mut told = Told::default();
        loop {
            let (due, status, flusher) = (*base_due, receiver.status(), receiver.flusher());
            let due = async move {
                match due {
                    Some(due) => {
                        tokio::time::sleep_until(due).await;
                        self.base(flusher, status, cancel).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(due);
            let taken = loop {
                tokio::select! {
                    biased;
                    ended = &mut receiving => return ended,
                    taken = &mut due => break taken,
                    changed = news.changed() => {
                        if changed.is_ok() {
                            let now = news.borrow_and_update().clone();
                            line.phase(standing(&now, self.context.now()));
                            self.tell(&now, &mut told);
                        }
                    }
                }
            };
            *base_due = match taken {
                Ok(report) => {
                    self.context.out.done(format!(
                        "took a base backup of {}: snapshot {}",
                        self.store.name,
                        report.snapshot.short()
                    ));
                    let snapshot = Some(report.snapshot.to_string());
                    self.event(
                        "base_backup",
                        Document {
                            snapshot,
                            ..Document::default()
                        },
                    );
                    None
                }
                Err(error) => {
                    let failure = error::backups::failure(format!("no base backup of {}", self.store.name), &error);
                    let causes = failure.causes.join(": ");
                    self.context
                        .out
                        .warn(format!("{}: {causes}; trying again in a minute", failure.message));
                    let error = Some(causes);
                    self.event(
                        "failing",
                        Document {
                            error,
                            ..Document::default()
                        },
                    );
                    Some(Instant::now() + AGAIN)
                }
            };
        }
    }

    /// A base backup, as soon as its log is received.
    async fn base(
        &self,
        flusher: Flusher,
        mut status: watch::Receiver<Status>,
        cancel: &CancellationToken,
    ) -> Result<BackupReport, backups::Error> {
        if status
            .wait_for(|status| status.phase == Phase::Streaming)
            .await
            .is_err()
        {
            return Err(backups::Error::Cancelled);
        }
        let told =
            |failure: Failure| backups::Error::Invalid([&[failure.message], &failure.causes[..]].concat().join(": "));
        let archive = physical::archive(self.config, self.store, self.engine).map_err(told)?;
        let keeper = Arc::new(Keeper::given(archive, flusher));
        let source = physical::source(self.context, self.store, keeper).map_err(told)?;
        let mut tags = vec![
            repository::store_tag(&self.store.name),
            repository::environment_tag(&self.config.environment.name),
        ];
        tags.extend(self.args.tags.iter().cloned());
        let actor = self.context.actor();
        let (user, host) = actor.split_once('@').unwrap_or((&actor, "localhost"));
        let options = BackupOptions {
            now: self.context.now(),
            host: host.to_owned(),
            username: user.to_owned(),
            tags,
            parent: Parent::Latest,
        };
        backups::backup(self.engine, &source, &options, &Silent, cancel).await
    }

    fn tell(&self, status: &Status, told: &mut Told) {
        let name = &self.store.name;
        for warning in &status.warnings {
            let text = words(warning);
            if !told.warnings.contains(&text) {
                self.context.out.warn(format!("{name}: {text}"));
                told.warnings.push(text);
            }
        }
        if status.last_error != told.error {
            if let Some(error) = &status.last_error {
                self.context.out.warn(format!("{name}: {error}; trying again"));
                let error = Some(error.clone());
                self.event(
                    "failing",
                    Document {
                        error,
                        ..Document::default()
                    },
                );
            }
            told.error.clone_from(&status.last_error);
        }
        let moved = status.phase == Phase::Streaming && status.complete_until != told.until;
        if moved && told.at.is_none_or(|at| at.elapsed() >= TOLD) {
            (told.at, told.until) = (Some(Instant::now()), status.complete_until);
            let document = Document {
                durable: Some(status.durable),
                until: status.complete_until,
                behind_bytes: Some(status.behind()),
                slot_bytes: status.slot.as_ref().map(|slot| slot.lag),
                ..Document::default()
            };
            self.event("following", document);
        }
    }

    fn tell_lost(&self, lost: &Lost) {
        self.context.out.warn(format!(
            "{}: the server had removed its log from {lost} before it was received: no restore leads over it; taking a new base backup",
            self.store.name
        ));
        let lost = Some(lost.to_string());
        self.event(
            "lost",
            Document {
                lost,
                ..Document::default()
            },
        );
    }

    fn event(&self, kind: &'static str, document: Document<'_>) {
        if self.context.out.json {
            // A reader that went away does not end the receiving.
            let _ = self.context.out.event(&Document {
                schema: "opsctl.following/v1",
                r#type: kind,
                datastore: &self.store.name,
                time: self.context.now(),
                ..document
            });
        }
    }
}

/// What was told already.
#[derive(Default)]
struct Told {
    warnings: Vec<String>,
    error: Option<String>,
    until: Option<Timestamp>,
    at: Option<Instant>,
}

fn standing(status: &Status, now: Timestamp) -> String {
    match status.phase {
        Phase::Connecting => "connecting".to_owned(),
        Phase::Waiting => "waiting to try again".to_owned(),
        Phase::Ended => "ending".to_owned(),
        Phase::Streaming => {
            let rpo = status.rpo(now).map_or_else(String::new, |rpo| {
                format!(", {} would be lost now", seconds(rpo.as_secs_f64()))
            });
            format!(
                "{} in the repository, {} behind{rpo}",
                status.durable,
                bytes(status.behind())
            )
        }
    }
}

fn words(warning: &Warning) -> String {
    match warning {
        Warning::SlotKeepsEverything => {
            "max_slot_wal_keep_size is not set: while nobody follows, the log fills the server's disk".to_owned()
        }
        Warning::CommitsMayWait(value) => {
            format!("synchronous_standby_names is {value:?}: commits may wait for this repository")
        }
        Warning::MomentUnknown(why) => format!("it is not known up to which moment the log is held: {why}"),
        Warning::LeftBehind { timeline, left, held } => format!(
            "timeline {timeline} was left at {left}, and the archive has it up to {held}: what lies behind is on no way"
        ),
    }
}
