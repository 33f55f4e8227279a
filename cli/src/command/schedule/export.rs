//! `opsctl schedule export`: the schedules for somebody else to run: CronJobs of Kubernetes, timers of systemd; and what goes
//! on all the time as a Deployment or a service.

mod kubernetes;
mod systemd;

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use crate::config::{self, Datastore, Schedule};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::schedule::staying;

/// Write schedules as CronJobs of Kubernetes or timers of systemd
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Who is to run them
    #[arg(value_enum, value_name = "WHO")]
    who: Who,

    /// Write files into this folder instead of to stdout
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,

    /// The image of opsctl, instead of the cluster's (kubernetes)
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// The namespace, instead of the environment's (kubernetes)
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// CronJobs
    Kubernetes,
    /// Services and timers
    Systemd,
}

fn help() -> String {
    format!(
        "Examples:\n  # CronJobs that read a ConfigMap `opsctl` and take variables from a Secret `opsctl`\n  \
         kubectl -n shop create configmap opsctl --from-file opsctl.toml\n  \
         opsctl -e production schedule export kubernetes --namespace shop | kubectl apply -f -\n\n  \
         # Timers of this machine\n  \
         opsctl schedule export systemd --into /etc/systemd/system\n  \
         systemctl daemon-reload && systemctl enable --now opsctl-backup-orders-db.timer\n\n\
         What `opsctl schedule run` keeps going (the log of a PostgreSQL that is saved as a whole, changes of SQLite databases\n\
         with `backup.ship`) becomes a service of systemd, or a Deployment with one pod.\n\n\
         Both run `opsctl schedule run NAME`, so that pings and records are as they are here. Neither knows what to do when\n\
         the clock changes: a job between two and three may run twice or not at all in those two nights, where\n\
         `opsctl schedule run` runs it once.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage])
    )
}

/// A file that was made.
#[derive(Serialize)]
struct Made {
    name: String,
    content: String,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    files: Vec<Made>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let schedules: Vec<&Schedule> = config.schedules.values().filter(|schedule| schedule.enabled).collect();
    let stays = staying::of(&config);
    if schedules.is_empty() && stays.is_empty() {
        return Err(Failure::usage(
            "nothing_declared",
            "there is nothing to export: no schedule is declared",
        ));
    }
    let files = match args.who {
        Who::Kubernetes => kubernetes::files(args, context, &config, &schedules, &stays)?,
        Who::Systemd => systemd::files(context, &config, &schedules, &stays)?,
    };
    let document = Document {
        schema: "opsctl.schedule_export/v1",
        r#type: "schedule_export",
        environment: &config.environment.name,
        files,
    };
    let Some(folder) = &args.into else {
        context.out.answer(&document, |_| {
            let texts: Vec<String> = document
                .files
                .iter()
                .map(|file| match args.who {
                    Who::Kubernetes => file.content.clone(),
                    Who::Systemd => format!("# {}\n{}", file.name, file.content),
                })
                .collect();
            texts.join(if args.who == Who::Kubernetes { "---\n" } else { "\n" })
        })?;
        return Ok(Exit::Done);
    };
    let folder = context.absolute(folder);
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::io(format!("could not make `{}`", folder.display()), &error))?;
    for file in &document.files {
        let path = folder.join(&file.name);
        std::fs::write(&path, &file.content)
            .map_err(|error| Failure::io(format!("could not write `{}`", path.display()), &error))?;
        context.out.done(format!("wrote {}", context.shown(&path)));
    }
    if context.out.json {
        context.out.document(&document)?;
    }
    Ok(Exit::Done)
}

/// A schedule's name where neither colons nor dots may be.
fn slug(schedule: &Schedule) -> String {
    format!("opsctl-{}", schedule.name.replace(':', "-"))
}

/// The name of what goes on for a datastore, which no schedule has.
fn slug_of(store: &Datastore) -> String {
    format!("opsctl-continuous-{}", store.name)
}
