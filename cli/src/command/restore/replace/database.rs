//! `restore --replace` of a PostgreSQL: a new database beside the old on the same server, verified, then exchanged. On
//! this machine by name, while the services that use it are held down; on Kubernetes as `secret` says. Other databases of
//! the server, and whoever uses them, are not touched.

use std::path::Path;
use std::time::Duration;

use backups::Error;
use backups::postgres::load::{LoadReport, Target, temporary_name};
use backups::postgres::swap::{Names, Server, Standing};
use backups::proof::{Assertion, Check, Outcome as Met, ask_database};
use backups::source::VerifiedCheck;
use opsctl_platform::Field;
use opsctl_platform::run::{Outcome as RunOutcome, Run};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Args;
use super::super::database::{Document, Here, document, warn_of_left};
use super::origin::{self, Origin};
use super::{
    About, POLL, START_LIMIT, begin, give_back, hold, let_go, names, not_ready, running, secret, stop_asked, tidy,
};
use crate::config::{Config, Datastore, Service};
use crate::consent::{Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, plural, seconds};
use crate::platform::{self, Opened, Part};
use crate::repository::{self, IfEmpty};

/// Databases of the server's own.
const FIXED: [&str; 3] = ["postgres", "template0", "template1"];
/// PostgreSQL's names have so many bytes at most.
pub(super) const LONGEST: usize = 63;
/// How long one query of an assertion may take.
const QUERY_LIMIT: Duration = Duration::from_mins(1);
/// How long the server may take to notice that services have ended.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// What will be done.
pub(super) struct Plan {
    /// The database that is meant.
    pub(super) name: String,
    /// The database that there is.
    pub(super) old: Option<Standing>,
    /// What it is called: on Kubernetes what the services' Secrets say.
    pub(super) live: String,
    /// Services that use it and run where we are.
    pub(super) services: Vec<String>,
    /// Where these have its address from, on Kubernetes.
    pub(super) secrets: Vec<Field>,
}

/// What a run works with.
pub(super) struct Work<'a> {
    pub(super) args: &'a Args,
    pub(super) context: &'a Context,
    pub(super) opened: &'a Opened,
    pub(super) store: &'a Datastore,
    pub(super) server: &'a Server,
    pub(super) origin: &'a Origin<'a>,
    /// Where what is restored is on its way.
    pub(super) folder: &'a Path,
    pub(super) plan: &'a Plan,
    /// What the new database is called before.
    pub(super) staged: String,
    pub(super) what: String,
    pub(super) cancel: &'a CancellationToken,
}

/// A new database that is verified.
pub(super) struct Brought {
    here: Here,
    loaded: LoadReport,
    checks: Vec<VerifiedCheck>,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore) -> Outcome {
    let declared = repository::declared(config, args.repository.as_deref())?;
    let dsn = repository::server(context, store)?;
    let opened = platform::open_for(context, config.clone())?;
    let what = format!("could not restore `{}` in place", store.name);
    let failed = |error: Error| error::backups::failure(what.clone(), &error);
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let scratch = origin::scratch(config, store, &what)?;
        let folder = scratch.folder();
        let origin = Origin::find(args, context, config, store, &engine, (folder, &cancel)).await?;
        let server = Server::open(repository::programs(store), &dsn).await;
        let server = server.map_err(|error| failed(error.into()))?;
        let plan = plan(config, store, &opened, &server, origin.database()).await?;
        let told = format!(
            "database {} of `{}` at {}, {}",
            plan.name,
            store.name,
            server.address(),
            origin.told()
        );
        if args.dry_run {
            context.out.line(&plan.in_words(&told))?;
            return Ok(Exit::Done);
        }
        let stake = Stake {
            question: plan.question(&told),
            name: &store.name,
            consequence: Consequence::ReplacesData,
            protected: config.protected(),
        };
        let plan = approve(context, &args.consent, plan, &stake)?.into_plan();
        let work = Work {
            args,
            context,
            opened: &opened,
            store,
            server: &server,
            origin: &origin,
            folder,
            plan: &plan,
            staged: temporary_name(),
            what: what.clone(),
            cancel: &cancel,
        };
        Box::pin(work.apply(&told)).await
    })
}

impl Plan {
    fn in_words(&self, told: &str) -> String {
        if self.secrets.is_empty() {
            return format!(
                "would restore {told}, beside the one that is there; hold down {}; and give it its name, the old one kept as {}",
                names(&self.services),
                kept_name(&self.live, "RUN")
            );
        }
        format!(
            "would restore {told}, as {} beside {}; lead {} to it; and restart {}",
            secret::new_name(&self.name, "RUN"),
            self.live,
            self.secrets
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            names(&self.services)
        )
    }

