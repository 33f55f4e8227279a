//! Rule files and rule tests as Prometheus and promtool read them. What the rules say is not decided here.

use std::collections::BTreeMap;
use std::time::Duration;

use manifest::landscape::window;

use super::layout;
use super::model::{Case, Firing, Group, Rule, RuleFile};
use super::yaml::Yaml;

/// A file of rules.
pub(super) fn rules(file: &RuleFile) -> Yaml {
    Yaml::map([("groups", groups(file))])
}

/// The groups alone, as a PrometheusRule has them too.
pub(super) fn groups(file: &RuleFile) -> Yaml {
    Yaml::List(file.groups.iter().map(group).collect())
}

fn group(group: &Group) -> Yaml {
    Yaml::map([
        ("name", Yaml::text(&group.name)),
        ("interval", Yaml::text(window(group.interval))),
        ("rules", Yaml::List(group.rules.iter().map(rule).collect())),
    ])
}

fn rule(rule: &Rule) -> Yaml {
    match rule {
        Rule::Record(record) => Yaml::map([
            ("record", Yaml::text(&record.name)),
            ("expr", Yaml::Block(layout::lines(&record.expr))),
            ("labels", Yaml::texts(record.labels.clone())),
        ]),
        Rule::Alert(alert) => {
            let mut entries = vec![
                ("alert", Yaml::text(alert.name)),
                ("expr", Yaml::Block(layout::lines(&alert.expr))),
            ];
            let times = [("for", alert.hold), ("keep_firing_for", alert.keep)];
            let times = times.into_iter().filter(|(_, time)| !time.is_zero());
            entries.extend(times.map(|(key, time)| (key, Yaml::text(window(time)))));
            entries.push(("labels", Yaml::texts(alert.labels.clone())));
            entries.push(("annotations", Yaml::texts(alert.annotations.clone())));
            Yaml::map(entries)
        }
    }
}

/// Rule tests beside a file of rules: one file for each pace at which its cases evaluate, with what its name ends in.
pub(super) fn tests(file: &RuleFile, rules: &str) -> Vec<(String, Yaml)> {
    let mut by_pace: BTreeMap<Duration, Vec<&Case>> = BTreeMap::new();
    for case in &file.cases {
        by_pace.entry(case.pace).or_default().push(case);
    }
    by_pace
        .into_iter()
        .map(|(pace, cases)| {
            let document = Yaml::map([
                ("rule_files", Yaml::list([rules])),
                ("evaluation_interval", Yaml::text(window(pace))),
                // Groups as they stand: what one records another reads.
                (
                    "group_eval_order",
                    Yaml::list(file.groups.iter().map(|group| group.name.clone())),
                ),
                ("tests", Yaml::List(cases.into_iter().map(test).collect())),
            ]);
            (window(pace), document)
        })
        .collect()
}

fn test(case: &Case) -> Yaml {
    let series = case
        .series
        .iter()
        .map(|(series, values)| Yaml::map([("series", Yaml::text(series)), ("values", Yaml::text(values))]));
    let expected = Yaml::map([
        ("eval_time", Yaml::text(window(case.at))),
        ("alertname", Yaml::text(case.alert)),
        ("exp_alerts", Yaml::List(case.fires.iter().map(firing).collect())),
    ]);
    Yaml::map([
        ("name", Yaml::text(format!("{}: {}", case.alert, case.shows))),
        ("interval", Yaml::text("1m")),
        ("input_series", Yaml::List(series.collect())),
        ("alert_rule_test", Yaml::List(vec![expected])),
    ])
}

fn firing(firing: &Firing) -> Yaml {
    Yaml::map([
        ("exp_labels", Yaml::texts(firing.labels.clone())),
        ("exp_annotations", Yaml::texts(firing.annotations.clone())),
    ])
}
