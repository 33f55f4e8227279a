//! `opsctl repository forget`: removes the snapshots that `keep` of their datastores does not keep, or those named. Their
//! data goes with the prunes that follow.

use std::collections::BTreeSet;
use std::time::Duration;

use backups::forget::{self, ForgetOptions, ForgetPlan, Which};
use backups::retention::{Policy, Slot};
use backups::snapshots::{self, SnapshotFilter};
use backups::{Id, Repository as Engine};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::prune::{self, Limits};
use crate::config::{self, Config};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Paint, Style, Table, plural};
use crate::repository::{self, IfEmpty, Shown, environment_tag, store_tag};
use crate::target;

/// Remove snapshots that need not be kept
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// These, by the first digits of their ids; else what no rule keeps
    #[arg(value_name = "SNAPSHOT", conflicts_with = "target")]
    snapshots: Vec<String>,

    /// Only those of a datastore or of a service's stores
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,

    /// Another repository than the environment's
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,

    #[command(flatten)]
    keep: KeepArgs,

    /// Where days begin at midnight, as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = zone)]
    time_zone: TimeZone,

    /// Prune afterwards, as `repository prune` does
    #[arg(long)]
    prune: bool,

    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

/// A policy in flags; given, it replaces `keep` of the datastores.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::struct_field_names, reason = "clap names the flags after the fields")]
struct KeepArgs {
    /// Keep the newest N, whatever opsctl.toml says
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// The newest of each of the last N hours with one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// The newest of each of the last N days with one
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// The newest of each of the last N weeks with one
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// The newest of each of the last N months with one
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// The newest of each of the last N years with one
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    /// All made within this time before the newest
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    keep_within: Option<Duration>,
    /// One an hour within this time before the newest
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
    keep_within_hourly: Option<Duration>,
    /// One a day within this time before the newest
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
    keep_within_daily: Option<Duration>,
    /// One a week within this time before the newest
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
    keep_within_weekly: Option<Duration>,
    /// One a month within this time before the newest
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
    keep_within_monthly: Option<Duration>,
    /// One a year within this time before the newest
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
    keep_within_yearly: Option<Duration>,
    /// All with this tag
    #[arg(long = "keep-tag", value_name = "TAG")]
    keep_tags: Vec<String>,
}

impl KeepArgs {
    /// The policy, if any of it was typed. One that keeps nothing is the engine's to refuse.
    fn policy(&self) -> Option<Policy> {
        let span = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let spans = [
            None,
            self.keep_within_hourly,
            self.keep_within_daily,
            self.keep_within_weekly,
            self.keep_within_monthly,
            self.keep_within_yearly,
        ];
        let typed = counts.iter().any(Option::is_some);
        let policy = Policy {
            counts: Slot::ALL
                .into_iter()
                .zip(counts)
                .filter_map(|(slot, count)| Some((slot, count?)))
                .collect(),
            within: self.keep_within.map(span),
            slots_within: Slot::ALL
                .into_iter()
                .zip(spans)
                .filter_map(|(slot, of)| Some((slot, span(of?))))
                .collect(),
            tags: self.keep_tags.clone(),
        };
        (typed || !policy.is_empty()).then_some(policy)
    }
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| "expected the name of a time zone, such as UTC or Europe/Berlin".to_owned())
}

