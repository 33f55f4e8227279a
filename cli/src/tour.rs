//! `opsctl tour`: the whole job on the reference services in under two minutes, every figure measured in that run.
//! It plays the customers and runs the real commands; it does nothing else (docs/decisions/0002).

mod act;
mod acts;
mod command;
mod customer;
mod report;
mod stage;
mod traffic;

use std::path::{Path, PathBuf};

use opsctl_load::Rate;
use serde_json::Value;
use tokio::process::Command;

use crate::context::{Context, Signals};
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use acts::{Memory, Part};
use command::{Opsctl, Ran};
use customer::Customer;
use report::Report;
use stage::Stage;
use traffic::Traffic;

/// How a tour is given.
#[derive(Debug)]
pub(crate) struct Options {
    /// Leave the services up.
    pub(crate) keep: bool,
    /// Where to; a fresh temporary folder by default.
    pub(crate) folder: Option<PathBuf>,
    /// Build the services first.
    pub(crate) build: bool,
    /// The customers' traffic.
    pub(crate) rate: Rate,
}

/// Plays the tour from an empty folder to the report.
pub(crate) async fn run(context: &Context, options: Options) -> Outcome {
    let mut signals = Signals::listen()?;
    let program = context.executable()?;
    let programs = program.parent().unwrap_or(Path::new("/")).to_path_buf();
    let catalogue = stage::find_catalogue(context.cwd())?;
    let folder = match &options.folder {
        Some(folder) => context.absolute(folder),
        None => fresh_folder()?,
    };
    let stage = Stage::prepare(&catalogue, folder, &programs)?;
    context
        .out
        .note(format!("the tour works in {}", stage.folder.display()));
    if options.build {
        build(context, &stage, &mut signals).await?;
    }
    let opsctl = Opsctl {
        program,
        folder: stage.folder.clone(),
    };

    let played = play(context, &opsctl, options.rate, &mut signals).await;
    let finished = played.as_ref().is_ok_and(|report| !report.failed());
    if options.keep && finished {
        return tell(context, &opsctl, &played?, true);
    }
    take_down(context, &opsctl).await?;
    match played {
        Ok(report) => tell(context, &opsctl, &report, false),
        Err(failure) => Err(failure.help(format!(
            "everything was taken down; what is left to look at lies in {}",
            stage.folder.display()
        ))),
    }
}

async fn build(context: &Context, stage: &Stage, signals: &mut Signals) -> Result<(), Failure> {
    let progress = context.out.progress("building the services");
    for (words, folder) in &stage.builds {
        let Some((program, arguments)) = words.split_first() else {
            continue;
        };
        let typed = words.join(" ");
        progress.phase(typed.clone());
        let mut build = Command::new(program);
        let ran = command::run(build.args(arguments).current_dir(folder), typed, signals.next()).await?;
        if !ran.ended(Exit::Done) {
            return Err(
                Failure::new(Exit::Failed, "build_failed", format!("`{}` failed", ran.typed))
                    .cause(ran.complaint.trim()),
            );
        }
    }
    Ok(())
}

async fn play(context: &Context, opsctl: &Opsctl, rate: Rate, signals: &mut Signals) -> Result<Report, Failure> {
    let progress = context.out.progress("tour");
    progress.phase("starting the services");
    let up = must(opsctl.run(&["up", "--no-build"], signals.next()).await?)?;
    let status = must(opsctl.run(&["status"], signals.next()).await?)?;
    let orders = address(&status, stage::SERVICE)?;
    let customer = Customer::sign_in(&address(&status, "identity")?, &orders).await?;
    let traffic = Traffic::start(&orders, rate, &customer.token)?;

    let mut report = Report::new(context.now(), &opsctl.folder, rate, up.took);
    let memory = Memory::default();
    let mut stage = acts::Stage {
        opsctl,
        customer: &customer,
        traffic: &traffic,
        signals,
        memory,
    };
    for part in Part::ALL {
        progress.phase(part.phase());
        let act = stage.play(part).await?;
        context.out.note(report::line(context.out.stderr, &act));
        report.add(act);
        // What comes later would be measured on a broken stage.
        if report.failed() {
            break;
        }
    }
    drop(progress);
    report.samples = traffic.ledger().samples();
    report.traffic = Some(traffic.stop().await?);
    Ok(report)
}

/// Takes everything down; a second signal does not stop it.
async fn take_down(context: &Context, opsctl: &Opsctl) -> Result<(), Failure> {
    let progress = context.out.progress("tour");
    progress.phase("taking the services down");
    must(opsctl.run(&["down"], std::future::pending()).await?).map(|_| ())
}

fn tell(context: &Context, opsctl: &Opsctl, report: &Report, kept: bool) -> Outcome {
    let page = report.write(&opsctl.folder)?;
    context
        .out
        .answer(&report.document(&page), |paint| report.text(paint, context.out.width))?;
    context.out.note(format!("report: {}", page.display()));
    if kept {
        context
            .out
            .note(format!("the services are up; in {} try next:", opsctl.folder.display()));
        for command in ["opsctl status", "opsctl logs orders", "opsctl down"] {
            context.out.note(format!("  {command}"));
        }
    }
    Ok(if report.failed() { Exit::No } else { Exit::Done })
}

fn must(ran: Ran) -> Result<Ran, Failure> {
    if ran.ended(Exit::Done) {
        Ok(ran)
    } else {
        Err(ran.failure())
    }
}

/// The stable HTTP address of a service, from `opsctl status --json`.
fn address(status: &Ran, service: &str) -> Result<String, Failure> {
    let services = status.document.get("services").and_then(Value::as_array);
    let found = services
        .into_iter()
        .flatten()
        .find(|row| row.get("name").and_then(Value::as_str) == Some(service));
    found
        .and_then(|row| row.pointer("/front/http").and_then(Value::as_str))
        .map(|address| format!("http://{address}"))
        .ok_or_else(|| Failure::bug(format!("`opsctl status` does not tell the address of `{service}`")))
}

fn fresh_folder() -> Result<PathBuf, Failure> {
    tempfile::Builder::new()
        .prefix("opsctl-tour-")
        .tempdir()
        .map(tempfile::TempDir::keep)
        .map_err(|error| Failure::io("could not make a temporary folder", &error))
}
