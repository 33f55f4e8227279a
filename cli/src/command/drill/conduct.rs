//! What the commands of all drills have in common: their flags, what is told before, and following the run to its end.

use std::time::Duration;

use opsctl_drills::condition::Condition;
use opsctl_drills::course::Mutation;
use opsctl_drills::expectation::Expectation;
use opsctl_drills::{Plan, Report, Terms};
use opsctl_platform::run::RunRecord;
use serde::Serialize;

use super::expected;
use crate::attach::{self, Home};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::platform::Opened;

/// The exit codes of every drill.
pub(super) const EXITS: [Exit; 9] = [
    Exit::Failed,
    Exit::Usage,
    Exit::No,
    Exit::Refused,
    Exit::UndoIncomplete,
    Exit::Unreachable,
    Exit::Locked,
    Exit::Inconclusive,
    Exit::Interrupted,
];

/// What the help of every drill says of alerts.
pub(super) const ALERTS: &str = "`--expect-alert NAME[,LABEL=VALUE][,within=TIME][,resolved=TIME]`, as often as wanted: the alert must fire because of\n\
     this, reach Alertmanager and not be kept back there, so that somebody is told within that time of the first effect, and\n\
     must be resolved within the other after the end. The fault stays for as long as that needs, an hour at the most. An\n\
     alert that is pending or firing before is no proof (9); `--dry-run` shows how long it takes at the least.";

/// What every drill can be told.
#[derive(Debug, clap::Args)]
pub(super) struct CourseArgs {
    /// How long the recovery may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    recovery_within: Duration,

    /// Send no probe: with other traffic alone
    #[arg(long)]
    no_probe: bool,

    /// What else must hold before and after: `http://…`, `grpc://HOST:PORT/SERVICE`, `prom:QUERY <= 0.01`
    #[arg(long, value_name = "CONDITION", hide_short_help = true)]
    steady: Vec<Condition>,

    /// An alert that it must make fire: NAME[,within=TIME]
    #[arg(long, value_name = "ALERT")]
    expect_alert: Vec<Expectation>,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Where judge and watchdog work, on a cluster [default: a job where it is
    /// protected or lasts longer than ten minutes]
    #[arg(long, value_name = "WHERE", value_enum, hide_short_help = true)]
    watchdog: Option<Home>,

    #[command(flatten)]
    consent: ConsentArgs,
}

impl CourseArgs {
    /// The terms of a drill of `service` that lasts for `duration`.
    pub(super) fn terms(
        &self,
        context: &Context,
        opened: &Opened,
        service: &str,
        duration: Duration,
    ) -> Result<Terms, Failure> {
        let found = context.block_on(expected::find(context, opened, &self.expect_alert))?;
        let of_cluster = opened
            .there()
            .and_then(|there| there.kube.settings().prometheus.clone());
        Ok(Terms {
            duration,
            recovery_within: self.recovery_within,
            send_probe: !self.no_probe,
            conditions: self.steady.clone(),
            prometheus: of_cluster.or_else(|| {
                let known = opened.config.environment.prometheus.as_ref();
                known.map(|prometheus| prometheus.url.clone())
            }),
            expected: found.expected,
            alertmanager: found.alertmanager,
            ..Terms::new(service)
        })
    }
}

/// Asks for consent, starts the run of a plan and follows it; with `--dry-run` only tells it. `does` is what it does, in
/// a sentence or more, `question` the same to be answered.
pub(super) fn conduct<F: Serialize>(
    context: &Context,
    opened: &Opened,
    args: &CourseArgs,
    mut plan: Plan<F>,
    question: String,
    does: &str,
) -> Outcome {
    plan.notes.extend(expected::notes(&plan.spec.terms.expected));
    let told = describe(&plan, does);
    if args.dry_run {
        return context.block_on(async {
            let now = opened.platform.now();
            let record = plan.record(&RunRecord::new_id(now), now);
            let home = attach::home(opened, args.watchdog, plan.spec.terms.lasts_at_most());
            attach::preflight(opened, &record, home).await?;
            plan.rehearse(opened.platform.as_ref()).await;
            context
                .out
                .answer(&plan, |_| format!("{told}{}", changes(&plan.mutations)))?;
            let refused = plan.mutations.iter().any(|mutation| mutation.accepted == Some(false));
            Ok(if refused { Exit::Refused } else { Exit::Done })
        });
    }
    let name = plan.spec.terms.service.clone();
    let stake = Stake {
        question,
        name: &name,
        consequence: Consequence::UndoneByItself,
        protected: opened.config.protected(),
    };
    let plan = approve(context, &args.consent, plan, &stake)?.into_plan();
    for line in told.lines() {
        context.out.note(line);
    }
    context.block_on(async {
        let now = opened.platform.now();
        let mut record = plan.record(&RunRecord::new_id(now), now);
        let home = attach::home(opened, args.watchdog, plan.spec.terms.lasts_at_most());
        let reason = args.consent.reason.as_deref();
        let worker = attach::start_in(context, opened, &mut record, reason, home).await?;
        context.out.note(format!("run {}: Ctrl-C aborts it", record.id));
        let followed = attach::watch(context, opened, &record.id, worker).await?;
        if context.out.json {
            context.out.document(&followed.report)?;
        } else if let Some(report) = followed
            .report
            .clone()
            .and_then(|report| serde_json::from_value::<Report>(report).ok())
        {
            context.out.data(&rows(&report.rows()))?;
        }
        attach::tell_end(context, opened, &followed);
        Ok(followed.exit)
    })
}

fn describe<F>(plan: &Plan<F>, does: &str) -> String {
    let mut text = format!("{does}\n");
    for (service, probe) in plan.spec.terms.watched() {
        if let Some(probe) = probe {
            let to = if service == plan.spec.terms.service {
                String::new()
            } else {
                format!("{service}: ")
            };
            text.push_str(&format!("{to}sends {} to {}, counted apart\n", probe.rate, probe.url));
        }
    }
    for note in &plan.notes {
        text.push_str(note);
        text.push('\n');
    }
    text
}

/// What would be changed, and whether that would be allowed.
fn changes(mutations: &[Mutation]) -> String {
    let mut text = String::new();
    for mutation in mutations {
        text.push_str(&format!("would change: {}\n", mutation.does));
        if let Some(undo) = &mutation.undo {
            text.push_str(&format!("  undo: {undo}\n"));
        }
        match (mutation.accepted, &mutation.refusal) {
            (Some(true), _) => text.push_str("  it would be accepted\n"),
            (Some(false), Some(why)) => text.push_str(&format!("  it would be refused: {why}\n")),
            (Some(false), None) => text.push_str("  somebody else has changed it meanwhile\n"),
            (None, _) => {}
        }
    }
    text
}

fn rows(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(label, value)| format!("{label:<width$}  {value}\n"))
        .collect()
}