fn help() -> String {
    format!(
        "Examples:\n  # What `backup.keep` of every datastore says, then give back the space\n  \
         opsctl repository forget --prune --yes\n\n  # What another policy would remove\n  \
         opsctl repository forget --target orders-db --keep-daily 7 --keep-monthly 12 --dry-run\n\n  \
         # One snapshot\n  opsctl repository forget 7f3a91c2\n\n\
         Flags with --keep replace `backup.keep` of opsctl.toml. Everything that any rule keeps stays; weeks are those of\n\
         ISO 8601. The newest snapshot that lacks nothing and the newest that a restore drill proved always stay, and\n\
         those that lack something or are not proved push out none that are. Times are the store's: a snapshot that\n\
         claims to be younger than its file counts as old as the file.\n\
         Snapshots of no datastore of the environment are left alone unless named.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::No,
            Exit::Refused,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    environment: String,
    repository: String,
    dry_run: bool,
    actor: String,
    reason: Option<String>,
    groups: Vec<Group>,
    removed: Vec<String>,
    unreadable: Vec<String>,
    prune: Option<prune::Document>,
}

#[derive(Serialize)]
struct Group {
    group: String,
    snapshots: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    snapshot: String,
    time: jiff::Timestamp,
    keep: bool,
    reasons: Vec<String>,
}

/// Snapshots that a restore drill proved.
async fn proved(engine: &Engine, what: &str) -> Result<BTreeSet<Id>, Failure> {
    backups::proof::proved(engine)
        .await
        .map_err(|error| error::backups::failure(what, &error))
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let declared = repository::declared(&config, args.repository.as_deref())?;
    let what = format!("could not forget snapshots of repository `{}`", declared.name);
    let policies = if args.snapshots.is_empty() {
        policies(args, context, &config)?
    } else {
        Vec::new()
    };
    repository::cancellable(context, async |cancel| {
        let failed = |error| error::backups::failure(what.clone(), &error);
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let which = if args.snapshots.is_empty() {
            Which::Policies(policies)
        } else {
            let mut ids = Vec::new();
            for wanted in &args.snapshots {
                let found = snapshots::find(&engine, wanted, &SnapshotFilter::default()).await;
                ids.push(found.map_err(failed)?.id);
            }
            Which::Snapshots(ids)
        };
        let options = ForgetOptions {
            which,
            proved: proved(&engine, &what).await?,
            zone: args.time_zone.clone(),
        };
        let plan = forget::plan(&engine, &options).await.map_err(failed)?;
        let mut document = document(args, context, &config, &declared.name, &plan);
        if !args.dry_run {
            let count = plan.removed().count() as u64;
            if count > 0 || args.prune {
                if !context.out.json && context.interactive() {
                    context.out.say(table(&document, context.out.stderr, None).trim_end());
                }
                let snapshots = plural(count, "snapshot", "snapshots");
                let stake = Stake {
                    question: format!("remove {snapshots} from repository `{}`?", declared.name),
                    name: &declared.name,
                    consequence: Consequence::ReplacesData,
                    protected: config.protected(),
                };
                let plan = approve(context, &args.consent, plan, &stake)?.into_plan();
                let progress = Shown::start(context, format!("forgetting snapshots of {}", declared.name));
                let removed = forget::apply(&engine, &options, &plan, &progress, &cancel).await;
                drop(progress);
                document.removed = removed.map_err(failed)?.iter().map(ToString::to_string).collect();
            }
        }
        if args.prune {
            document.prune = Some(prune_after(args, context, &engine, &declared.name, &cancel).await?);
        }
        conclude(context, &document)
    })
}

/// Each datastore with what is kept of it: the flags, else its `keep`.
fn policies(args: &Args, context: &Context, config: &Config) -> Result<Vec<(SnapshotFilter, Policy)>, Failure> {
    let typed = args.keep.policy();
    let mut policies = Vec::new();
    for store in target::stores(config, args.target.as_deref())? {
        let Some(policy) = typed.clone().or_else(|| store.keep.clone()) else {
            context
                .out
                .detail(format!("`{}` has no `keep`: all its snapshots stay", store.name));
            continue;
        };
        let filter = SnapshotFilter {
            tags: vec![store_tag(&store.name), environment_tag(&config.environment.name)],
            ..SnapshotFilter::default()
        };
        policies.push((filter, policy));
    }
    if policies.is_empty() {
        return Err(Failure::usage("no_policy", "nothing says which snapshots to keep")
            .help("set `backup.keep` of the datastore in opsctl.toml, for example { within = \"35d\", monthly = 12 }, or type `--keep-daily 7`"));
    }
    Ok(policies)
}

async fn prune_after(
    args: &Args,
    context: &Context,
    engine: &Engine,
    name: &str,
    cancel: &CancellationToken,
) -> Result<prune::Document, Failure> {
    prune::prune(context, &Limits::default(), engine, name, args.dry_run, cancel).await
}

fn document(args: &Args, context: &Context, config: &Config, repository: &str, plan: &ForgetPlan) -> Document {
    let groups = plan.groups.iter().map(|group| Group {
        group: group.key.to_string(),
        snapshots: group
            .decisions
            .iter()
            .map(|decision| Told {
                snapshot: decision.candidate.id.to_string(),
                time: decision.counted,
                keep: decision.is_kept(),
                reasons: decision.reasons.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    });
    Document {
        schema: "opsctl.forget/v1",
        r#type: if args.dry_run { "forget_plan" } else { "forget" },
        environment: config.environment.name.clone(),
        repository: repository.to_owned(),
        dry_run: args.dry_run,
        actor: context.actor(),
        reason: args.consent.reason.clone(),
        groups: groups.collect(),
        removed: Vec::new(),
        unreadable: plan
            .unreadable
            .iter()
            .map(|(id, damage)| format!("{id} is {damage}"))
            .collect(),
        prune: None,
    }
}

fn table(document: &Document, paint: Paint, width: Option<usize>) -> String {
    let mut table = Table::new(&["snapshot", "time", "of", "action", "reasons"]);
    for group in &document.groups {
        for told in &group.snapshots {
            let (action, style) = if told.keep {
                ("keep", Style::Faint)
            } else {
                ("remove", Style::Warning)
            };
            table.styled(vec![
                (told.snapshot[..8].to_owned(), Some(Style::Hint)),
                (told.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(), None),
                (group.group.clone(), None),
                (action.to_owned(), Some(style)),
                (told.reasons.join(", "), Some(Style::Faint)),
            ]);
        }
    }
    table.render(paint, width)
}

fn conclude(context: &Context, document: &Document) -> Outcome {
    context.out.answer(document, |paint| {
        let mut text = table(document, paint, context.out.width);
        if let Some(prune) = &document.prune {
            text.push_str(&prune.text());
        }
        text
    })?;
    for unreadable in &document.unreadable {
        context
            .out
            .warn(format!("snapshot file {unreadable} and was left alone"));
    }
    if !document.dry_run {
        let snapshots = plural(document.removed.len() as u64, "snapshot", "snapshots");
        context
            .out
            .done(format!("removed {snapshots} from repository `{}`", document.repository));
        if document.prune.is_none() && !document.removed.is_empty() {
            context.out.next("opsctl repository prune");
        }
    }
    Ok(match &document.prune {
        Some(prune) if prune.exit() != Exit::Done => prune.exit(),
        _ if !document.unreadable.is_empty() => Exit::Partial,
        _ => Exit::Done,
    })
}
