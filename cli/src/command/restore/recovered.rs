//! `restore --into` of a PostgreSQL that is saved as a whole: the cluster is recovered in a scratch place by a server that
//! nobody else reaches, one database of it is dumped there and loaded as every dump is: under a temporary name, which
//! becomes its own at the very end. And `restore --serve`: the copy itself is there to be asked, until Ctrl-C. Of the copy
//! nothing is left, however it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::pitr::postgres::recovery::run::{self, recover};
use backups::pitr::postgres::recovery::{FromArchive, Plan};
use backups::pitr::postgres::serve;
use backups::postgres::extract::{ExtractOptions, Extracted, extract};
use backups::postgres::load::Target;
use backups::proof::Scratch;
use backups::snapshots::SnapshotRecord;
use backups::source::postgres::base::{BaseRestore, restore_base};
use backups::{Error, Repository as Engine, RestoreReport};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::database::{self, Here, Place, Recovered};
use super::{Args, physical as cluster};
use crate::config::{Config, Datastore};
use crate::consent::{Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::physical::{self, Kept};
use crate::repository::{self, IfEmpty, Shown};

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore, place: &Place) -> Outcome {
    let what = format!("could not restore `{}`", store.name);
    let failed = |error: Error| error::backups::failure(what.clone(), &error);
    cluster::refuse_others(args, &what)?;
    let declared = repository::declared(config, args.repository.as_deref())?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let plan = cluster::way(args, context, config, store, &engine).await?;
        let target = Target::open(repository::programs(store), &place.server, &place.database).await;
        let target = target.map_err(|error| failed(error.into()))?;
        database::warn_of_left(context, &target);
        let told = format!(
            "{} as database {} at {}",
            cluster::told(&plan),
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
        let scratch = scratch(config, &what)?;
        // The cluster, and a database of it once more.
        let needed = physical::needed_bytes(&plan).saturating_add(plan.backup.base.bytes);
        physical::enough_room(context, &what, needed, scratch.folder(), "--into FOLDER")?;
        let copy = Copy {
            args,
            context,
            config,
            store,
            engine: &engine,
            folder: scratch.folder(),
        };
        let (here, _) = Box::pin(copy.dump(&plan, &cancel)).await?;
        database::load(context, store, &target, here, (started, &told), &cancel).await
    })
}

/// A copy that can be asked.
#[derive(Debug, Serialize)]
struct Served<'a> {
    schema: &'static str,
    r#type: &'static str,
    datastore: &'a str,
    snapshot: String,
    /// What clients take for a host: the folder of its socket.
    host: String,
    port: u16,
    /// A superuser of it. No password is asked for.
    user: &'a str,
    databases: Vec<String>,
    version: &'a str,
    #[serde(flatten)]
    recovered: Recovered,
}

/// Runs `restore --serve`.
pub(super) fn serve(args: &Args, context: &Context, config: &Config, store: &Datastore) -> Outcome {
    let what = format!("could not serve `{}`", store.name);
    cluster::refuse_others(args, &what)?;
    let declared = repository::declared(config, args.repository.as_deref())?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let plan = cluster::way(args, context, config, store, &engine).await?;
        let told = cluster::told(&plan);
        if args.dry_run {
            context.out.line(&format!("would serve {} {told}", store.name))?;
            return Ok(Exit::Done);
        }
        let scratch = scratch(config, &what)?;
        physical::enough_room(
            context,
            &what,
            physical::needed_bytes(&plan),
            scratch.folder(),
            "--into FOLDER",
        )?;
        let copy = Copy {
            args,
            context,
            config,
            store,
            engine: &engine,
            folder: scratch.folder(),
        };
        let (_, mut server) = Box::pin(copy.recover(&plan, &cancel)).await?;
        let failed = |error| error::backups::failure(&what, &error);
        let mut databases = server.databases().await.map_err(failed)?;
        // What new databases are copied from is nobody's data.
        databases.retain(|name| name != "template1");
        let served = Served {
            schema: "opsctl.restore/v1",
            r#type: "served",
            datastore: &store.name,
            snapshot: plan.backup.snapshot.to_string(),
            host: server.sockets().display().to_string(),
            port: server.port(),
            user: server.superuser(),
            databases,
            version: server.version(),
            recovered: came(&plan, &server),
        };
        context.out.done(format!(
            "{} {told} is there until Ctrl-C, in a PostgreSQL {} of its own; what is changed in it is gone then",
            store.name, served.version
        ));
        context.out.answer(&served, |_| {
            let line = |name: &String| {
                let (host, user, name) = (quoted(&served.host), quoted(served.user), quoted(name));
                format!("psql \"host={host} port={} user={user} dbname={name}\"\n", served.port)
            };
            served.databases.iter().map(line).collect()
        })?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(Exit::Done),
            error = server.ended() => Err(failed(error)),
        }
    })
}

