//! Alerts about what a service tells of itself besides its requests: breakers, sagas, outbox, dead letters, pools; and the
//! one that fires when it no longer tells it.

use std::time::Duration;

use manifest::landscape::{Instrumentation, Selector, Service, string, window};

use super::model::{Alert, Case, RuleFile, STEP, Severity};
use super::subject::{Subject, Words};
use super::thresholds::Thresholds;
use super::traffic::series;

type Built = (Alert, Vec<Case>);
type Builder = fn(&Tried<'_>, &Subject<'_>, &Thresholds) -> Vec<Built>;

/// Which alerts each instrumentation has, and by which metric one sees that it is there.
const ALERTS: [(Instrumentation, &catalogue::Metric, Builder); 5] = [
    (
        Instrumentation::CircuitBreaker,
        catalogue::CIRCUIT_BREAKER_STATE.metric(),
        circuit_breaker_open,
    ),
    (Instrumentation::Saga, catalogue::ORDERS_OPEN.metric(), saga_stuck),
    (
        Instrumentation::Outbox,
        catalogue::OUTBOX_OLDEST_AGE_SECONDS.metric(),
        outbox_backlog,
    ),
    (
        Instrumentation::DeadLetters,
        catalogue::DEAD_LETTERS.metric(),
        dead_letter_backlog,
    ),
    (
        Instrumentation::DatabasePool,
        catalogue::DB_POOL_CONNECTIONS_MAX.metric(),
        high_db_connection_usage,
    ),
];

/// Adds the group of what a service tells of itself.
pub(super) fn add(
    file: &mut RuleFile,
    service: &Service,
    subject: &Subject<'_>,
    interval: Duration,
    thresholds: &Thresholds,
) {
    let tried = Tried { service };
    let mut alerts: Vec<Built> = Vec::new();
    for (instrumentation, _, build) in ALERTS {
        if service.exports.contains(&instrumentation) {
            alerts.extend(build(&tried, subject, thresholds));
        }
    }
    alerts.extend(metrics_absent(&tried, subject));
    file.add(format!("{}-instruments", service.name), interval, alerts);
}

/// Makes cases about a service.
struct Tried<'a> {
    service: &'a Service,
}

/// A series of the service: metric, labels, values.
type Given<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

impl Tried<'_> {
    fn of(&self, metric: &catalogue::Metric) -> String {
        self.service.selector.of(metric.name)
    }

    /// With these series the alert fires once, with those labels and that value, or not at all.
    fn case(
        &self,
        alert: &Alert,
        shows: &str,
        given: &[Given<'_>],
        minutes: u32,
        fires: Option<(&[(&str, &str)], &str)>,
    ) -> Case {
        let made = given.iter().filter_map(|(metric, labels, values)| {
            Some((series(&self.service.selector, metric, labels)?, (*values).to_owned()))
        });
        Case {
            shows: format!("{}: {shows}", self.service.name),
            alert: alert.name,
            series: made.collect(),
            at: STEP * minutes,
            pace: STEP,
            fires: fires
                .map(|(labels, value)| alert.firing(labels, value))
                .into_iter()
                .collect(),
        }
    }
}

