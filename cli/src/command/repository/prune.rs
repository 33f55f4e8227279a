//! `opsctl repository prune`: gives back the space of what no snapshot needs, in two steps: marked now, deleted by a
//! later prune. Also what `forget --prune` does.

use std::time::Duration;

use backups::Repository as Engine;
use backups::prune::{self, Amount, MaxUnused, PruneFigures, PruneOptions, PruneReport};
use jiff::SignedDuration;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, plural};
use crate::repository::{self, IfEmpty, Shown};

/// Give back the space of what no snapshot needs
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Which one of opsctl.toml, instead of the environment's
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    limits: Limits,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

/// How far a prune goes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Limits {
    /// How long packs stay after nothing needs them
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "24h")]
    grace: Duration,

    /// Waste that may stay in packs that are needed in part: a share, a size, or `unlimited`
    #[arg(long, value_name = "LIMIT", value_parser = max_unused, default_value = "5%")]
    max_unused: MaxUnused,

    /// Store at most so much anew, for example 10GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_repack_size: Option<u64>,
}

impl Default for Limits {
    /// What the flags are where they are not given.
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(24),
            max_unused: MaxUnused::Share(0.05),
            max_repack_size: None,
        }
    }
}

impl Limits {
    fn options(&self, context: &Context) -> PruneOptions {
        PruneOptions {
            grace: SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX),
            max_unused: self.max_unused,
            max_repack: self.max_repack_size,
            ..PruneOptions::new(context.now())
        }
    }
}

fn max_unused(text: &str) -> Result<MaxUnused, String> {
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    let Some(share) = text.strip_suffix('%') else {
        return size(text).map(MaxUnused::Bytes);
    };
    match share.trim().parse::<f64>() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(MaxUnused::Share(share / 100.0)),
        _ => Err("expected a share such as 5%, a size such as 2GiB, or `unlimited`".to_owned()),
    }
}

/// A number of bytes: `500MiB`, `2G`. Units are powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a size such as 500MiB or 2GiB".to_owned())
}