    fn question(&self, told: &str) -> String {
        if self.secrets.is_empty() {
            format!("replace {told}, with {} held down meanwhile?", names(&self.services))
        } else {
            format!("replace {told}, and restart {}?", names(&self.services))
        }
    }
}

/// Looks at everything that could stand against it.
async fn plan(
    config: &Config,
    store: &Datastore,
    opened: &Opened,
    server: &Server,
    name: &str,
) -> Result<Plan, Failure> {
    let what = || format!("could not restore `{}` in place", store.name);
    let failed = |error: backups::postgres::PostgresError| error::backups::failure(what(), &error.into());
    if FIXED.contains(&name) {
        return Err(Failure::usage("not_replaceable", what())
            .cause(format!(
                "the database {name} is one of the server's own, which is connected to meanwhile"
            ))
            .help(format!(
                "restore it into a new database: opsctl restore {} --database {name} --into NAME",
                store.name
            )));
    }
    let rights = server.rights().await.map_err(failed)?;
    let (live, services, secrets) = match opened.there() {
        None => {
            let users = config.users_of(&store.name).into_iter();
            let users = users.filter(|service| uses(service, store, name));
            let services = running(opened, users.map(|service| service.name.clone())).await?;
            (name.to_owned(), services, Vec::new())
        }
        Some(there) => secret::led(config, store, opened, there, name).await?,
    };
    let old = server.standing(&live).await.map_err(failed)?;
    let denied = |cause: String, help: String| Err(Failure::usage("access_denied", what()).cause(cause).help(help));
    if !rights.may_create {
        return denied(
            format!("the role {:?} may not make databases", rights.user),
            format!("as a superuser: ALTER ROLE \"{}\" CREATEDB", rights.user),
        );
    }
    if let Some(old) = old.as_ref().filter(|old| !old.is_ours) {
        return denied(
            format!(
                "the database {live} belongs to {:?}, and the role {:?} may not do what that one may",
                old.owner, rights.user
            ),
            format!("as a superuser: GRANT \"{}\" TO \"{}\"", old.owner, rights.user),
        );
    }
    Ok(Plan {
        name: name.to_owned(),
        old,
        live,
        services,
        secrets,
    })
}

/// Whether a service says that it uses a database of a server, or does not say which. Who uses another one is not touched.
pub(super) fn uses(service: &Service, store: &Datastore, database: &str) -> bool {
    let mut used = service.uses.iter().filter(|used| used.store == store.name);
    used.any(|used| used.part.as_ref().is_none_or(|part| part == database))
}

/// What the old database is called afterwards.
fn kept_name(name: &str, run: &str) -> String {
    let suffix = format!(".before-{run}");
    let mut length = name.len().min(LONGEST.saturating_sub(suffix.len()));
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{suffix}", &name[..length])
}

