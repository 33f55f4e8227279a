//! `opsctl repository repair`: puts right what `check` found, as far as it can be: from the packs, and from a second
//! repository.

use backups::Id;
use backups::repair::{self, Plan, RepairOptions, Report, Scope};
use clap::ValueEnum;
use serde::Serialize;

use crate::config;
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, one_line, plural};
use crate::repository::{self, IfEmpty, Shown};

/// Repair what a check found damaged
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// What to repair; without it everything, in the right order
    #[arg(value_enum)]
    part: Option<Part>,

    /// With `packs`: only these, instead of reading all
    #[arg(value_name = "PACK")]
    packs: Vec<Id>,

    /// Which repository of opsctl.toml, instead of the environment's
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,

    /// A second repository of opsctl.toml, from which data that is lost here is taken
    #[arg(long, value_name = "NAME")]
    from: Option<String>,

    /// Remove damaged snapshots once they are stored without what is lost, and those of which nothing is left
    #[arg(long)]
    forget: bool,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

/// What to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The index, from the headers of the packs
    Index,
    /// Damaged packs: what of them is good is stored again, they are moved to `damaged/`
    Packs,
    /// Snapshots that lost something: they are stored again without it
    Snapshots,
}

fn help() -> String {
    format!(
        "Examples:\n  # What is damaged, and what can be done about it\n  opsctl repository repair --dry-run\n\n  \
         # Repair everything, with lost data taken from a copy\n  opsctl repository repair --from offsite\n\n\
         Nothing is deleted that cannot be made again: damaged packs and snapshots are kept in `damaged/` of the repository.\n\
         A file of which a part is lost for good is left out of the snapshot as a whole and listed; the new snapshot has the\n\
         tag `repaired`, and the old one stays unless `--forget` is given. Exit 3: something stays lost.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Refused,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let declared = repository::declared(&config, args.repository.as_deref())?;
    let second = args
        .from
        .as_deref()
        .map(|name| repository::declared(&config, Some(name)));
    let second = second.transpose()?;
    if second.is_some_and(|second| second.name == declared.name) {
        return Err(Failure::usage(
            "same_repository",
            format!("`{}` cannot be repaired from itself", declared.name),
        )
        .help("`--from` names another repository of opsctl.toml"));
    }
    let options = RepairOptions {
        scope: scope(args)?,
        forget: args.forget,
    };
    let what = format!("could not repair repository `{}`", declared.name);
    let failed = |error: backups::Error| error::backups::failure(what.clone(), &error);
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let second = match second {
            Some(second) => Some(repository::open(context, second, IfEmpty::Fail).await?),
            None => None,
        };
        let progress = Shown::start(context, format!("looking at {}", declared.name));
        let plan = repair::plan(&engine, second.as_ref(), &options, &progress, &cancel).await;
        drop(progress);
        let plan = plan.map_err(failed)?;
        let mut document = Document::new(&declared.name, &plan, args.dry_run);
        if args.dry_run || plan.is_empty() {
            context.out.answer(&document, |_| document.told())?;
            if plan.is_empty() {
                context.out.done(if plan.leaves_damage() {
                    "nothing more can be repaired"
                } else {
                    "there is nothing to repair"
                });
            }
            return Ok(if plan.leaves_damage() {
                Exit::Partial
            } else {
                Exit::Done
            });
        }
        context.out.say(document.told().trim_end());
        let stake = Stake {
            question: format!("repair `{}` in this way?", declared.name),
            name: &declared.name,
            consequence: Consequence::ReplacesData,
            protected: config.protected(),
        };
        let plan = approve(context, &args.consent, plan, &stake)?.into_plan();
        let leaves_damage = plan.leaves_damage();
        let progress = Shown::start(context, format!("repairing {}", declared.name));
        let report = repair::apply(&engine, second.as_ref(), plan, &progress, &cancel).await;
        drop(progress);
        let report = report.map_err(failed)?;
        document.done = Some(Done::new(&report));
        context.out.answer(&document, |_| document.done_told())?;
        let partial = leaves_damage || !report.lost.is_empty() || !report.unsettled.is_empty();
        if partial {
            context
                .out
                .warn("something stays lost; `opsctl repository repair --dry-run` lists it");
        } else {
            context.out.done(format!("repaired {}", declared.name));
        }
        context.out.next("opsctl repository check --read-data");
        Ok(if partial { Exit::Partial } else { Exit::Done })
    })
}