/// How far `server` came.
fn came(plan: &Plan, server: &run::Recovered) -> Recovered {
    Recovered {
        reached: plan.moment(),
        reached_lsn: server.reached,
        timeline: plan.way.timeline,
        last_commit: plan.stop.last_commit,
        segments: plan.way.pieces.len() as u64,
    }
}

/// A value in libpq's list of settings, between the double quotes of a shell.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    let libpq = value.replace('\\', "\\\\").replace('\'', "\\'");
    let mut shell = String::from("'");
    for character in libpq.chars() {
        if matches!(character, '\\' | '"' | '$' | '`') {
            shell.push('\\');
        }
        shell.push(character);
    }
    shell + "'"
}

/// Where a copy is made. What a killed restore left may be the room that is missing.
pub(super) fn scratch(config: &Config, what: &str) -> Result<Scratch, Failure> {
    let failed = |error| error::backups::failure(what, &error);
    let home = config.state().join("scratch");
    Scratch::sweep(&home).map_err(failed)?;
    physical::scratch(&home, &home).map_err(failed)
}

/// What is made on the way.
pub(super) struct Copy<'a> {
    pub(super) args: &'a Args,
    pub(super) context: &'a Context,
    pub(super) config: &'a Config,
    pub(super) store: &'a Datastore,
    pub(super) engine: &'a Engine,
    pub(super) folder: &'a Path,
}

impl Copy<'_> {
    /// Where the cluster is restored.
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Recovers the cluster.
    async fn recover(
        &self,
        plan: &Plan,
        cancel: &CancellationToken,
    ) -> Result<(RestoreReport, run::Recovered), Failure> {
        let what = format!("could not restore `{}`", self.store.name);
        let fetched = self.files(plan, &self.data(), &what, cancel).await?;
        let place = physical::place(self.context, self.config, self.store, &self.data(), Kept::No)?;
        let archive = physical::archive(self.config, self.store, self.engine)?;
        let supply = FromArchive::new(&archive, plan.backup.base.system, plan.way.size);
        let line = self.context.out.progress(format!("recovering {}", self.store.name));
        let tell = |served: &serve::Served| {
            line.phase(format!("replaying the log, file {} of {}", served.segments, served.of));
        };
        let recovered = recover(plan, &place, Arc::new(supply), &tell, cancel).await;
        Ok((
            fetched,
            recovered.map_err(|error| error::backups::failure(&what, &error))?,
        ))
    }

    /// Recovers the cluster, dumps the database that is meant, and ends the server. Also whether there is no other one.
    pub(super) async fn dump(&self, plan: &Plan, cancel: &CancellationToken) -> Result<(Here, bool), Failure> {
        let what = format!("could not restore `{}`", self.store.name);
        let failed = |error| error::backups::failure(&what, &error);
        let (fetched, server) = self.recover(plan, cancel).await?;
        let line = self.context.out.progress(format!("restoring {}", self.store.name));
        line.phase("dumping the database");
        let options = ExtractOptions {
            programs: repository::programs(self.store).map(Path::to_path_buf),
            database: self.args.database.clone(),
            globals: self.args.globals,
        };
        let extracted = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            extracted = extract(&server, &options, self.folder) => extracted,
        };
        let Extracted {
            dumped,
            dump,
            globals,
            is_alone,
        } = extracted.map_err(failed)?;
        let recovered = came(plan, &server);
        // It has told everything, and its room is wanted.
        drop(server);
        let data = self.data();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(data));
        if let Ok(Err(error)) = removed.await {
            return Err(Failure::io("could not remove the recovered cluster", &error));
        }
        let id = plan.backup.snapshot;
        let snapshot = self.engine.snapshot(&id).await.map_err(failed)?;
        let of = format!("{} {}", dumped.name, cluster::told(plan));
        let here = Here {
            record: SnapshotRecord { id, snapshot },
            options: database::options(self.args, self.context, globals, &of),
            dumped,
            dump,
            fetched,
            recovered: Some(recovered),
        };
        Ok((here, is_alone))
    }

    /// The files of the base backup.
    async fn files(
        &self,
        plan: &Plan,
        data: &Path,
        what: &str,
        cancel: &CancellationToken,
    ) -> Result<RestoreReport, Failure> {
        let failed = |error| error::backups::failure(what, &error);
        let progress = Shown::start(self.context, format!("restoring {}", self.store.name));
        let options = BaseRestore {
            owner: physical::owner(what)?,
            ..BaseRestore::default()
        };
        let base = restore_base(self.engine, &plan.backup.snapshot, data, &options, &progress, cancel);
        let unfinished = Box::pin(base).await.map_err(failed)?;
        let restored = Box::pin(unfinished.finish(self.engine, &progress, cancel)).await;
        Ok(restored.map_err(failed)?.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_through_the_shell_and_libpq_as_it_is() {
        assert_eq!(quoted("/tmp/opsctl-1.2/s"), "/tmp/opsctl-1.2/s");
        assert_eq!(quoted("two words"), "'two words'");
        assert_eq!(quoted("it's $5 `\\"), r"'it\\'s \$5 \`\\\\'");
    }
}
