//! What stands between the services and those that they call: breakers, retries, time limits, bulkheads, rate limits,
//! hedges, load shedding, fallbacks. All of it is by the name of the policy.

use manifest::landscape::{Board, Landscape};

use super::sheet::{Plot, Sheet};
use super::{Draft, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    let sheet = Sheet::default()
        .row("Circuit breakers", breakers())
        .row("Retries", retries())
        .row("Time limits and fallbacks", limits())
        .row("How many at one time", concurrency())
        .folded("Rates, chance and hedges", rates())
        .folded("Put in on purpose", [states()]);
    Some(Draft {
        uid: uid(Board::Policies),
        title: "Policies",
        about: "Breakers, retries, limits and fallbacks around the calls of every service: what they refuse, and why.",
        from: "now-1h",
        variables: vec![
            variables::services(landscape),
            variables::label_values(
                "policy",
                "Policy",
                "The policies that are shown, by name.",
                "timeouts_total",
                "name",
            ),
        ],
        sheet,
    })
}

/// Something per second, by policy and one label.
fn per_second(title: &str, unit: Unit, metric: &str, label: &str, about: &str) -> Plot {
    Plot::lines(title, unit).about(about).ask(
        format!("sum by (job, name, {label}) (rate({metric}{{SERVICE, name=~\"$policy\"}}[$__rate_interval]))"),
        &format!("{{{{job}}}} {{{{name}}}} {{{{{label}}}}}"),
    )
}

/// Something per second, by policy.
fn counted(title: &str, metric: &str, about: &str) -> Plot {
    Plot::lines(title, Unit::PerSecond).about(about).ask(
        format!("sum by (job, name) (rate({metric}{{SERVICE, name=~\"$policy\"}}[$__rate_interval]))"),
        "{{job}} {{name}}",
    )
}

/// A level, by policy: of all instances together, or of the worst.
fn level(title: &str, unit: Unit, all: &str, metric: &str, about: &str) -> Plot {
    Plot::lines(title, unit).about(about).ask(
        format!("{all} by (job, name) ({metric}{{SERVICE, name=~\"$policy\"}})"),
        "{{job}} {{name}}",
    )
}

fn breakers() -> [Plot; 4] {
    [
        Plot::states(
            "State",
            &[("0", "closed", "green"), ("1", "half open", "yellow"), ("2", "open", "red"), ("3", "forced", "purple")],
        )
        .about("Closed is healthy. Of several instances the worst: one open breaker is enough to look.")
        .size(24, 6)
        .ask(
            "max by (job, name) (circuit_breaker_state{SERVICE, name=~\"$policy\", state=~\"forced_open|forced_closed\"} * 3) > 0 or max by (job, name) (circuit_breaker_state{SERVICE, name=~\"$policy\", state=\"open\"} * 2) > 0 or max by (job, name) (circuit_breaker_state{SERVICE, name=~\"$policy\", state=\"half_open\"})",
            "{{job}} {{name}}",
        ),
        per_second(
            "Calls by outcome",
            Unit::Requests,
            "circuit_breaker_calls_total",
            "outcome",
            "Calls that a breaker saw. `rejected` were not made.",
        ),
        level(
            "Share of failures",
            Unit::Ratio,
            "max",
            "circuit_breaker_failure_ratio",
            "In the breaker's own window, of the worst instance. The breaker opens at the ratio that it is set to.",
        )
        .up_to(1.0),
        Plot::lines("Changes of state", Unit::Count)
            .about("How often a breaker changed within the interval. One that opens and closes again and again has too short a pause.")
            .ask(
                "sum by (job, name, from, to) (increase(circuit_breaker_transitions_total{SERVICE, name=~\"$policy\"}[$__rate_interval])) > 0",
                "{{job}} {{name}} {{from}} to {{to}}",
            ),
    ]
}

fn retries() -> [Plot; 4] {
    [
        per_second(
            "Attempts beyond the first",
            Unit::PerSecond,
            "retry_attempts_total",
            "reason",
            "Retries per second, by what was wrong with the attempt before.",
        )
        .wide(6),
        level(
            "Retries per request",
            Unit::Ratio,
            "max",
            "retry_budget_ratio",
            "In the budget's window, of the worst instance. At the budget's ratio retries stop, so that they never become the load.",
        )
        .wide(6),
        level(
            "Retries that could be made now",
            Unit::Count,
            "min",
            "retry_budget_left",
            "Of the instance with the fewest. At 0 the next failure is final.",
        )
        .wide(6),
        counted(
            "Retries not made",
            "retry_budget_exhausted_total",
            "Because the budget was spent: whoever is called is in trouble as a whole.",
        )
        .wide(6),
    ]
}

