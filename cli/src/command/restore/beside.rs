//! Restore without `--replace`: beside the original, or into a folder that was named. The original is never touched.

use std::fs;
use std::path::PathBuf;

use super::fetch::{Fetch, beside};
use super::{Args, at};
use crate::config::{Config, Datastore, DatastoreKind};
use crate::consent::{Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::repository::{self, IfEmpty};

/// What will be done.
struct Plan {
    /// Filled first.
    partial: PathBuf,
    /// What it is called once it is whole.
    target: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore) -> Outcome {
    let declared = repository::declared(config, args.repository.as_deref())?;
    let path = repository::path_of(store)?;
    let source = repository::source(config, store)?;
    let options = args.options()?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let (record, moment) = at::find(args, context, config, &engine, store).await?;
        let short = moment.as_ref().map_or_else(|| record.id.short(), at::Found::name);
        let plan = if let Some(into) = &args.into {
            let into = context.absolute(into);
            Plan {
                partial: into.clone(),
                target: into,
            }
        } else {
            let target = beside(&path, &format!("restored-{short}"));
            if target.symlink_metadata().is_ok() {
                return Err(
                    Failure::refused("exists", format!("`{}` exists already", context.shown(&target)))
                        .cause("an earlier restore of this snapshot is there")
                        .help("use it, remove it, or restore elsewhere with `--into FOLDER`"),
                );
            }
            Plan {
                partial: beside(&path, &format!("restoring-{short}")),
                target,
            }
        };
        if args.dry_run {
            context.out.line(&format!(
                "would restore {} {} into {}",
                store.name,
                at::told(&record, moment.as_ref()),
                context.shown(&plan.target)
            ))?;
            return Ok(Exit::Done);
        }
        let plan = consent(args, context, config, store, plan)?;

        let fetch = Fetch {
            engine: &engine,
            store,
            source: source.as_ref(),
            record: &record,
            moment: moment.as_ref(),
            options,
            is_whole: args.wants_all(),
            folder: plan.partial.clone(),
        };
        let mut document = fetch.run(context, &cancel).await?;
        if plan.partial != plan.target {
            fs::rename(&plan.partial, &plan.target)
                .map_err(|error| Failure::io(format!("could not finish `{}`", context.shown(&plan.target)), &error))?;
        }
        document.target = plan.target.display().to_string();
        context
            .out
            .answer(&document, |_| format!("{}\n", plan.target.display()))?;
        document.warn(context);
        context.out.done(document.summary());
        if store.kind == DatastoreKind::Postgres && !document.is_partial() {
            context.out.next(format!(
                "opsctl restore {} --into NAME --snapshot {}   (makes a new database of it)",
                store.name,
                record.id.short()
            ));
        } else if args.into.is_none() && args.wants_all() && store.command.is_none() && !document.is_partial() {
            let elsewhere = args
                .repository
                .as_ref()
                .map_or_else(String::new, |name| format!(" --repository {name}"));
            context.out.next(format!(
                "opsctl restore {}{elsewhere} --replace {}   (puts it in place of the original)",
                store.name,
                at::words(&record, moment.as_ref())
            ));
        }
        Ok(if document.is_partial() {
            Exit::Partial
        } else {
            Exit::Done
        })
    })
}

/// Beside and into an empty place nothing is asked; into a folder that holds something it is, and in a protected
/// environment for every `--into`.
fn consent(args: &Args, context: &Context, config: &Config, store: &Datastore, plan: Plan) -> Result<Plan, Failure> {
    let Some(_) = &args.into else { return Ok(plan) };
    let occupied = fs::read_dir(&plan.target).is_ok_and(|mut entries| entries.next().is_some());
    let stake = Stake {
        question: if occupied {
            format!(
                "`{}` is not empty: replace files in it by those of `{}`?",
                context.shown(&plan.target),
                store.name
            )
        } else {
            format!("restore `{}` into `{}`?", store.name, context.shown(&plan.target))
        },
        name: &store.name,
        consequence: if occupied {
            Consequence::ReplacesData
        } else {
            Consequence::UndoneByItself
        },
        protected: config.protected(),
    };
    Ok(approve(context, &args.consent, plan, &stake)?.into_plan())
}
