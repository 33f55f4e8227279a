//! `opsctl repository copy`: snapshots, and the data that they need, into a second repository, so that no single place
//! holds all there is.

use std::sync::Arc;

use backups::copy::{self, Plan, Selection};
use backups::repo::KdfParams;
use backups::snapshots::{self, SnapshotFilter};
use backups::store::MemoryStore;
use backups::{InitOptions, Repository as Engine};
use serde::Serialize;

use crate::config::{self, Config};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, one_line, plural};
use crate::repository::{self, IfEmpty, Shown, store_tag};
use crate::target;

/// Copy snapshots into another repository
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Snapshots to copy, by id or its first digits, or `latest`; without any, all that fit the other options
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    /// The repository of opsctl.toml to copy into; it is made if there is none
    #[arg(long, value_name = "NAME")]
    to: String,

    /// The repository to copy from, instead of the environment's
    #[arg(long, value_name = "NAME")]
    from: Option<String>,

    /// Only snapshots of a datastore, or of the stores of a service
    #[arg(long, value_name = "TARGET")]
    datastore: Option<String>,

    /// Only those with this tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// Only those of this machine
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    /// Only the latest of each machine and paths
    #[arg(long)]
    latest: bool,

    /// Say what would be copied, and copy nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn help() -> String {
    format!(
        "Examples:\n  # Everything that the second repository lacks, also from cron\n  opsctl repository copy --to offsite\n\n  \
         # The latest backup of each datastore\n  opsctl repository copy --to offsite --latest\n\n\
         Data that is there already is not sent, everything that is sent is verified on the way. Cut off at any instant, the\n\
         same command goes on from there. Snapshots with damaged data are not copied and listed, the others are (exit 3).\n\
         Restic sees copies made by opsctl as its own, and the other way round.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    from: String,
    to: String,
    dry_run: bool,
    copied: Vec<Copied>,
    present: Vec<Copied>,
    damaged: Vec<Damaged>,
    blobs: u64,
    bytes: u64,
    /// Both repositories cut content alike, so that later backups there find what was copied.
    same_chunks: bool,
}

#[derive(Debug, Serialize)]
struct Copied {
    snapshot: String,
    copy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Damaged {
    snapshot: String,
    damaged: Vec<Item>,
}

#[derive(Debug, Serialize)]
struct Item {
    path: String,
    reason: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let from = repository::declared(&config, args.from.as_deref())?;
    let to = repository::declared(&config, Some(&args.to))?;
    if from.name == to.name {
        return Err(Failure::usage(
            "same_repository",
            format!("`{}` cannot be copied into itself", from.name),
        )
        .help("`--to` names another repository of opsctl.toml, `--from` the one to copy from"));
    }
    repository::cancellable(context, async |cancel| {
        let source = repository::open(context, from, IfEmpty::Fail).await?;
        let target = destination(args, context, to, &source).await?;
        let selection = selection(args, &config, &source).await?;
        let what = format!("could not copy `{}` into `{}`", from.name, to.name);
        let failed = |error: backups::Error| error::backups::failure(what.clone(), &error);
        let progress = Shown::start(context, format!("copying {} into {}", from.name, to.name));
        let plan = copy::plan(&source, &target, &selection, &progress, &cancel)
            .await
            .map_err(failed)?;
        if !plan.same_chunks {
            context.out.warn(format!(
                "`{}` and `{}` cut content in different ways: backups made into `{}` itself will not recognize what was copied there, and it takes its room twice; `opsctl repository init {} --copy-chunker-params-from {}` makes one that cuts alike",
                from.name, to.name, to.name, to.name, from.name
            ));
        }
        let mut document = Document {
            schema: "opsctl.repository_copy/v1",
            r#type: "repository_copy",
            from: from.name.clone(),
            to: to.name.clone(),
            dry_run: args.dry_run,
            copied: Vec::new(),
            present: Vec::new(),
            damaged: Vec::new(),
            blobs: 0,
            bytes: 0,
            same_chunks: plan.same_chunks,
        };
        if args.dry_run {
            drop(progress);
            document.plan(plan);
        } else {
            let report = copy::apply(&source, &target, plan, &progress, &cancel).await;
            drop(progress);
            document.report(report.map_err(failed)?);
        }
        tell(context, &document)
    })
}

/// The repository to copy into. An empty store becomes one that cuts content as the source does; on a dry run one in
/// memory stands for it.
async fn destination(
    args: &Args,
    context: &Context,
    to: &config::Repository,
    source: &Engine,
) -> Result<Engine, Failure> {
    let failed =
        |error: backups::Error| error::backups::failure(format!("could not make repository `{}`", to.name), &error);
    let store = repository::store(to)?;
    if Engine::exists(store.as_ref()).await.map_err(failed)? {
        return repository::open(context, to, IfEmpty::Fail).await;
    }
    if args.dry_run {
        context
            .out
            .note(format!("would make repository `{}` at {}", to.name, store.location()));
        let cheap = InitOptions {
            kdf: KdfParams { log_n: 4, r: 1, p: 1 },
        };
        let stand_in = Engine::init_like(Arc::new(MemoryStore::new()), "", &cheap, source).await;
        return stand_in.map_err(failed);
    }
    let password = repository::password(context, to)?;
    let made = Engine::init_like(store, password.expose(), &InitOptions::default(), source)
        .await
        .map_err(failed)?;
    context
        .out
        .done(format!("made repository `{}` at {}", to.name, made.location()));
    Ok(made)
}

async fn selection(args: &Args, config: &Config, source: &Engine) -> Result<Selection, Failure> {
    let filter = SnapshotFilter {
        host: args.host.clone(),
        tags: args.tags.clone(),
        ..SnapshotFilter::default()
    };
    let mut ids = Vec::new();
    for wanted in &args.snapshots {
        let found = snapshots::find(source, wanted, &filter).await;
        let found =
            found.map_err(|error| error::backups::failure(format!("could not find snapshot `{wanted}`"), &error))?;
        ids.push(found.id);
    }
    let any_tag = match &args.datastore {
        Some(target) => target::stores(config, Some(target))?
            .into_iter()
            .map(|store| store_tag(&store.name))
            .collect(),
        None => Vec::new(),
    };
    Ok(Selection {
        ids,
        filter,
        any_tag,
        latest: args.latest,
    })
}

impl Document {
    fn plan(&mut self, plan: Plan) {
        self.blobs = plan.snapshots.iter().map(|planned| planned.blobs).sum();
        self.bytes = plan.snapshots.iter().map(|planned| planned.bytes).sum();
        let copied = |id: &backups::Id, copy: Option<&backups::Id>| Copied {
            snapshot: id.to_string(),
            copy: copy.map(ToString::to_string),
        };
        self.copied = plan.snapshots.iter().map(|planned| copied(&planned.id, None)).collect();
        self.present = plan.present.iter().map(|(id, copy)| copied(id, Some(copy))).collect();
        self.damaged = plan.damaged.iter().map(damaged).collect();
    }