fn circuit_breaker_open(tried: &Tried<'_>, subject: &Subject<'_>, thresholds: &Thresholds) -> Vec<Built> {
    let (state, transitions) = (
        catalogue::CIRCUIT_BREAKER_STATE.metric().name,
        catalogue::CIRCUIT_BREAKER_TRANSITIONS_TOTAL.metric().name,
    );
    let selector = &tried.service.selector;
    let open = selector.clone().matching("state", "open|forced_open").of(state);
    let opened = selector.clone().matching("to", "open|forced_open").of(transitions);
    let often = thresholds.breaker_openings;
    // Half a minute between two probes is closed to no caller: the two minutes look past it.
    let expr =
        format!("max by (name) (max_over_time({open}[2m])) == 1 or sum by (name) (increase({opened}[15m])) >= {often}");
    let words = Words {
        summary: format!("{}: breaker {{{{ $labels.name }}}} is open", tried.service.name),
        description: format!(
            "Calls of {} under the policy {{{{ $labels.name }}}} are refused, or it opened {often} times in a quarter of an hour.",
            tried.service.name
        ),
    };
    let alert = subject.alert("CircuitBreakerOpen", Severity::Ticket, expr, words);
    let payments: &[(&str, &str)] = &[("name", "payments")];
    let of = |state: &'static str| [("name", "payments"), ("state", state)];
    let other_pod = [("name", "payments"), ("state", "open"), ("instance", "10.0.0.2:8080")];
    let to_open = [("name", "payments"), ("from", "closed"), ("to", "open")];
    let fires = Some((payments, "1"));
    let cases = vec![
        tried.case(
            &alert,
            "it is open",
            &[(state, &of("open"), "1x20"), (state, &of("closed"), "0x20")],
            10,
            fires,
        ),
        tried.case(
            &alert,
            "it is forced open",
            &[(state, &of("forced_open"), "1x20")],
            10,
            fires,
        ),
        tried.case(
            &alert,
            "it is open on one instance of two: one alert",
            &[(state, &of("open"), "0x20"), (state, &other_pod, "1x20")],
            10,
            fires,
        ),
        tried.case(
            &alert,
            "it is half open now and then",
            &[(state, &of("open"), "1 1 0 1 1 0 1 1 0 1 1 0 1 1 0")],
            12,
            fires,
        ),
        tried.case(
            &alert,
            "it opens between scrapes",
            &[(state, &of("open"), "0x20"), (transitions, &to_open, "0+1x20")],
            18,
            Some((payments, "15")),
        ),
        tried.case(
            &alert,
            "it opened once, shortly",
            &[
                (state, &of("open"), "0 0 0 0 0 1 0x20"),
                (transitions, &to_open, "0 0 0 0 0 1x20"),
            ],
            8,
            None,
        ),
        tried.case(
            &alert,
            "it is closed",
            &[(state, &of("open"), "0x20"), (state, &of("closed"), "1x20")],
            15,
            None,
        ),
        tried.case(
            &alert,
            "it closed again",
            &[(state, &of("open"), "1x10 0x20")],
            25,
            None,
        ),
    ];
    vec![(alert, cases)]
}

fn saga_stuck(tried: &Tried<'_>, subject: &Subject<'_>, thresholds: &Thresholds) -> Vec<Built> {
    let service = &tried.service.name;
    let selector = &tried.service.selector;
    let (open, finished, steps) = (
        catalogue::ORDERS_OPEN.metric(),
        catalogue::ORDERS_FINISHED_TOTAL.metric(),
        catalogue::SAGA_STEPS_TOTAL.metric(),
    );
    let idle = window(thresholds.saga_idle);
    // Every instance tells the number of the same table: the largest of them, not their sum.
    let expr = format!(
        "max(min_over_time({}[{idle}])) > 0 and sum(increase({}[{idle}])) == 0",
        tried.of(open),
        tried.of(finished)
    );
    let words = Words {
        summary: format!("{service}: orders are open and none is finished"),
        description: format!(
            "{{{{ $value | printf \"%.0f\" }}}} orders were open all the last {idle}, and none reached a final status."
        ),
    };
    let stands = subject
        .alert("SagaStuck", Severity::Ticket, expr, words)
        .label("cause", "idle")
        .times(10, 5);
    let minutes = u32::try_from(thresholds.saga_idle.as_secs() / 60).unwrap_or(30) + 20;
    let delivered: &[(&str, &str)] = &[("status", "delivered")];
    let mut idle_cases = vec![
        tried.case(
            &stands,
            "three orders are open and nothing moves",
            &[(open.name, &[], "3x90"), (finished.name, delivered, "7x90")],
            minutes,
            Some((&[], "3")),
        ),
        tried.case(
            &stands,
            "two instances tell the same number",
            &[
                (open.name, &[], "3x90"),
                (open.name, &[("instance", "10.0.0.2:8080")], "3x90"),
                (finished.name, delivered, "7x90"),
            ],
            minutes,
            Some((&[], "3")),
        ),
        tried.case(
            &stands,
            "orders are open and others are finished",
            &[(open.name, &[], "3x90"), (finished.name, delivered, "7+1x90")],
            minutes,
            None,
        ),
        tried.case(
            &stands,
            "there is nothing to do",
            &[(open.name, &[], "0x90"), (finished.name, delivered, "7x90")],
            minutes,
            None,
        ),
        tried.case(
            &stands,
            "an order came just now",
            &[
                (open.name, &[], &format!("0x{} 1x20", minutes - 5)),
                (finished.name, delivered, "7x90"),
            ],
            minutes,
            None,
        ),
        tried.case(&stands, "there is no data", &[], minutes, None),
    ];

    let count = |which: Selector| format!("sum by (step) (increase({}[15m]))", which.of(steps.name));
    let expr = format!(
        "{} >= {} unless {} > 0",
        count(selector.clone().equal("outcome", "retry")),
        thresholds.saga_retries,
        count(selector.clone().matching("outcome", "ok|refused|failed"))
    );
    let words = Words {
        summary: format!("{service}: the step {{{{ $labels.step }}}} is only tried again"),
        description:
            "{{ $value | printf \"%.0f\" }} attempts of the step {{ $labels.step }} in a quarter of an hour, and none \
                      of them came to anything."
                .to_owned(),
    };
    let retries = subject
        .alert("SagaStuck", Severity::Ticket, expr, words)
        .label("cause", "retrying")
        .times(5, 5);
    let of = |outcome: &'static str| [("step", "payment"), ("outcome", outcome)];
    idle_cases.extend([
        tried.case(
            &retries,
            "a step is only tried again",
            &[(steps.name, &of("retry"), "0+1x40"), (steps.name, &of("ok"), "5x40")],
            30,
            Some((&[("step", "payment")], "15")),
        ),
        tried.case(
            &retries,
            "a step is tried again and comes to something",
            &[(steps.name, &of("retry"), "0+1x40"), (steps.name, &of("ok"), "5+1x40")],
            30,
            None,
        ),
        tried.case(
            &retries,
            "two attempts are an accident",
            &[
                (steps.name, &of("retry"), "0x10 1 2x30"),
                (steps.name, &of("ok"), "5x40"),
            ],
            20,
            None,
        ),
    ]);
    vec![(stands, idle_cases), (retries, Vec::new())]
}

