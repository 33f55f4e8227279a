//! `opsctl alert status`: what fires now, whose it is and who is told, as the environment's Prometheus and Alertmanager know
//! it; and when each alert was last proved by a drill.

use std::collections::{BTreeMap, BTreeSet};

use alerts::live::{Expected, Hidden, Proof, Standing, Status, Verdict, World};
use jiff::Timestamp;
use opsctl_drills::expectation::Proof as Verdicts;
use opsctl_drills::expectation::proved::{FromRun, all};
use serde::Serialize;

use crate::config;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table, seconds};
use crate::platform;

/// Tell what fires, whose it is and who hears of it, and which alerts are proved
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Only alerts about this service or datastore, or of this name
    #[arg(value_name = "NAME")]
    about: Option<String>,

    /// Leave out when alerts were last proved
    #[arg(long)]
    no_proofs: bool,
}

fn help() -> String {
    format!(
        "Examples:\n  # Woken at three: what is it?\n  opsctl -e production alert status\n\n  \
         # Before a release, as a gate\n  opsctl -e production alert status orders -q\n\n\
         `told` names the receivers, or what keeps them from being told: a silence, another alert, a time. Below stands of every\n\
         alert that is loaded when a drill last made it fire (`drill … --expect-alert`). Exit 4: something fires that nothing\n\
         hides; what has the severity `none` does not count. 7: Prometheus does not answer; 9: a part is not known.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::Unreachable, Exit::Inconclusive])
    )
}

/// An alert, and when drills made it fire.
#[derive(Debug, Serialize)]
struct Drilled {
    alert: String,
    /// The last drill that expected it.
    last: Option<FromRun>,
    /// The last that proved it.
    last_proved: Option<FromRun>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    at: Timestamp,
    alerts: &'a [Standing],
    /// Of every alert that is loaded or was drilled.
    proofs: &'a [Drilled],
    /// What was not answered.
    unknown: &'a [String],
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let progress = context.out.progress("alert status");
    let (world, records) = context.interruptible(async {
        let watchers = platform::watchers(context, &config).await?;
        let (prometheus, alertmanager) = (&watchers.prometheus, watchers.alertmanager.as_ref());
        let nothing = Expected::default();
        let (world, records) = tokio::join!(
            World::look(prometheus, alertmanager, &nothing, context.now()),
            platform::records(context, &config, "when alerts were last proved"),
        );
        Ok::<_, Failure>((world, records))
    })??;
    drop(progress);
    let drilled: Vec<FromRun> = records
        .iter()
        .flat_map(|records| all(records, &config.environment.name))
        .collect();
    let proofs: Vec<Proof> = drilled
        .iter()
        .filter(|one| one.proved.proof == Verdicts::Proved)
        .map(|one| Proof {
            alertname: name(one).to_owned(),
            at: one.at,
            run: one.run.clone(),
        })
        .collect();
    let mut status = Status::of(&world, &proofs);
    if let Some(about) = &args.about {
        let means = |alert: &Standing| alert.name == *about || subject(alert) == Some(about.as_str());
        status.alerts.retain(means);
    }
    let proofs = if args.no_proofs {
        Vec::new()
    } else {
        proved(&world, &drilled, args.about.as_deref())
    };
    let document = Document {
        schema: "opsctl.alert_status/v1",
        r#type: "alert_status",
        environment: &config.environment.name,
        at: status.at,
        alerts: &status.alerts,
        proofs: &proofs,
        unknown: &status.unknown,
    };
    context.out.answer(&document, |paint| {
        let mut parts = Vec::new();
        if !status.alerts.is_empty() {
            parts.push(table(&status).render(paint, context.out.width));
        }
        if !proofs.is_empty() {
            parts.push(proof_table(&proofs, status.at).render(paint, context.out.width));
        }
        parts.join("\n")
    })?;
    for why in &status.unknown {
        context.out.warn(why);
    }
    let verdict = status.verdict(&world);
    if status.alerts.is_empty() && matches!(verdict, Verdict::Good | Verdict::Bad) {
        context.out.note("nothing fires");
    }
    Ok(match verdict {
        Verdict::Good => Exit::Done,
        Verdict::Bad => Exit::No,
        Verdict::Unreachable => Exit::Unreachable,
        Verdict::Inconclusive => Exit::Inconclusive,
    })
}

/// The alert's name, without the labels that were asked for.
fn name(one: &FromRun) -> &str {
    one.proved.alert.split(',').next().unwrap_or_default()
}

/// The service or datastore that an alert is about.
fn subject(alert: &Standing) -> Option<&str> {
    let labels = ["service", "datastore", "job"];
    labels
        .iter()
        .find_map(|label| alert.labels.get(*label))
        .map(String::as_str)
}