fn scope(args: &Args) -> Result<Scope, Failure> {
    match args.part {
        Some(Part::Packs) => Ok(Scope::Packs(args.packs.clone())),
        _ if !args.packs.is_empty() => Err(Failure::usage(
            "usage",
            "packs are named with `repository repair packs` alone",
        )),
        Some(Part::Index) => Ok(Scope::Index),
        Some(Part::Snapshots) => Ok(Scope::Snapshots),
        None => Ok(Scope::All),
    }
}

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    repository: String,
    dry_run: bool,
    damaged_indexes: Vec<Damaged>,
    replaced_indexes: Vec<String>,
    found_packs: Vec<String>,
    missing_packs: Vec<String>,
    damaged_packs: Vec<Pack>,
    rescued_blobs: u64,
    fetched_blobs: u64,
    snapshots: Vec<Cut>,
    unreadable_snapshots: Vec<Unreadable>,
    read_bytes: u64,
    /// What was done; nothing on a dry run.
    done: Option<Done>,
}

#[derive(Debug, Serialize)]
struct Damaged {
    id: String,
    damage: String,
}

#[derive(Debug, Serialize)]
struct Pack {
    id: String,
    damage: String,
    good_blobs: u64,
    damaged_blobs: u64,
    isolated: bool,
}

#[derive(Debug, Serialize)]
struct Cut {
    snapshot: String,
    rewritten: bool,
    removed: bool,
    lost: Vec<Lost>,
}