impl Work<'_> {
    /// The run, from its record to its end.
    async fn apply(self, told: &str) -> Outcome {
        let spec = serde_json::json!({
            "datastore": self.store.name, "snapshot": self.origin.snapshot().to_string(),
            "database": self.plan.live, "services": self.plan.services,
        });
        let about = About {
            store: self.store,
            what: self.what.clone(),
            spec,
            services: &self.plan.services,
        };
        let mut run = begin(self.args, self.context, self.opened, about).await?;
        let carried = match self.opened.there() {
            None => Box::pin(self.carry_through(&mut run)).await,
            Some(there) => Box::pin(self.carry_through_there(&mut run, there)).await,
        };
        let document = match carried {
            Ok(document) => document,
            Err(failure) => return Err(give_back(self.context, self.opened, run, failure, &self.what).await),
        };
        let closed = run
            .close(RunOutcome::Passed, "restored, and the services are ready")
            .await;
        closed.map_err(|error| error::platform::run_failure(self.what.clone(), &error))?;
        tidy(self.opened).await;
        let out = &self.context.out;
        out.answer(&document, |_| format!("{}\n", document.database))?;
        for note in &document.notes {
            out.note(note);
        }
        let checks: Vec<&str> = document.checks.iter().map(|check| check.name).collect();
        out.done(format!(
            "restored {told}: {}, {}, verified ({}), {}",
            plural(document.tables as u64, "table", "tables"),
            bytes(document.restored_bytes),
            checks.join(", "),
            seconds(document.elapsed_seconds)
        ));
        if let Some(kept) = &document.kept {
            out.note(format!(
                "what was there is kept as database {kept}; when it is not needed any more: DROP DATABASE \"{}\"",
                kept.replace('"', "\"\"")
            ));
        }
        Ok(Exit::Done)
    }

    pub(super) fn failed(&self, error: &opsctl_platform::run::RunError) -> Failure {
        error::platform::run_failure(self.what.clone(), error)
    }

    pub(super) fn part(&self, part: &Part) -> opsctl_platform::Field {
        part.field(&self.store.name)
    }

    /// Everything up to the end. An error leaves what was changed to the caller's undo.
    async fn carry_through(&self, run: &mut Run) -> Result<Document, Failure> {
        let started = self.context.now();
        let (brought, new) = Box::pin(self.beside(run)).await?;
        let old = self.plan.old.as_ref().map(|old| old.oid);
        let services = &self.plan.services;

        hold(
            self.opened,
            run,
            Some(self.cancel),
            services,
            &self.store.name,
            &self.what,
        )
        .await?;
        if let Some(old) = old {
            self.nobody_else(old).await?;
            stop_asked(run, self.cancel, &self.what)?;
            run.step("closing the old database")
                .await
                .map_err(|error| self.failed(&error))?;
            let open = self.part(&Part::Open(old));
            run.change(&open, Some(false.into()))
                .await
                .map_err(|error| self.failed(&error))?;
        }
        stop_asked(run, self.cancel, &self.what)?;
        run.step("swapping").await.map_err(|error| self.failed(&error))?;
        let names = Names {
            name: self.plan.live.clone(),
            staged: self.staged.clone(),
            kept: kept_name(&self.plan.live, run.id()),
        };
        let kept = old.map(|_| names.kept.clone());
        let name = self.part(&Part::Name(names));
        run.change(&name, Some(new.into()))
            .await
            .map_err(|error| self.failed(&error))?;
        stop_asked(run, self.cancel, &self.what)?;

        let_go(run, services, &self.what).await?;
        let limit = self.args.timeout.unwrap_or(START_LIMIT);
        let late = not_ready(self.opened, services, limit, run).await?;
        let stopped = stop_asked(run, self.cancel, &self.what).err();
        let failure = stopped.or_else(|| {
            let late = late.as_ref()?;
            Some(
                Failure::new(Exit::No, "not_ready", self.what.clone())
                    .cause(format!("`{late}` did not become ready with the restored database"))
                    .help("the old database has its name again: opsctl status; opsctl logs"),
            )
        });
        if let Some(failure) = failure {
            // Services are not to see how the names change hands.
            hold(self.opened, run, None, services, &self.store.name, &self.what).await?;
            run.undo_field(&name).await.map_err(|error| self.failed(&error))?;
            return Err(failure);
        }

        // From here on the restored database stays: services write to it.
        run.keep(&name).await.map_err(|error| self.failed(&error))?;
        run.undo().await.map_err(|error| self.failed(&error))?;
        Ok(self.document(run, started, brought, &self.plan.live, kept))
    }

    /// What is told in the end: `database` is what the new one is called, `kept` the old one.
    pub(super) fn document(
        &self,
        run: &Run,
        started: jiff::Timestamp,
        brought: Brought,
        database: &str,
        kept: Option<String>,
    ) -> Document {
        let elapsed = self.context.now().duration_since(started).as_secs_f64();
        let address = self.server.address();
        let loaded = LoadReport {
            database: database.to_owned(),
            ..brought.loaded
        };
        let here = brought.here;
        let loaded = (&here.dumped, loaded);
        let mut document = document(self.store, &here.record, &address, loaded, &here.fetched, elapsed);
        document.run = Some(run.id().to_owned());
        document.kept = kept;
        document.checks = brought.checks;
        document.recovered = here.recovered;
        document
    }

    /// The new database, filled and verified while the services still run: how long they are down is how long the swap
    /// takes. Also its OID.
    pub(super) async fn beside(&self, run: &mut Run) -> Result<(Brought, u32), Failure> {
        let failed = |error: Error| error::backups::failure(self.what.clone(), &error);
        run.step("restoring beside")
            .await
            .map_err(|error| self.failed(&error))?;
        let staged = self.part(&Part::Staged(self.staged.clone()));
        run.change(&staged, Some(true.into()))
            .await
            .map_err(|error| self.failed(&error))?;
        let origin::Brought { here, is_alone } = Box::pin(self.origin.bring(self.folder, self.cancel)).await?;
        let progress = self.context.out.progress(format!("restoring {}", self.store.name));
        progress.phase("loading the dump");
        let loaded = Box::pin(self.load(&here)).await?;
        drop(progress);

        stop_asked(run, self.cancel, &self.what)?;
        run.step("verifying").await.map_err(|error| self.failed(&error))?;
        let missing = self
            .server
            .missing_tables(&self.staged, &here.dump)
            .await
            .map_err(failed)?;
        if !missing.is_empty() {
            return Err(Failure::new(Exit::No, "verification_failed", self.what.clone())
                .cause(
                    "tables of the dump are not in the restored database; it was removed again, and replaces nothing",
                )
                .details(missing)
                .help("try an older snapshot: opsctl snapshot list"));
        }
        let mut checks = vec![sound("pg_restore"), sound("tables")];
        let meant = |assertion: &&Assertion| match &assertion.database {
            Some(database) => *database == here.dumped.name,
            None => is_alone,
        };
        let assertions: Vec<&Assertion> = self.store.proof.assertions.iter().filter(meant).collect();
        if !assertions.is_empty() {
            let asked = ask_database(self.server, &self.staged, &assertions, QUERY_LIMIT).await;
            self.judge(&asked.map_err(failed)?)?;
            checks.push(sound("assertions"));
        }
        let standing = self.server.standing(&self.staged).await;
        let standing = standing.map_err(|error| failed(error.into()))?;
        let new = standing.ok_or_else(|| {
            Failure::new(Exit::Failed, "postgres_failed", self.what.clone())
                .cause(format!("somebody has removed the database {} meanwhile", self.staged))
        })?;
        let brought = Brought { here, loaded, checks };
        Ok((brought, new.oid))
    }

    /// Fills the new database.
    async fn load(&self, here: &Here) -> Result<LoadReport, Failure> {
        let failed = |error: Error| error::backups::failure(self.what.clone(), &error);
        let programs = repository::programs(self.store);
        let dsn = repository::server(self.context, self.store)?.with_database(backups::postgres::swap::MAINTENANCE);
        let target = Target::open(programs, &dsn, &self.staged).await;
        let target = target.map_err(|error| failed(error.into()))?;
        warn_of_left(self.context, &target);
        let like = self.plan.old.as_ref();
        let staged = target.stage(programs, &here.dump, &here.dumped, like, &here.options, self.cancel);
        staged.await.map_err(failed)
    }

    /// What is asserted must hold, or nothing is replaced.
    fn judge(&self, checks: &[Check]) -> Result<(), Failure> {
        let unmet = checks.iter().filter(|check| check.outcome != Met::Met);
        let told: Vec<String> = unmet
            .map(|check| format!("{}: expected {}, was {}", check.name, check.expected, check.observed))
            .collect();
        if told.is_empty() {
            return Ok(());
        }
        let failed = checks.iter().any(|check| check.outcome == Met::NotMet);
        let exit = if failed { Exit::No } else { Exit::Inconclusive };
        Err(Failure::new(exit, "verification_failed", self.what.clone())
            .cause("what is asserted of the datastore does not hold in the restored database; it was removed again, and replaces nothing")
            .details(told)
            .help("try an older snapshot: opsctl snapshot list"))
    }

    /// Waits until the services that were stopped are gone from the server, and refuses while somebody else is there.
    async fn nobody_else(&self, old: u32) -> Result<(), Failure> {
        let deadline = Instant::now() + GONE_LIMIT;
        loop {
            let sessions = self.server.sessions(old).await;
            let sessions = sessions.map_err(|error| error::backups::failure(self.what.clone(), &error.into()))?;
            if sessions.is_empty() {
                return Ok(());
            }
            if Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
                continue;
            }
            return Err(Failure::refused(
                "in_use",
                format!("somebody is connected to the database {}", self.plan.live),
            )
            .details(sessions.iter().map(ToString::to_string))
            .help("end these sessions (SELECT pg_terminate_backend(PROCESS)), then run the same command again"));
        }
    }
}

fn sound(name: &'static str) -> VerifiedCheck {
    VerifiedCheck { name, problem: None }
}

#[cfg(test)]
mod tests {
    use super::kept_name;

    #[test]
    fn names_of_what_is_kept_are_such_as_a_server_takes() {
        let run = "20260314-092653-7f3a";
        assert_eq!(kept_name("orders", run), "orders.before-20260314-092653-7f3a");
        for name in ["o".repeat(63), "ü".repeat(31)] {
            let kept = kept_name(&name, run);
            assert!(kept.len() <= 63 && kept.ends_with(run), "{kept}");
        }
    }
}
