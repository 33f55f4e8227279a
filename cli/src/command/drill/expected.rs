//! The alerts that a drill must make fire, before it: whether there are such rules, how long each takes at the least, and
//! whether it can be in time at all.

use std::collections::BTreeMap;

use opsctl_drills::expectation::route::{self, GroupWait};
use opsctl_drills::expectation::{Expectation, Expected, Servers, predict};
use opsctl_platform::prometheus::{AlertRule, PrometheusError};

use crate::config::suggestion;
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::seconds;
use crate::platform::{Opened, alerting};

/// What was found out.
#[derive(Default)]
pub(super) struct Found {
    /// Every alert, with its prediction.
    pub(super) expected: Vec<Expected>,
    /// Where the Alertmanager is.
    pub(super) alertmanager: Option<String>,
}

/// How many names are listed when one is not known.
const LISTED: usize = 20;

/// Asks Prometheus and Alertmanager about the alerts that are expected; nobody is asked when none is.
pub(super) async fn find(context: &Context, opened: &Opened, asked: &[Expectation]) -> Result<Found, Failure> {
    if asked.is_empty() {
        return Ok(Found::default());
    }
    let cluster = opened.there().map(|there| &there.cluster);
    let Servers {
        prometheus,
        alertmanager,
    } = alerting(context, &opened.config, cluster, None).await?;
    let rules = prometheus
        .rules()
        .await
        .map_err(|error| unreachable("prometheus_unreachable", "Prometheus", &error))?;
    let targets = prometheus.targets().await.unwrap_or_else(|error| {
        context.out.warn(format!("how often is scraped is not known: {error}"));
        Vec::new()
    });
    let configuration = alertmanager.configuration().await;
    let configuration =
        configuration.map_err(|error| unreachable("alertmanager_unreachable", "Alertmanager", &error))?;
    let mut expected = Vec::new();
    for asked in asked {
        let of_it: Vec<&AlertRule> = rules.alerts.iter().filter(|rule| rule.name == asked.alert).collect();
        let loaded = rules.alerts.iter().map(|rule| rule.name.as_str());
        // Of several rules of that name the quickest gives the floor.
        let predicted = of_it
            .iter()
            .map(|rule| {
                if let Some(error) = &rule.error {
                    let name = &rule.name;
                    context
                        .out
                        .warn(format!("the rule of {name} could not be evaluated: {error}"));
                }
                let mut labels = rule.labels.clone();
                labels.extend(asked.labels.clone());
                labels.insert("alertname".to_owned(), rule.name.clone());
                predict(rule, &rules, &targets, wait(context, &configuration, &labels))
            })
            .min_by(|a, b| a.floor_seconds.total_cmp(&b.floor_seconds))
            .ok_or_else(|| unknown(&asked.alert, loaded.collect()))?;
        let one = Expected::new(asked.clone(), predicted);
        let least = one.predicted.least_seconds();
        if one.within.as_secs_f64() < least {
            return Err(Failure::usage(
                "too_soon",
                format!("{one} cannot be told within {}", seconds(one.within.as_secs_f64())),
            )
            .cause(format!("it takes {} by its rule and its route", one.predicted.text()))
            .help(format!(
                "allow it more: `--expect-alert {one},within={}s`",
                one.predicted.most_seconds().ceil()
            )));
        }
        expected.push(one);
    }
    Ok(Found {
        expected,
        alertmanager: Some(alertmanager.address().to_owned()),
    })
}

/// How long its group waits; where the configuration cannot be read, as long as by default, at the most.
fn wait(context: &Context, configuration: &str, labels: &BTreeMap<String, String>) -> GroupWait {
    route::group_wait(configuration, labels).unwrap_or_else(|error| {
        context
            .out
            .warn(format!("how long a group waits is not known: {error}"));
        GroupWait::UNKNOWN
    })
}

fn unreachable(code: &'static str, who: &str, error: &PrometheusError) -> Failure {
    Failure::new(
        Exit::Unreachable,
        code,
        format!("{who} could not be asked about the alerts"),
    )
    .because(error)
    .help("nothing was done; `prometheus` and `alertmanager` in opsctl.toml say where they are")
}

fn unknown(alert: &str, loaded: Vec<&str>) -> Failure {
    let failure = Failure::usage(
        "unknown_alert",
        format!("Prometheus has no rule for an alert `{alert}`"),
    );
    match suggestion(alert, loaded.iter().copied()) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None if loaded.is_empty() => failure.help("it has no alerting rule at all"),
        None => {
            let mut names: Vec<String> = loaded.into_iter().map(str::to_owned).collect();
            names.sort();
            names.dedup();
            names.truncate(LISTED);
            failure.details(names)
        }
    }
}

/// What is said of each before anything is done.
pub(super) fn notes(expected: &[Expected]) -> Vec<String> {
    let mut notes = Vec::new();
    for one in expected {
        let within = one.within.as_secs_f64();
        notes.push(format!(
            "expects {one} within {}; predicted {}",
            seconds(within),
            one.predicted.text()
        ));
        if within < one.predicted.floor_seconds {
            notes.push(format!(
                "{one}: {} is below the predicted floor of {}: by luck alone it is in time",
                seconds(within),
                seconds(one.predicted.floor_seconds)
            ));
        }
    }
    notes
}