fn outbox_backlog(tried: &Tried<'_>, subject: &Subject<'_>, thresholds: &Thresholds) -> Vec<Built> {
    let oldest = catalogue::OUTBOX_OLDEST_AGE_SECONDS.metric();
    let bound = thresholds.outbox_age.as_secs();
    let expr = format!("max({}) > {bound}", tried.of(oldest));
    let words = Words {
        summary: format!("{}: events do not get out of the outbox", tried.service.name),
        description: "The oldest event has waited for {{ $value | humanizeDuration }}.".to_owned(),
    };
    let alert = subject
        .alert("OutboxBacklog", Severity::Ticket, expr, words)
        .times(5, 5);
    let above = format!("{}x30", bound + 60);
    let cases = vec![
        tried.case(
            &alert,
            "an event waits",
            &[(oldest.name, &[], "0+60x30")],
            20,
            Some((&[], "20m 0s")),
        ),
        tried.case(
            &alert,
            "two instances tell the same age",
            &[
                (oldest.name, &[], "600x30"),
                (oldest.name, &[("instance", "10.0.0.2:8080")], "600x30"),
            ],
            20,
            Some((&[], "10m 0s")),
        ),
        tried.case(
            &alert,
            "events wait no longer than they may",
            &[(oldest.name, &[], &format!("{bound}x30"))],
            20,
            None,
        ),
        tried.case(
            &alert,
            "one waited, shortly",
            &[(oldest.name, &[], &format!("0x9 {} 0x20", bound + 60))],
            12,
            None,
        ),
        tried.case(
            &alert,
            "it got through",
            &[(oldest.name, &[], &format!("{} 0x30", above.replace("x30", "x10")))],
            30,
            None,
        ),
        tried.case(&alert, "there is no data", &[], 20, None),
    ];
    vec![(alert, cases)]
}

fn dead_letter_backlog(tried: &Tried<'_>, subject: &Subject<'_>, _: &Thresholds) -> Vec<Built> {
    let letters = catalogue::DEAD_LETTERS.metric();
    let expr = format!("max({}) > 0", tried.of(letters));
    let words = Words {
        summary: format!("{}: events wait for a person", tried.service.name),
        description: "{{ $value | printf \"%.0f\" }} events were given up.".to_owned(),
    };
    let alert = subject
        .alert("DeadLetterBacklog", Severity::Ticket, expr, words)
        .times(5, 5);
    let cases = vec![
        tried.case(
            &alert,
            "two events were given up",
            &[(letters.name, &[], "0 2x30")],
            10,
            Some((&[], "2")),
        ),
        tried.case(
            &alert,
            "two instances tell the same number",
            &[
                (letters.name, &[], "2x30"),
                (letters.name, &[("instance", "10.0.0.2:8080")], "2x30"),
            ],
            10,
            Some((&[], "2")),
        ),
        tried.case(&alert, "there are none", &[(letters.name, &[], "0x30")], 20, None),
        tried.case(
            &alert,
            "they were sent again",
            &[(letters.name, &[], "2x10 0x20")],
            25,
            None,
        ),
        tried.case(&alert, "there is no data", &[], 20, None),
    ];
    vec![(alert, cases)]
}