fn limits() -> [Plot; 4] {
    [
        per_second(
            "Calls cut off",
            Unit::PerSecond,
            "timeouts_total",
            "scope",
            "By a time limit: of one attempt, or of the call with all its attempts.",
        )
        .wide(6),
        per_second(
            "Answers by a fallback",
            Unit::PerSecond,
            "fallback_total",
            "reason",
            "Calls that a fallback answered, by what was wrong.",
        )
        .wide(6),
        level(
            "Answers that are remembered",
            Unit::Count,
            "sum",
            "stale_entries",
            "By caches of stale answers, which a fallback takes them from.",
        )
        .wide(6),
        counted(
            "Nothing was remembered",
            "stale_missed_total",
            "Calls without an answer, fresh or stale.",
        )
        .wide(6),
    ]
}

fn concurrency() -> [Plot; 6] {
    let beside = |plot: Plot, what: &str, metric: &str| {
        plot.ask(
            format!("sum by (job, name) ({metric}{{SERVICE, name=~\"$policy\"}})"),
            &format!("{{{{job}}}} {{{{name}}}} {what}"),
        )
    };
    let bulkhead = Plot::lines("Bulkheads", Unit::Count)
        .about("Calls inside, those that wait, and how many places there are. Waiting calls at a full bulkhead are refused next.");
    let limit = Plot::lines("Limits that find themselves", Unit::Count)
        .about("Calls inside, and how many are allowed: that follows how fast answers come.");
    let shed = Plot::lines("Load shedding", Unit::Count)
        .about("Requests inside, and how many the most important ones may be. No limit is shown while it is off.");
    [
        beside(beside(beside(bulkhead, "inside", "bulkhead_in_flight"), "waiting", "bulkhead_queued"), "places", "bulkhead_limit"),
        beside(beside(limit, "inside", "concurrency_limit_in_flight"), "allowed", "concurrency_limit"),
        beside(beside(shed, "inside", "shed_in_flight"), "allowed", "shed_limit"),
        Plot::lines("Refused", Unit::PerSecond)
            .about("Calls that a bulkhead or a limit refused.")
            .ask(
                "sum by (job, name) (rate(bulkhead_rejected_total{SERVICE, name=~\"$policy\"}[$__rate_interval]))",
                "{{job}} {{name}} bulkhead",
            )
            .ask(
                "sum by (job, name) (rate(concurrency_limit_rejected_total{SERVICE, name=~\"$policy\"}[$__rate_interval]))",
                "{{job}} {{name}} limit",
            ),
        counted(
            "What lowered the limits",
            "concurrency_limit_dropped_total",
            "Timeouts and overloads, each of which lowers the limit that found itself.",
        ),
        per_second(
            "Requests shed",
            Unit::PerSecond,
            "shed_total",
            "priority",
            "Refused because there was too much to do, the least important ones first.",
        ),
    ]
}

fn rates() -> [Plot; 6] {
    [
        counted(
            "Refused by a rate limit",
            "rate_limit_rejected_total",
            "Calls above the rate.",
        ),
        level(
            "Keys of rate limits",
            Unit::Count,
            "max",
            "rate_limit_keys",
            "Keys that a rate limit by key remembers, in the instance with the most.",
        ),
        counted(
            "Keys without room",
            "rate_limit_overflowed_total",
            "Calls of keys for which a rate limit by key had no room: they shared one.",
        ),
        level(
            "Chance of refusal",
            Unit::Ratio,
            "max",
            "throttle_reject_ratio",
            "With which a throttle refuses the next call, in the worst instance.",
        )
        .up_to(1.0),
        counted(
            "Refused by chance",
            "throttle_rejected_total",
            "Calls that a throttle refused before they were made.",
        ),
        per_second(
            "Hedges",
            Unit::PerSecond,
            "hedges_total",
            "won",
            "Attempts beside a slow one, by whether they answered first. Those that never do are load for nothing.",
        ),
    ]
}

fn states() -> Plot {
    level(
        "Faults",
        Unit::Count,
        "sum",
        "faults_active",
        "Faults that are put into a policy's calls. 0 but for drills.",
    )
    .wide(24)
    .steps(&[(1.0, "orange")])
}