#[derive(Debug, Serialize)]
struct Lost {
    path: String,
    directory: bool,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Unreadable {
    snapshot: String,
    damage: String,
    copy: Option<String>,
    isolated: bool,
}

#[derive(Debug, Serialize)]
struct Done {
    rescued_blobs: u64,
    fetched_blobs: u64,
    lost: Vec<String>,
    indexes_written: u64,
    indexes_removed: u64,
    isolated: Vec<Isolated>,
    rewritten: Vec<Rewritten>,
    restored: Vec<Rewritten>,
    removed: Vec<String>,
    unsettled: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Isolated {
    object: String,
    place: String,
}

#[derive(Debug, Serialize)]
struct Rewritten {
    snapshot: String,
    by: String,
}

fn names(ids: &[Id]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

impl Document {
    fn new(repository: &str, plan: &Plan, dry_run: bool) -> Self {
        Self {
            schema: "opsctl.repository_repair/v1",
            r#type: "repository_repair",
            repository: repository.to_owned(),
            dry_run,
            damaged_indexes: plan
                .damaged_indexes
                .iter()
                .map(|(id, damage)| Damaged {
                    id: id.to_string(),
                    damage: damage.to_string(),
                })
                .collect(),
            replaced_indexes: names(&plan.replaced_indexes),
            found_packs: names(&plan.found_packs),
            missing_packs: names(&plan.missing_packs),
            damaged_packs: plan
                .damaged_packs
                .iter()
                .map(|pack| Pack {
                    id: pack.id.to_string(),
                    damage: pack.damage.to_string(),
                    good_blobs: pack.good,
                    damaged_blobs: pack.bad,
                    isolated: pack.isolated,
                })
                .collect(),
            rescued_blobs: plan.rescued,
            fetched_blobs: plan.fetched,
            snapshots: plan.snapshots.iter().map(cut).collect(),
            unreadable_snapshots: plan
                .unreadable_snapshots
                .iter()
                .map(|snapshot| Unreadable {
                    snapshot: snapshot.id.to_string(),
                    damage: snapshot.damage.to_string(),
                    copy: snapshot.copy.map(|copy| copy.to_string()),
                    isolated: snapshot.isolated,
                })
                .collect(),
            read_bytes: plan.bytes_read,
            done: None,
        }
    }

    /// The plan, one line an item.
    fn told(&self) -> String {
        let mut lines = Vec::new();
        for index in &self.damaged_indexes {
            lines.push(format!(
                "index file {} is {}: written anew from the packs",
                short(&index.id),
                index.damage
            ));
        }
        for index in &self.replaced_indexes {
            lines.push(format!(
                "index file {} is wrong about packs: written anew",
                short(index)
            ));
        }
        for pack in &self.found_packs {
            lines.push(format!("pack file {} is in no index: taken up", short(pack)));
        }
        for pack in &self.missing_packs {
            lines.push(format!("pack file {} is gone: no longer named", short(pack)));
        }
        for pack in &self.damaged_packs {
            lines.push(if pack.isolated {
                format!(
                    "pack file {} is {}: {} of {} saved from it, then moved to damaged/",
                    short(&pack.id),
                    pack.damage,
                    pack.good_blobs,
                    plural(pack.good_blobs + pack.damaged_blobs, "blob", "blobs"),
                )
            } else {
                format!(
                    "pack file {} is {}: left alone, see `repair packs`",
                    short(&pack.id),
                    pack.damage
                )
            });
        }
        if self.fetched_blobs > 0 {
            lines.push(format!(
                "{} taken from the second repository",
                plural(self.fetched_blobs, "lost blob is", "lost blobs are")
            ));
        }
        for snapshot in &self.unreadable_snapshots {
            let what = match (&snapshot.copy, snapshot.isolated) {
                (_, false) => "left alone",
                (Some(_), true) => "taken from the second repository, the damaged file moved to damaged/",
                (None, true) => "lost, the file moved to damaged/",
            };
            lines.push(format!(
                "snapshot {} is {}: {what}",
                short(&snapshot.snapshot),
                snapshot.damage
            ));
        }
        for snapshot in &self.snapshots {
            let what = match (snapshot.rewritten, snapshot.removed) {
                (true, true) => "stored again without it, the old one removed",
                (true, false) => "stored again without it, the old one kept",
                (false, true) => "removed",
                (false, false) => "left alone",
            };
            lines.push(format!(
                "snapshot {} has lost {}: {what}",
                short(&snapshot.snapshot),
                plural(snapshot.lost.len() as u64, "item", "items")
            ));
            for lost in &snapshot.lost {
                let kind = if lost.directory { "directory " } else { "" };
                lines.push(format!("  lost: {kind}/{} ({})", one_line(&lost.path), lost.reason));
            }
        }
        if self.read_bytes > 0 {
            lines.push(format!("{} read", bytes(self.read_bytes)));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// What was done, one line an item.
    fn done_told(&self) -> String {
        let Some(done) = &self.done else {
            return String::new();
        };
        let mut lines = Vec::new();
        for (count, what) in [
            (done.rescued_blobs, "saved from damaged packs"),
            (done.fetched_blobs, "taken from the second repository"),
        ] {
            if count > 0 {
                lines.push(format!("{} {what}", plural(count, "blob", "blobs")));
            }
        }
        for lost in &done.lost {
            lines.push(format!("{lost} is lost"));
        }
        for isolated in &done.isolated {
            lines.push(format!("{} is now {}", isolated.object, isolated.place));
        }
        for rewritten in &done.rewritten {
            lines.push(format!(
                "snapshot {} was stored again as {}",
                short(&rewritten.snapshot),
                short(&rewritten.by)
            ));
        }
        for restored in &done.restored {
            lines.push(format!(
                "snapshot {} was taken from the second repository as {}",
                short(&restored.snapshot),
                short(&restored.by)
            ));
        }
        for removed in &done.removed {
            lines.push(format!("snapshot {} was removed", short(removed)));
        }
        for unsettled in &done.unsettled {
            lines.push(format!(
                "snapshot {} has lost more than the plan said, and was left alone",
                short(unsettled)
            ));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

fn short(id: &str) -> &str {
    &id[..8.min(id.len())]
}

fn cut(snapshot: &repair::DamagedSnapshot) -> Cut {
    let lost = |item: &repair::LostItem| Lost {
        path: item.path.display().to_string(),
        directory: item.directory,
        reason: item.reason.clone(),
    };
    Cut {
        snapshot: snapshot.id.to_string(),
        rewritten: snapshot.rewritten,
        removed: snapshot.removed,
        lost: snapshot.lost.iter().map(lost).collect(),
    }
}

impl Done {
    fn new(report: &Report) -> Self {
        let pairs = |pairs: &[(Id, Id)]| {
            let pair = |(snapshot, by): &(Id, Id)| Rewritten {
                snapshot: snapshot.to_string(),
                by: by.to_string(),
            };
            pairs.iter().map(pair).collect()
        };
        Self {
            rescued_blobs: report.rescued,
            fetched_blobs: report.fetched,
            lost: report.lost.iter().map(ToString::to_string).collect(),
            indexes_written: report.indexes_written,
            indexes_removed: report.indexes_removed,
            isolated: report
                .isolated
                .iter()
                .map(|(object, place)| Isolated {
                    object: object.to_string(),
                    place: place.clone(),
                })
                .collect(),
            rewritten: pairs(&report.rewritten),
            restored: pairs(&report.restored),
            removed: names(&report.removed),
            unsettled: names(&report.unsettled),
        }
    }
}
