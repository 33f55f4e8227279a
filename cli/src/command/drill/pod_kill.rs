//! `opsctl drill pod-kill`: kills instances of a service and measures how it comes back.

use std::time::Duration;

use opsctl_drills::kinds::pod_kill::{self, Plan, Spec};
use opsctl_platform::Platform as _;
use opsctl_platform::run::RunRecord;

use crate::attach;
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::{plural, seconds};
use crate::platform;
use crate::target;

/// Kill instances of a service and measure how it comes back
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only one, or the environment's default
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// How many instances are killed at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// How long it is watched after the kill
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// How long the recovery may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    recovery_within: Duration,

    /// Send no probe: with other traffic alone
    #[arg(long)]
    no_probe: bool,

    /// Say who would be killed, and kill nobody
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # Does anybody notice when an instance dies?\n  opsctl drill pod-kill orders\n\n  \
         # Two at once, watched for a minute\n  opsctl drill pod-kill orders --count 2 --for 1m\n\n\
         Never kills the last ready instance, and starts only from a steady state. The verdict is the service's\n\
         objectives against its requests, and the probe's, which are counted apart. Exit 9: too few to tell.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::UndoIncomplete,
            Exit::Locked,
            Exit::Inconclusive,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let service = target::service(context, &opened.config, args.service.as_deref())?
        .name
        .clone();
    let spec = Spec {
        count: args.count,
        duration: args.duration,
        recovery_within: args.recovery_within,
        send_probe: !args.no_probe,
        ..Spec::new(&service)
    };
    let plan = context.block_on(pod_kill::plan(opened.platform.as_ref(), spec))?;
    if args.dry_run {
        context.out.answer(&plan, |_| describe(&plan))?;
        return Ok(Exit::Done);
    }
    let stake = Stake {
        question: format!(
            "kill {} of `{service}`?",
            plural(u64::from(args.count), "instance", "instances")
        ),
        name: &service,
        consequence: Consequence::UndoneByItself,
        protected: opened.config.protected(),
    };
    let plan = approve(context, &args.consent, plan, &stake)?.into_plan();
    for line in describe(&plan).lines() {
        context.out.note(line);
    }
    context.block_on(async {
        let now = opened.local.now();
        let mut record = pod_kill::record(&RunRecord::new_id(now), &plan.spec, now);
        let worker = attach::start(context, &opened, &mut record, args.consent.reason.as_deref()).await?;
        context.out.note(format!("run {}: Ctrl-C aborts it", record.id));
        let followed = attach::watch(context, &opened, &record.id, worker).await?;
        if context.out.json {
            context.out.document(&followed.report)?;
        } else if let Some(report) = followed
            .report
            .clone()
            .and_then(|report| serde_json::from_value::<opsctl_drills::Report>(report).ok())
        {
            context.out.data(&rows(&report.rows()))?;
        }
        attach::tell_end(context, &opened, &followed);
        Ok(followed.exit)
    })
}

fn describe(plan: &Plan) -> String {
    let victims: Vec<&str> = plan
        .spec
        .victims
        .iter()
        .map(|victim| victim.instance.as_str())
        .collect();
    let mut text = format!(
        "kills {} of `{}` ({} of {} ready are left), watches {} before and {} after\n",
        victims.join(", "),
        plan.spec.service,
        plan.ready_after,
        plan.ready,
        seconds(plan.spec.steady_for.as_secs_f64()),
        seconds(plan.spec.duration.as_secs_f64()),
    );
    if let Some(probe) = &plan.spec.probe {
        text.push_str(&format!("sends {} to {}, counted apart\n", probe.rate, probe.url));
    }
    for note in &plan.notes {
        text.push_str(note);
        text.push('\n');
    }
    text
}

fn rows(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(label, value)| format!("{label:<width$}  {value}\n"))
        .collect()
}
