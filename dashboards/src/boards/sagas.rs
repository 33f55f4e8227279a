//! What goes over several services: sagas, the outbox and its relay, consumers, dead letters; and what came of it in
//! orders, payments, notifications and accounts.

use manifest::landscape::{Board, Instrumentation, Landscape};

use super::requests::quantile;
use super::sheet::{Plot, Sheet};
use super::{Draft, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    let has = |group| {
        landscape
            .services
            .iter()
            .any(|service| service.exports.contains(&group))
    };
    if ![
        Instrumentation::Saga,
        Instrumentation::Outbox,
        Instrumentation::DeadLetters,
    ]
    .into_iter()
    .any(has)
    {
        return None;
    }
    let sheet = Sheet::default()
        .row("Sagas", sagas())
        .row("Outbox", outbox())
        .row("Dead letters and consumers", consumers())
        .folded("Payments", payments())
        .folded("Notifications and accounts", others());
    Some(Draft {
        uid: uid(Board::Sagas),
        title: "Sagas and outbox",
        about: "Work that goes over several services: how far it is, what waits, what was given up.",
        from: "now-3h",
        variables: vec![variables::services(landscape)],
        sheet,
    })
}

/// Something per second, by one label.
fn by(title: &str, metric: &str, label: &str, about: &str) -> Plot {
    Plot::lines(title, Unit::PerSecond).about(about).ask(
        format!("sum by ({label}) (rate({metric}{{SERVICE}}[$__rate_interval]))"),
        &format!("{{{{{label}}}}}"),
    )
}

fn sagas() -> [Plot; 6] {
    [
        Plot::lines("Orders", Unit::PerSecond)
            .about("Orders per second: stored, and repeated requests that were answered from their key.")
            .ask("sum(rate(orders_created_total{SERVICE}[$__rate_interval]))", "stored")
            .ask("sum(rate(orders_replayed_total{SERVICE}[$__rate_interval]))", "repeated"),
        by("Orders that ended", "orders_finished_total", "status", "By how they ended."),
        Plot::lines("Open orders", Unit::Count)
            .about("Orders without a final status. Every replica counts the same table, so this is the highest, not the sum. One that only grows is a saga that is stuck.")
            .ask("max by (job) (orders_open{SERVICE})", "{{job}}"),
        Plot::lines("Steps by outcome", Unit::PerSecond)
            .about("Steps of sagas. `retry` is tried again, `failed` was given up, `refund` and `cancel` undo.")
            .ask(
                "sum by (step, outcome) (rate(saga_steps_total{SERVICE}[$__rate_interval]))",
                "{{step}} {{outcome}}",
            ),
        Plot::lines("Time to the end", Unit::Seconds)
            .about("From the order's arrival to its final status: half and 95 of 100.")
            .ask(quantile("0.5", "le", "saga_duration_seconds_bucket{SERVICE}"), "half")
            .ask(quantile("0.95", "le", "saga_duration_seconds_bucket{SERVICE}"), "95 %"),
        Plot::heat("All times to the end", Unit::Seconds)
            .about("How many orders took how long.")
            .ask("sum by (le) (rate(saga_duration_seconds_bucket{SERVICE}[$__rate_interval]))", "{{le}}"),
    ]
}

fn outbox() -> [Plot; 4] {
    [
        Plot::lines("Events that wait", Unit::Count)
            .about("Events that no consumer has acknowledged. Every replica counts the same table, so this is the highest, not the sum.")
            .wide(6)
            .ask("max by (job) (outbox_pending{SERVICE})", "{{job}}"),
        Plot::lines("Age of the oldest event", Unit::Seconds)
            .about("A level says little, an age says it: one that grows by a second a second is a relay that stands still.")
            .wide(6)
            .steps(&[(60.0, "orange"), (300.0, "red")])
            .ask("max by (job) (outbox_oldest_age_seconds{SERVICE})", "{{job}}"),
        by("Events relayed", "outbox_relayed_total", "result", "Events that the relay sent, by whether they arrived.").wide(6),
        Plot::lines("Reconciliation", Unit::Count)
            .about("Comparisons of charges with orders in the last hour, and charges that were refunded because they have no order.")
            .wide(6)
            .ask("sum by (result) (increase(reconciliation_runs_total{SERVICE}[1h]))", "runs {{result}}")
            .ask("sum(increase(reconciliation_refunds_total{SERVICE}[1h]))", "refunds"),
    ]
}

fn consumers() -> [Plot; 4] {
    [
        Plot::lines("Dead letters", Unit::Count)
            .about("Events that wait for a person. Every replica counts the same table, so this is the highest, not the sum.")
            .wide(6)
            .steps(&[(1.0, "orange")])
            .ask("max by (job) (dead_letters{SERVICE})", "{{job}}"),
        Plot::lines("Dead letters sent again", Unit::Count)
            .about("By somebody, within the last hour.")
            .wide(6)
            .ask("sum(increase(dead_letters_replayed_total{SERVICE}[1h]))", "sent again"),
        Plot::lines("Deliveries", Unit::PerSecond)
            .about("Deliveries that consumers handled, by what the broker was told.")
            .wide(6)
            .ask(
                "sum by (job, name, outcome) (rate(consumer_messages_total{SERVICE}[$__rate_interval]))",
                "{{job}} {{name}} {{outcome}}",
            ),
        Plot::states("Consumers", &[("0", "takes messages", "green"), ("1", "paused", "orange")])
            .about("A consumer pauses while what it calls is down. One that stays paused needs a look at its policy.")
            .size(6, 8)
            .ask("max by (job, name) (consumer_paused{SERVICE})", "{{job}} {{name}}"),
    ]
}

fn payments() -> [Plot; 3] {
    [
        by(
            "Payments",
            "payments_processed_total",
            "outcome",
            "Requests to charge, by outcome. `replayed` were answered from their key: nobody is charged twice.",
        ),
        by(
            "Refunds",
            "payments_refunded_total",
            "outcome",
            "Requests to give money back, by outcome.",
        ),
        Plot::lines("Charged", Unit::PerSecond)
            .about("Hundredths of the currency per second.")
            .ask(
                "sum(rate(payments_charged_cents_total{SERVICE}[$__rate_interval]))",
                "cents",
            ),
    ]
}

fn others() -> [Plot; 5] {
    [
        by(
            "Events received",
            "notifications_events_total",
            "outcome",
            "By the notifications service, by outcome.",
        ),
        by(
            "Notifications",
            "notifications_sent_total",
            "outcome",
            "Attempts to deliver one; `dead` were given up.",
        ),
        by(
            "Registrations",
            "identity_registrations_total",
            "outcome",
            "New accounts, by outcome.",
        ),
        by(
            "Logins",
            "identity_logins_total",
            "outcome",
            "By outcome. Many that are refused are somebody who guesses.",
        )
        .wide(12),
        by(
            "Signing keys read again",
            "identity_key_reloads_total",
            "result",
            "Every five seconds by every instance; an error keeps the old keys.",
        )
        .wide(12),
    ]
}
