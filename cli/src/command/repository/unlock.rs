//! `opsctl repository unlock`: removes locks that nobody is behind any more; with `--all` also living ones.

use backups::Id;
use backups::repo::{FoundLock, LockState, locks, remove_locks};
use serde::Serialize;

use crate::config;
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table, plural, seconds};
use crate::repository::{self, IfEmpty};

/// Remove locks that dead processes left
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Which one of opsctl.toml, instead of the environment's
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Remove all locks, also those of backups that run
    #[arg(long)]
    all: bool,

    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # Who holds the repository\n  opsctl repository unlock --dry-run\n\n\
         Stale is the lock of a process of this machine that is gone, and one that was not renewed for 30 minutes by the\n\
         store's clock; every command takes those away by itself. Whoever loses a living lock ends with an error\n\
         and makes no snapshot.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::Refused])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    repository: String,
    dry_run: bool,
    locks: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    lock: String,
    host: Option<String>,
    pid: Option<u32>,
    user: Option<String>,
    since: Option<jiff::Timestamp>,
    exclusive: Option<bool>,
    age_seconds: f64,
    state: &'static str,
    /// Removed, or under `--dry-run` to be removed.
    removed: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let declared = repository::declared(&config, args.name.as_deref())?;
    context.block_on(async {
        let failed =
            |error| error::backups::failure(format!("could not unlock repository `{}`", declared.name), &error);
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let found = locks(&engine, context.now()).await.map_err(failed)?;
        let goes = |lock: &FoundLock| args.all || lock.is_stale();
        let mut going: Vec<Id> = found.iter().filter(|lock| goes(lock)).map(|lock| lock.id).collect();
        let living = found.iter().filter(|lock| goes(lock) && !lock.is_stale()).count() as u64;
        if !args.dry_run {
            if living > 0 {
                let stake = Stake {
                    question: format!(
                        "remove {} of repository `{}` whose processes may run?",
                        plural(living, "lock", "locks"),
                        declared.name
                    ),
                    name: &declared.name,
                    consequence: Consequence::ReplacesData,
                    protected: config.protected(),
                };
                going = approve(context, &args.consent, going, &stake)?.into_plan();
            }
            remove_locks(&engine, &going).await.map_err(failed)?;
        }
        let document = Document {
            schema: "opsctl.unlock/v1",
            r#type: if args.dry_run { "unlock_plan" } else { "unlock" },
            repository: declared.name.clone(),
            dry_run: args.dry_run,
            locks: found.iter().map(|lock| told(lock, going.contains(&lock.id))).collect(),
        };
        context.out.answer(&document, |paint| {
            let mut table = Table::new(&["lock", "holder", "age", "state", "action"]);
            for told in &document.locks {
                let holder = match (&told.user, told.pid, &told.host) {
                    (Some(user), Some(pid), Some(host)) => format!("{user}@{host}, process {pid}"),
                    _ => "unknown".to_owned(),
                };
                let action = if told.removed { "removed" } else { "left alone" };
                table.styled(vec![
                    (told.lock[..8].to_owned(), Some(Style::Hint)),
                    (holder, None),
                    (seconds(told.age_seconds), None),
                    (told.state.to_owned(), None),
                    (action.to_owned(), None),
                ]);
            }
            table.render(paint, context.out.width)
        })?;
        if !args.dry_run {
            let removed = plural(going.len() as u64, "lock", "locks");
            context
                .out
                .done(format!("removed {removed} of repository `{}`", declared.name));
        }
        Ok(Exit::Done)
    })
}

fn told(lock: &FoundLock, removed: bool) -> Told {
    let holder = lock.holder.as_ref();
    Told {
        lock: lock.id.to_string(),
        host: holder.map(|holder| holder.host.clone()),
        pid: holder.map(|holder| holder.pid),
        user: holder.map(|holder| holder.username.clone()),
        since: holder.map(|holder| holder.since),
        exclusive: holder.map(|holder| holder.exclusive),
        age_seconds: lock.age.as_secs_f64().max(0.0),
        state: match lock.state {
            LockState::Alive => "alive",
            LockState::ProcessGone => "process gone",
            LockState::NotRenewed => "not renewed",
            LockState::Unreadable(_) => "unreadable",
        },
        removed,
    }
}