fn help() -> String {
    format!(
        "Examples:\n  # After every `forget`; what it marks is deleted by the next prune that is a day later\n  \
         opsctl repository prune\n\n  # What it would do\n  opsctl repository prune --dry-run\n\n\
         Backups cannot run meanwhile (8). Packs are marked first and deleted once the grace is over by the store's\n\
         clock, so that a backup whose machine slept loses nothing; --grace 0s deletes at once. Cut at any instant\n\
         every snapshot is whole, and the next prune does the rest. 4: damaged packs were found and left alone.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

/// What a prune did or would do, in documents.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    schema: &'static str,
    r#type: &'static str,
    repository: String,
    dry_run: bool,
    snapshots: u64,
    kept: Told,
    recovered: Told,
    repacked: Told,
    rewritten_bytes: u64,
    marked: Told,
    waiting: Told,
    deleted: Told,
    unindexed: Told,
    missing_packs: u64,
    unused_bytes: u64,
    replaced_index_files: u64,
    written: Told,
    deleted_changes: u64,
    aborted_uploads: u64,
    damaged: Vec<String>,
    /// What has waste was left as it is, for want of room.
    no_room: bool,
}

#[derive(Debug, Serialize)]
struct Told {
    packs: u64,
    bytes: u64,
}

impl From<Amount> for Told {
    fn from(Amount { packs, bytes }: Amount) -> Self {
        Self { packs, bytes }
    }
}

impl Document {
    fn new(repository: &str, dry_run: bool, report: &PruneReport) -> Self {
        let figures = &report.figures;
        Self {
            schema: "opsctl.prune/v1",
            r#type: if dry_run { "prune_plan" } else { "prune" },
            repository: repository.to_owned(),
            dry_run,
            snapshots: figures.snapshots,
            kept: figures.kept.into(),
            recovered: figures.recovered.into(),
            repacked: figures.repacked.into(),
            rewritten_bytes: figures.rewritten,
            marked: figures.marked.into(),
            waiting: figures.waiting.into(),
            deleted: figures.deleted.into(),
            unindexed: figures.unindexed.into(),
            missing_packs: figures.missing,
            unused_bytes: figures.unused,
            replaced_index_files: figures.index_files,
            written: report.new_packs.into(),
            deleted_changes: report.changes,
            aborted_uploads: report.uploads,
            damaged: report.damaged.iter().map(ToString::to_string).collect(),
            no_room: report.no_room,
        }
    }

    /// The lines for people.
    pub(super) fn text(&self) -> String {
        let packs = |told: &Told| format!("{}, {}", plural(told.packs, "pack", "packs"), bytes(told.bytes));
        let would = if self.dry_run { "would be " } else { "" };
        let rows = [
            ("kept", &self.kept, ""),
            ("recovered", &self.recovered, " needed again after they were marked"),
            ("repacked", &self.repacked, " with waste or small, and marked"),
            ("marked", &self.marked, " that nothing needs"),
            ("deleted", &self.deleted, " whose grace is over"),
        ];
        let mut text = String::new();
        for (word, told, why) in rows {
            if told.packs > 0 || word == "kept" {
                text.push_str(&format!("{would}{word}: {}{why}\n", packs(told)));
            }
        }
        for (told, why) in [
            (&self.waiting, "marked earlier"),
            (&self.unindexed, "left by backups that did not end"),
        ] {
            if told.packs > 0 {
                text.push_str(&format!("waiting: {} {why}, not yet old enough\n", packs(told)));
            }
        }
        if self.deleted_changes > 0 {
            let objects = plural(self.deleted_changes, "object", "objects");
            text.push_str(&format!(
                "deleted: {objects} of changes after snapshots that are gone\n"
            ));
        }
        if self.aborted_uploads > 0 {
            let uploads = plural(self.aborted_uploads, "upload", "uploads");
            text.push_str(&format!("aborted: {uploads} that were never finished\n"));
        }
        for damaged in &self.damaged {
            text.push_str(&format!(
                "damaged: pack {}, left alone\n",
                &damaged[..8.min(damaged.len())]
            ));
        }
        text
    }

    /// Whether damage was found.
    pub(super) fn exit(&self) -> Exit {
        if self.damaged.is_empty() { Exit::Done } else { Exit::No }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let declared = repository::declared(&config, args.name.as_deref())?;
    if !args.dry_run {
        let stake = Stake {
            question: format!("delete from repository `{}` what no snapshot needs?", declared.name),
            name: &declared.name,
            consequence: Consequence::UndoneByItself,
            protected: config.protected(),
        };
        approve(context, &args.consent, (), &stake)?.into_plan();
    }
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let document = prune(context, &args.limits, &engine, &declared.name, args.dry_run, &cancel).await?;
        context.out.answer(&document, |_| document.text())?;
        for damaged in &document.damaged {
            context
                .out
                .warn(format!("pack {damaged} is damaged and was left alone"));
        }
        if !document.damaged.is_empty() {
            context.out.next("opsctl repository check --read-data");
        }
        Ok(document.exit())
    })
}

/// Prunes, or says what would be done. Consent was given.
pub(super) async fn prune(
    context: &Context,
    limits: &Limits,
    engine: &Engine,
    name: &str,
    dry_run: bool,
    cancel: &CancellationToken,
) -> Result<Document, Failure> {
    let options = limits.options(context);
    let progress = Shown::start(context, format!("pruning {name}"));
    let report = if dry_run {
        let preview = prune::preview(engine, &options, &progress, cancel).await;
        preview.map(|figures: PruneFigures| PruneReport {
            figures,
            ..PruneReport::default()
        })
    } else {
        match prune::plan(engine, &options, &progress, cancel).await {
            Ok(plan) => plan.apply(&progress, cancel).await,
            Err(error) => Err(error),
        }
    };
    drop(progress);
    let report =
        report.map_err(|error| error::backups::failure(format!("could not prune repository `{name}`"), &error))?;
    if report.no_room {
        context.out.warn(format!(
            "there was no room to store anew what is needed of packs with waste; what nothing needs was {}: prune once more when there is room",
            if report.figures.deleted.packs > 0 { "deleted" } else { "marked" }
        ));
    }
    Ok(Document::new(name, dry_run, &report))
}

#[cfg(test)]
mod tests {
    use super::{MaxUnused, max_unused, size};

    #[test]
    fn sizes_and_limits_are_read() {
        assert_eq!(size("500MiB"), Ok(500 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("17"), Ok(17));
        assert_eq!(max_unused("5%"), Ok(MaxUnused::Share(0.05)));
        assert_eq!(max_unused("0"), Ok(MaxUnused::Bytes(0)));
        assert_eq!(max_unused("unlimited"), Ok(MaxUnused::Unlimited));
        for wrong in [
            "",
            "GiB",
            "-1",
            "1.5x",
            "99999999999999999999",
            "17000000T",
            "101%",
            "x%",
        ] {
            assert!(max_unused(wrong).is_err(), "{wrong}");
        }
    }
}
