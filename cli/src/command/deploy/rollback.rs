//! `opsctl deploy rollback`: returns to the version before. While a canary is on or baking this takes seconds: the old
//! version still runs at full capacity. Later it is a roll-out of its own that waits for capacity before traffic.

use std::path::Path;

use opsctl_platform::run::{Reason, RunRecord};
use opsctl_platform::{Field, VersionSpec};
use opsctl_rollouts::{Spec, promotion, rollback};
use serde_json::Value;

use super::{Ownership, active, canaries};
use crate::attach::{self, Followed};
use crate::config;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform::{self, Opened, words};

/// Return to the version before
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it that of the last canary
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    #[command(flatten)]
    ownership: Ownership,
}

fn help() -> String {
    format!(
        "Until the bake time is over the old version runs beside the new one and gets the traffic back at once. Later it\n\
         is started again, and gets the traffic when all its instances are ready.\n\n{}",
        Exit::section(&[
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::UndoIncomplete,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let mut config = config::load(context)?;
    args.ownership.apply(&mut config)?;
    let opened = platform::open_with(context, config)?;
    context.block_on(async {
        match active(&opened, args.service.as_deref()).await? {
            Some(record) => take_away(context, &opened, &record).await,
            None => roll_out(context, &opened, args.service.as_deref()).await,
        }
    })
}

/// The canary is on, or baking: the old version runs.
async fn take_away(context: &Context, opened: &Opened, record: &RunRecord) -> Outcome {
    let worker = attach::resume_if_lost(context, opened, record).await?;
    attach::abort(context, opened, &record.id, Reason::Abort).await?;
    let followed = attach::until_over(context, opened, &record.id, worker).await?;
    tell(context, opened, &followed, |report| {
        super::status::text(context, report)
    })?;
    // What was asked for was done.
    Ok(if followed.exit == Exit::No {
        Exit::Done
    } else {
        followed.exit
    })
}

/// Nothing of the old version runs any more: it is started, and gets the traffic when it can carry it.
async fn roll_out(context: &Context, opened: &Opened, service: Option<&str>) -> Outcome {
    let promotions = canaries(opened, service).await?;
    let service = match (service, promotions.last()) {
        (Some(service), _) => service.to_owned(),
        (None, Some(last)) => words::target(last).to_owned(),
        (None, None) => {
            return Err(Failure::usage(
                "no_canary",
                "there was no canary yet: nothing to return to",
            ));
        }
    };
    let what = || format!("could not roll `{service}` back");
    let state = opened
        .platform
        .service(&service)
        .await
        .map_err(|error| error::platform::failure(what(), &error))?;
    let stable = state.stable_version.clone().unwrap_or_default();
    let mut version = before(&promotions, &service, &stable).ok_or_else(|| {
        Failure::usage("no_version_before", what())
            .cause(format!("no run tells what ran before version {stable}"))
            .help(format!(
                "opsctl deploy canary {service} --version OLD --steps 10:5m,100"
            ))
    })?;
    version.replicas = state.replicas;
    if let Some(program) = version.command.first()
        && program.starts_with('/')
        && !Path::new(program).exists()
    {
        return Err(Failure::usage("program_not_found", what()).cause(format!(
            "the program of version {}, `{program}`, is not there any more",
            version.version
        )));
    }
    let (field, again) = (Field::version(&service, &version.version), version.value());
    let rehearsed = opened.platform.rehearse(&field, None, Some(&again)).await;
    // What somebody changes meanwhile is met by the run's own compare-and-set.
    let _ = rehearsed.map_err(|error| error::platform::failure(what(), &error))?;
    context.out.note(format!(
        "starts version {} of `{service}` again, and takes version {stable} away when it is ready",
        version.version
    ));
    let now = opened.platform.now();
    let spec = rollback::Spec::new(&service, &stable, version);
    let mut record = rollback::record(&RunRecord::new_id(now), &spec, now);
    let worker = attach::start(context, opened, &mut record, None).await?;
    context.out.note(format!("run {}: Ctrl-C aborts it", record.id));
    let followed = attach::watch(context, opened, &record.id, worker).await?;
    tell(context, opened, &followed, |_| String::new())?;
    Ok(followed.exit)
}

fn tell(
    context: &Context,
    opened: &Opened,
    followed: &Followed,
    text: impl Fn(Option<&Value>) -> String,
) -> Result<(), Failure> {
    if context.out.json {
        context.out.document(&followed.report)?;
    } else {
        context.out.data(&text(followed.report.as_ref()))?;
    }
    attach::tell_end(context, opened, followed);
    Ok(())
}

/// What ran before `stable`, as the run that promoted `stable` took it away.
fn before(promotions: &[RunRecord], service: &str, stable: &str) -> Option<VersionSpec> {
    let record = promotion(promotions, service, stable)?;
    let spec: Spec = serde_json::from_value(record.spec.clone()).ok()?;
    let field = Field::version(service, &spec.stable);
    let step = record.undo.iter().find(|step| step.field == field)?;
    let mut values = step.ours.iter().chain([&step.before]).flatten();
    values.find_map(|value| serde_json::from_value(value.clone()).ok())
}