fn high_db_connection_usage(tried: &Tried<'_>, subject: &Subject<'_>, thresholds: &Thresholds) -> Vec<Built> {
    let (open, size) = (
        catalogue::DB_POOL_CONNECTIONS.metric().name,
        catalogue::DB_POOL_CONNECTIONS_MAX.metric().name,
    );
    let selector = &tried.service.selector;
    let used = selector.clone().equal("state", "used").of(open);
    // A pool belongs to one instance: a full one is not helped by another's room. Over ten minutes, since a pool of one
    // connection is either idle or full at any scrape.
    let expr = format!(
        "max by (pool) (sum by (instance, pool) (avg_over_time({used}[10m])) / on (instance, pool) (sum by (instance, pool) \
         ({}) > 0)) > {}",
        selector.of(size),
        thresholds.connections
    );
    let words = Words {
        summary: format!("{}: the pool {{{{ $labels.pool }}}} is nearly full", tried.service.name),
        description:
            "{{ $value | humanizePercentage }} of its connections were in use over the last 10 minutes, on the \
                      instance where that is worst."
                .to_owned(),
    };
    let alert = subject
        .alert("HighDBConnectionUsage", Severity::Ticket, expr, words)
        .times(5, 5);
    let pool: &[(&str, &str)] = &[("pool", "shop")];
    let state = |state: &'static str| [("pool", "shop"), ("state", state)];
    let second = [("pool", "shop"), ("state", "used"), ("instance", "10.0.0.2:8080")];
    let size_of_second = [("pool", "shop"), ("instance", "10.0.0.2:8080")];
    let cases = vec![
        tried.case(
            &alert,
            "all connections are in use",
            &[
                (open, &state("used"), "10x40"),
                (open, &state("idle"), "0x40"),
                (size, pool, "10x40"),
            ],
            30,
            Some((pool, "100%")),
        ),
        tried.case(
            &alert,
            "one instance's pool is full and another's is empty",
            &[
                (open, &state("used"), "1x40"),
                (size, pool, "10x40"),
                (open, &second, "10x40"),
                (size, &size_of_second, "10x40"),
            ],
            30,
            Some((pool, "100%")),
        ),
        tried.case(
            &alert,
            "half of them are in use",
            &[
                (open, &state("used"), "5x40"),
                (open, &state("idle"), "5x40"),
                (size, pool, "10x40"),
            ],
            30,
            None,
        ),
        tried.case(
            &alert,
            "the only connection is in use at every other scrape",
            &[
                (
                    open,
                    &state("used"),
                    "0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1",
                ),
                (size, pool, "1x40"),
            ],
            25,
            None,
        ),
        tried.case(
            &alert,
            "a pool without a size",
            &[(open, &state("used"), "5x40"), (size, pool, "0x40")],
            30,
            None,
        ),
        tried.case(
            &alert,
            "it has room again",
            &[(open, &state("used"), "10x20 1x40"), (size, pool, "10x70")],
            50,
            None,
        ),
        tried.case(&alert, "there is no data", &[], 30, None),
    ];
    vec![(alert, cases)]
}

/// The partner of those above: without their series they are silent, whatever happens.
fn metrics_absent(tried: &Tried<'_>, subject: &Subject<'_>) -> Option<Built> {
    let selector = &tried.service.selector;
    let up = selector.of("up");
    let told: Vec<&str> = ALERTS
        .iter()
        .filter(|(instrumentation, ..)| tried.service.exports.contains(instrumentation))
        .map(|(_, metric, _)| metric.name)
        .collect();
    let each = told.iter().map(|metric| {
        let missing = format!("sum({up}) > 0 unless max({})", selector.of(metric));
        format!("label_replace({missing}, \"metric\", {}, \"\", \"\")", string(metric))
    });
    let expr = each.collect::<Vec<_>>().join(" or ");
    let words = Words {
        summary: format!("{}: {{{{ $labels.metric }}}} is missing", tried.service.name),
        description: format!(
            "{{{{ $value | printf \"%.0f\" }}}} instances of {} are scraped, and none of them exports {{{{ $labels.metric }}}}. The \
             alerts that stand on it cannot fire.",
            tried.service.name
        ),
    };
    let first = *told.first()?;
    let alert = subject
        .alert("MetricsAbsent", Severity::Ticket, expr, words)
        .times(15, 5);
    let present = |skipped: &str| -> Vec<Given<'_>> {
        let rest = told.iter().filter(|metric| **metric != skipped);
        rest.map(|metric| -> Given<'_> { (metric, &[], "0x60") })
            .chain([("up", [].as_slice(), "1x60")])
            .collect()
    };
    let cases = vec![
        tried.case(
            &alert,
            "one is missing",
            &present(first),
            30,
            Some((&[("metric", first)], "1")),
        ),
        tried.case(&alert, "all are there", &present(""), 30, None),
        tried.case(&alert, "one is missing since a moment", &present(first), 10, None),
        tried.case(&alert, "the targets are gone too", &[], 30, None),
    ];
    Some((alert, cases))
}
