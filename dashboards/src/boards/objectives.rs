//! Objectives: what is promised of requests, how much of the budget is left, how fast it burns. All of it is read from
//! what the rules record, so that board and alerts can never differ.

use std::time::Duration;

use manifest::landscape::{Board, Landscape, Recorded, Slo};

use super::sheet::{Plot, Sheet};
use super::{Draft, runbook_of_label, uid, variables};
use crate::model::Unit;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The windows over which burn rates are judged, long and short.
const WINDOWS: [(u64, &str); 7] = [
    (5 * MINUTE, "5 minutes"),
    (30 * MINUTE, "30 minutes"),
    (HOUR, "1 hour"),
    (2 * HOUR, "2 hours"),
    (6 * HOUR, "6 hours"),
    (DAY, "1 day"),
    (3 * DAY, "3 days"),
];
/// Burn rates at which alerts fire, with the time in which a budget of 30 days would be gone.
const BURNS: [(f64, &str); 4] = [(1.0, "green"), (3.0, "yellow"), (6.0, "orange"), (14.4, "red")];

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    let promises = |slo| {
        landscape.services.iter().any(|service| match slo {
            Slo::Availability => service.availability.is_some(),
            Slo::Latency => service.latency.is_some(),
        })
    };
    let slos: Vec<Slo> = [Slo::Availability, Slo::Latency]
        .into_iter()
        .filter(|slo| promises(*slo))
        .collect();
    if slos.is_empty() {
        return None;
    }
    let mut sheet = Sheet::default().row("Alerts", [alerts(landscape)]);
    for slo in slos {
        let title = match slo {
            Slo::Availability => "Availability: that requests succeed",
            Slo::Latency => "Latency: that requests are fast",
        };
        sheet = sheet.row(title, of(slo));
    }
    Some(Draft {
        uid: uid(Board::Objectives),
        title: "Objectives",
        about: "What is promised of every service over 30 days, what is left of its budget, and how fast it burns.",
        from: "now-24h",
        variables: vec![variables::services(landscape)],
        sheet,
    })
}

fn alerts(landscape: &Landscape) -> Plot {
    Plot::states("Alerts about objectives", &[("1", "firing", "red")])
        .about("Empty while every budget burns slowly enough. A click leads to the alert's page.")
        .size(24, 5)
        .or_else("none")
        .leads_to("Runbook", runbook_of_label(landscape))
        .ask(
            "max by (alertname, service, slo) (ALERTS{alertstate=\"firing\", service=~\"$service\", slo!=\"\"})",
            "{{service}} {{alertname}} {{slo}}",
        )
}

/// A recorded series of the chosen services.
fn series(recorded: Recorded, slo: Slo) -> String {
    format!("{recorded}{{ENVIRONMENT, service=~\"$service\", slo=\"{slo}\"}}")
}

fn ratio(seconds: u64, slo: Slo) -> String {
    series(Recorded::ErrorRatio(Duration::from_secs(seconds)), slo)
}

/// How many times faster than evenly over 30 days the budget burns.
fn burn(seconds: u64, slo: Slo) -> String {
    format!("{} / (1 - {})", ratio(seconds, slo), series(Recorded::Objective, slo))
}

fn of(slo: Slo) -> Vec<Plot> {
    let left = series(Recorded::BudgetLeft, slo);
    let mut burns = Plot::lines(&format!("Burn rate by window ({slo})"), Unit::Number)
        .about(
            "1 uses the budget up in exactly 30 days; 14.4 in two days, which pages. Of several services the fastest.",
        )
        .wide(12)
        .steps(&BURNS[1..]);
    for (seconds, name) in WINDOWS {
        burns = burns.ask(format!("max({})", burn(seconds, slo)), name);
    }
    vec![
        Plot::number(&format!("Budget left ({slo})"), Unit::Ratio)
            .about("Of the errors that the objective allows in 30 days, the share that is still to be had. Below 0 the promise is broken.")
            .size(12, 5)
            .below("red")
            .steps(&[(0.0, "orange"), (0.25, "yellow"), (0.5, "green")])
            .ask(left.clone(), "{{service}}"),
        Plot::number(&format!("Budget gone in ({slo})"), Unit::Seconds)
            .about("Time until the budget is used up at the pace of the last hour. Nothing where nothing burns.")
            .size(12, 5)
            .below("red")
            .steps(&[(DAY as f64, "orange"), ((7 * DAY) as f64, "green")])
            .or_else("never")
            .ask(
                format!("clamp_min({left}, 0) * {} / ({} > 0)", 30 * DAY, burn(HOUR, slo)),
                "{{service}}",
            ),
        Plot::table(
            &format!("Promised and kept ({slo})"),
            Unit::Ratio,
            &[
                ("service", "Service"),
                ("Value #A", "Objective"),
                ("Value #B", "Last hour"),
                ("Value #C", "Last 3 days"),
                ("Value #D", "Broken in 3 days"),
            ],
        )
        .about("The objective beside what was kept, and how many requests broke it.")
        .size(12, 8)
        .unit_of("Broken in 3 days", Unit::Count)
        .ask(series(Recorded::Objective, slo), "__auto")
        .ask(format!("1 - {}", ratio(HOUR, slo)), "__auto")
        .ask(format!("1 - {}", ratio(3 * DAY, slo)), "__auto")
        .ask(series(Recorded::ErrorCount(Duration::from_secs(3 * DAY)), slo), "__auto"),
        burns,
        Plot::lines(&format!("Budget left over time ({slo})"), Unit::Ratio)
            .about("A step down is an incident. The budget comes back as the incident leaves the 30 days.")
            .signed()
            .up_to(1.0)
            .ask(left, "{{service}}"),
        Plot::lines(&format!("Share that breaks the promise ({slo})"), Unit::Ratio)
            .about("Of the requests of five minutes those that count against the objective.")
            .ask(ratio(5 * MINUTE, slo), "{{service}}"),
        Plot::lines(&format!("Requests that count ({slo})"), Unit::Requests)
            .about("Requests per second, and those that break the promise. Little traffic makes every ratio jump.")
            .ask(series(Recorded::Requests, slo), "{{service}}")
            .ask(series(Recorded::Errors, slo), "{{service}} broken"),
    ]
}