    fn report(&mut self, report: copy::Report) {
        (self.blobs, self.bytes) = (report.blobs, report.bytes);
        let copied = |(id, copy): &(backups::Id, backups::Id)| Copied {
            snapshot: id.to_string(),
            copy: Some(copy.to_string()),
        };
        self.copied = report.copied.iter().map(copied).collect();
        self.present = report.present.iter().map(copied).collect();
        self.damaged = report.damaged.iter().map(damaged).collect();
    }
}

fn damaged(snapshot: &copy::DamagedSnapshot) -> Damaged {
    let item = |file: &backups::DamagedFile| Item {
        path: file.path.display().to_string(),
        reason: file.reason.clone(),
    };
    Damaged {
        snapshot: snapshot.id.to_string(),
        damaged: snapshot.damaged.iter().map(item).collect(),
    }
}

fn tell(context: &Context, document: &Document) -> Outcome {
    context.out.answer(document, |_| {
        let mut text = String::new();
        for copied in &document.copied {
            let short = &copied.snapshot[..8];
            text.push_str(&match &copied.copy {
                Some(copy) => format!("{short} copied as {}\n", &copy[..8]),
                None => format!("{short} would be copied\n"),
            });
        }
        text
    })?;
    for snapshot in &document.damaged {
        for item in &snapshot.damaged {
            let place = if item.path.is_empty() {
                String::new()
            } else {
                format!("/{}: ", one_line(&item.path))
            };
            context.out.warn(format!(
                "{} not copied: {place}{}",
                &snapshot.snapshot[..8],
                item.reason
            ));
        }
    }
    let (verb, there) = if document.dry_run {
        ("would copy", "are there")
    } else {
        ("copied", "were there")
    };
    context.out.done(format!(
        "{verb} {} into {}: {} in {}, {} {there} already",
        plural(document.copied.len() as u64, "snapshot", "snapshots"),
        document.to,
        bytes(document.bytes),
        plural(document.blobs, "blob", "blobs"),
        document.present.len(),
    ));
    if !document.damaged.is_empty() {
        context.out.next(format!(
            "opsctl repository repair --repository {} --dry-run",
            document.from
        ));
        return Ok(Exit::Partial);
    }
    Ok(Exit::Done)
}
