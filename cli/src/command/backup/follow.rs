//! `opsctl backup --follow`: receives the log of PostgreSQL servers that are saved as a whole, until Ctrl-C, and takes a
//! base backup whenever none leads to what is received: at the first time, after log was lost for ever, and where a server
//! was promoted that the last one does not lead to. The receiving itself is the crate `backups`'; this file says when a base
//! backup is due, and tells.

mod told;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use backups::Repository as Engine;
use backups::pitr::postgres::account::{Account, account};
use backups::pitr::postgres::archive::Lost;
use backups::pitr::postgres::keep::Keeper;
use backups::pitr::postgres::receiver::{Ended, Phase, Receiver, ReceiverError, Status};
use backups::{BackupReport, Silent};
use opsctl_platform::run::Incident;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Args, staying};
use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::physical;
use crate::platform;
use crate::repository;
use told::{Document, Told, standing};

/// A base backup that failed is tried again after so long.
const AGAIN: Duration = Duration::from_mins(1);

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, stores: &[&Datastore]) -> Outcome {
    let nothing = Failure::usage(
        "nothing_declared",
        "there is nothing to follow: no datastore is saved as a whole",
    )
    .help("write `backup = { method = \"physical\" }` into the table of a postgres store in opsctl.toml");
    let refuse = |store: &Datastore| physical::only(store, &format!("could not follow `{}`", store.name));
    let stores = staying::choose(args, stores, refuse, physical::is_physical, nothing)?;
    if args.dry_run {
        let declared = repository::declared(config, None)?;
        for store in &stores {
            let told = format!("would follow {} into {}", store.name, declared.name);
            context.out.line(&told)?;
        }
        return Ok(Exit::Done);
    }
    staying::stay(
        args,
        context,
        config,
        &stores,
        "followed",
        async |engine, store, cancel| {
            let follow = Follow {
                args,
                context,
                config,
                store,
                engine,
                incident: Cell::new(false),
            };
            Box::pin(follow.run(cancel)).await
        },
    )
}

/// Whether a base backup leads to what is received.
#[derive(Debug, Clone, Copy)]
enum Base {
    /// One does.
    Leads,
    /// The archive must be asked.
    Doubtful,
    /// None does: one is taken then.
    Due(Instant),
}

struct Follow<'a> {
    args: &'a Args,
    context: &'a Context,
    config: &'a Config,
    store: &'a Datastore,
    engine: &'a Engine,
    /// Log was lost, and no base backup was taken since.
    incident: Cell<bool>,
}

