//! What drills have proved of alerts: whether they fire, how soon somebody is told, how soon they are resolved. It reads the
//! records of runs; nobody is asked about an alert.

use backups::proof::judge::seconds;
use jiff::Timestamp;
use opsctl_drills::expectation::Proof;
use opsctl_drills::expectation::proved::{Standing, standings};

use crate::config::Config;
use crate::context::Context;
use crate::output::{Style, Table};
use crate::platform;

/// How each alert stands that a drill has expected, of every cluster that is meant; of one service alone, if `target` says
/// so.
pub(super) async fn read(context: &Context, config: &Config, target: Option<&str>) -> Vec<Standing> {
    let records = platform::records(context, config, "what drills proved of alerts").await;
    let mut all: Vec<Standing> = records
        .iter()
        .flat_map(|records| standings(records, &config.environment.name))
        .collect();
    let wanted = target.map(|target| format!("service/{target}"));
    all.retain(|standing| wanted.as_ref().is_none_or(|wanted| standing.last.target == *wanted));
    all
}

/// A line each.
pub(super) fn table(standings: &[Standing], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "alert", "state", "proved", "fires", "told", "resolved", "floor", "last run",
    ]);
    for standing in standings {
        let last = &standing.last;
        let style = match last.proved.proof {
            Proof::Proved => Style::Done,
            Proof::Inconclusive | Proof::FiredBefore => Style::Warning,
            _ => Style::Error,
        };
        let proved = standing.last_proved.as_ref();
        let ago = proved.map(|proved| format!("{} ago", seconds(now.duration_since(proved.at).as_secs_f64())));
        // The figures are those of the proof, where there is one.
        let figures = &proved.unwrap_or(last).proved;
        let figure = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), seconds);
        table.styled(vec![
            (standing.alert.clone(), None),
            (last.proved.proof.as_str().to_owned(), Some(style)),
            (ago.unwrap_or_else(|| "never".to_owned()), None),
            (figure(figures.time_to_detect_seconds), None),
            (figure(figures.time_to_notify_seconds), None),
            (figure(figures.time_to_resolve_seconds), None),
            (seconds(figures.floor_seconds), Some(Style::Faint)),
            (last.run.clone(), Some(Style::Faint)),
        ]);
    }
    table
}