/// Of every alert that is loaded or was drilled, the last drills.
fn proved(world: &World, drilled: &[FromRun], about: Option<&str>) -> Vec<Drilled> {
    let groups = world.told.rules.told().into_iter().flatten();
    let rules = groups.flat_map(|group| &group.rules).filter(|rule| rule.alerts());
    let loaded = rules.filter(|rule| {
        let label = |name: &str| rule.labels.get(name).map(String::as_str);
        about.is_none_or(|about| rule.name == about || [label("service"), label("datastore")].contains(&Some(about)))
    });
    let mut names: BTreeSet<&str> = loaded.map(|rule| rule.name.as_str()).collect();
    let mut last: BTreeMap<&str, (Option<&FromRun>, Option<&FromRun>)> = BTreeMap::new();
    for one in drilled {
        let of = last.entry(name(one)).or_default();
        if of.0.is_none_or(|known| known.at <= one.at) {
            of.0 = Some(one);
        }
        if one.proved.proof == Verdicts::Proved && of.1.is_none_or(|known| known.at <= one.at) {
            of.1 = Some(one);
        }
    }
    names.extend(
        last.keys()
            .copied()
            .filter(|name| about.is_none_or(|about| about == *name)),
    );
    let of = |name: &str| {
        let (last, last_proved) = last.get(name).copied().unwrap_or_default();
        Drilled {
            alert: name.to_owned(),
            last: last.cloned(),
            last_proved: last_proved.cloned(),
        }
    };
    names.into_iter().map(of).collect()
}

fn ago(now: Timestamp, at: Timestamp) -> String {
    format!("{} ago", seconds(now.duration_since(at).as_secs_f64().max(0.0)))
}

fn table(status: &Status) -> Table {
    let mut table = Table::new(&[
        "alert", "about", "severity", "state", "since", "owner", "told", "proved", "runbook",
    ]);
    for alert in &status.alerts {
        let hidden = !alert.hidden.is_empty();
        let style = match alert.state.as_str() {
            "firing" if hidden => Style::Faint,
            "firing" => Style::Error,
            _ => Style::Warning,
        };
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.styled(vec![
            (alert.name.clone(), None),
            (about(alert), None),
            (word(&alert.severity), None),
            (alert.state.clone(), Some(style)),
            (
                alert
                    .since
                    .map_or_else(|| "-".to_owned(), |since| ago(status.at, since)),
                None,
            ),
            (word(&alert.owner), None),
            (told(alert), hidden.then_some(Style::Faint)),
            (
                alert
                    .proved
                    .as_ref()
                    .map_or_else(|| "never".to_owned(), |proof| ago(status.at, proof.at)),
                None,
            ),
            (word(&alert.runbook), Some(Style::Hint)),
        ]);
    }
    table
}

/// The service or datastore; without one what tells the alert from others of its name.
fn about(alert: &Standing) -> String {
    const SAID: [&str; 4] = ["severity", "team", "owner", "environment"];
    if let Some(subject) = subject(alert) {
        return subject.to_owned();
    }
    let rest = alert.labels.iter().filter(|(name, _)| !SAID.contains(&name.as_str()));
    let rest: Vec<String> = rest.map(|(name, value)| format!("{name}={value}")).collect();
    if rest.is_empty() {
        "-".to_owned()
    } else {
        rest.join(" ")
    }
}

/// Who hears of it, or what keeps them from it.
fn told(alert: &Standing) -> String {
    if alert.state != "firing" {
        return "not yet".to_owned();
    }
    if alert.lost {
        return "nobody: Alertmanager does not have it".to_owned();
    }
    if alert.hidden.is_empty() {
        return if alert.receivers.is_empty() {
            "not known".to_owned()
        } else {
            alert.receivers.join(", ")
        };
    }
    let hidden = alert.hidden.iter().map(|by| match by {
        Hidden::Silence { id, author, until, .. } => {
            let short = id.get(..8).unwrap_or(id);
            let until = until.map_or_else(String::new, |until| {
                format!(" until {}", until.strftime("%m-%d %H:%MZ"))
            });
            format!("silenced by {author} ({short}){until}")
        }
        Hidden::Alert { name } => format!("inhibited by {name}"),
        Hidden::Interval { name } => format!("muted by {name}"),
    });
    hidden.collect::<Vec<_>>().join(", ")
}

fn proof_table(proofs: &[Drilled], now: Timestamp) -> Table {
    let mut table = Table::new(&["alert", "proved", "fired after", "last drill"]);
    for one in proofs {
        let proved = one.last_proved.as_ref();
        let fired = proved.and_then(|proved| proved.proved.time_to_detect_seconds);
        let last = one.last.as_ref().map(|last| {
            let word = last.proved.proof.as_str();
            format!("{word} {} ({})", ago(now, last.at), last.run)
        });
        let style = if proved.is_some() { Style::Done } else { Style::Faint };
        table.styled(vec![
            (one.alert.clone(), None),
            (
                proved.map_or_else(|| "never".to_owned(), |proved| ago(now, proved.at)),
                Some(style),
            ),
            (fired.map_or_else(|| "-".to_owned(), seconds), None),
            (last.unwrap_or_else(|| "-".to_owned()), Some(Style::Faint)),
        ]);
    }
    table
}