impl Follow<'_> {
    async fn run(&self, cancel: &CancellationToken) -> Result<(), Failure> {
        let name = &self.store.name;
        let archive = physical::archive(self.config, self.store, self.engine)?;
        let options = physical::receiver(self.context, self.config, self.store)?;
        let mut told = Told::new(&options.slot);
        let receiver = Receiver::new(archive, options);
        let mut base = Base::Doubtful;
        loop {
            match Box::pin(self.session(&receiver, &mut base, &mut told, cancel)).await {
                Ok(Ended::Cancelled) => break,
                Ok(Ended::Gap(lost)) => {
                    self.lost(&[lost]).await;
                    base = Base::Due(Instant::now());
                }
                Err(error) => return Err(error::backups::receiver(format!("could not follow `{name}`"), &error)),
            }
        }
        self.event("stopped", Document::default());
        self.context.out.done(format!("{name} is no longer followed"));
        Ok(())
    }

    /// Receives until that ends, takes the base backup that is due meanwhile, and tells.
    async fn session(
        &self,
        receiver: &Receiver,
        base: &mut Base,
        told: &mut Told,
        cancel: &CancellationToken,
    ) -> Result<Ended, ReceiverError> {
        // Where nobody watches, only what happens is told.
        let live = self.context.out.live;
        let line = live.then(|| self.context.out.progress(format!("following {}", self.store.name)));
        let mut news = receiver.status();
        let receiving = receiver.run(cancel);
        tokio::pin!(receiving);
        loop {
            let step = self.step(*base, receiver, cancel);
            tokio::pin!(step);
            let next = loop {
                tokio::select! {
                    biased;
                    ended = &mut receiving => return ended,
                    next = &mut step => break next,
                    changed = news.changed() => {
                        if changed.is_err() {
                            continue;
                        }
                        let now = news.borrow_and_update().clone();
                        let leads = matches!(base, Base::Leads);
                        if let Some(line) = &line {
                            line.phase(standing(&now, leads, self.context.now()));
                        }
                        if self.tell(&now, leads, told) && leads {
                            break Base::Doubtful;
                        }
                    }
                }
            };
            *base = next;
        }
    }

    /// Does what is to be done about base backups, and says how that stands then.
    async fn step(&self, base: Base, receiver: &Receiver, cancel: &CancellationToken) -> Base {
        match base {
            Base::Leads => std::future::pending().await,
            Base::Doubtful => {
                streams(receiver.status()).await;
                match self.account().await {
                    Ok(Some(account)) if account.base.is_some() => Base::Leads,
                    Ok(account) => {
                        let (why, open) =
                            account.map_or_else(Default::default, |account| (account.no_base, account.open));
                        if !open.is_empty() {
                            self.lost(&open).await;
                        } else if let Some(why) = why {
                            self.context.out.note(format!("{}: {why}", self.store.name));
                        }
                        Base::Due(Instant::now())
                    }
                    Err(failure) => {
                        self.failing(&failure);
                        tokio::time::sleep(AGAIN).await;
                        Base::Doubtful
                    }
                }
            }
            Base::Due(at) => {
                tokio::time::sleep_until(at).await;
                streams(receiver.status()).await;
                match self.base(receiver, cancel).await {
                    Ok(report) => {
                        self.taken(&report).await;
                        Base::Leads
                    }
                    Err(error) => {
                        if !cancel.is_cancelled() {
                            let what = format!("no base backup of {}", self.store.name);
                            self.failing(&error::backups::failure(what, &error));
                        }
                        Base::Due(Instant::now() + AGAIN)
                    }
                }
            }
        }
    }

    /// What the archive is worth.
    async fn account(&self) -> Result<Option<Account>, Failure> {
        let failed = |error| error::backups::failure(format!("the archived log of {}", self.store.name), &error);
        let archive = physical::archive(self.config, self.store, self.engine)?;
        let bases = physical::base_backups(self.config, self.store, self.engine)
            .await
            .map_err(failed)?;
        account(&archive, &bases.known)
            .await
            .map_err(|error| failed(error.into()))
    }

    /// A base backup, whose log the receiver keeps.
    async fn base(&self, receiver: &Receiver, cancel: &CancellationToken) -> Result<BackupReport, backups::Error> {
        let failed =
            |failure: Failure| backups::Error::Invalid([&[failure.message], &failure.causes[..]].concat().join(": "));
        let archive = physical::archive(self.config, self.store, self.engine).map_err(failed)?;
        let keeper = Arc::new(Keeper::given(archive, receiver.flusher()));
        let source = physical::source(self.context, self.store, keeper).map_err(failed)?;
        let options = super::options(self.args, self.context, self.config, self.store);
        self.context
            .out
            .note(format!("taking a base backup of {}", self.store.name));
        backups::backup(self.engine, &source, &options, &Silent, cancel).await
    }

    async fn taken(&self, report: &BackupReport) {
        let name = &self.store.name;
        let snapshot = report.snapshot.short();
        self.context
            .out
            .done(format!("took a base backup of {name}: snapshot {snapshot}"));
        let told = Document {
            snapshot: Some(report.snapshot.to_string()),
            ..Document::default()
        };
        self.event("base_backup", told);
        if self.incident.take() {
            let message = format!("{name}: a new base backup was taken: what is committed from now on can be restored");
            self.notify("log_resumed", &message).await;
        }
    }

    /// Log is lost for ever: whoever must know is told.
    async fn lost(&self, lost: &[Lost]) {
        let name = &self.store.name;
        self.incident.set(true);
        for lost in lost {
            let message = format!(
                "{name}: the server had removed its log from {lost} before it was received: no restore leads over it; taking a new \
                 base backup"
            );
            self.context.out.warn(&message);
            let told = Document {
                lost: Some(lost.to_string()),
                ..Document::default()
            };
            self.event("lost", told);
            self.notify("log_lost", &message).await;
        }
    }

    /// Tells the webhook of the team whose service uses the store, or else the environment's.
    async fn notify(&self, event: &str, message: &str) {
        let (context, name) = (self.context, &self.store.name);
        let users = self.config.users_of(name);
        let service = users.first().map(|service| service.name.as_str());
        let Some(notifier) = platform::notifier(context, self.config, service) else {
            return;
        };
        let incident = Incident {
            kind: "follow",
            target: &format!("datastore/{name}"),
            environment: &self.config.environment.name,
            actor: &context.actor(),
            message,
        };
        if let Err(error) = notifier.incident(event, &incident, context.now()).await {
            context.out.warn(format!("{name}: nobody was told: {error}"));
        }
    }
}

/// Waits until the log comes in: what is taken before could not be restored.
async fn streams(mut status: watch::Receiver<Status>) {
    let streaming = status.wait_for(|status| status.phase == Phase::Streaming).await;
    if streaming.is_err() {
        // The receiver is gone, which whoever runs it sees.
        std::future::pending::<()>().await;
    }
}
