//! An Alertmanager's configuration, made fit to be run in a test: nobody real is told, nothing is waited for, and it is
//! seen which route an alert takes. Pure.
//!
//! Every route gets a receiver of its own, which is a webhook here; what the configuration says of receivers and of
//! everything global is never read beyond the receivers' names, so that no secret is. Alerts are not grouped, and are
//! told at once. A time interval becomes one that holds always, or never. Alerts of different tests do not inhibit each
//! other: each inhibition also wants the test to be the same.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lint::document::{LIMITS, Node, Style, Value as Yaml, read};
use serde_json::{Map, Value, json};

use super::calendar::Entry;

/// The label that says which test an alert belongs to.
pub(super) const TEST: &str = "opsctl_test";
/// The label of two alerts of which one inhibits the other as soon as Alertmanager has seen all that came before.
pub(super) const SENTINEL: &str = "opsctl_sentinel";

/// So much is shown of a route's matchers and its parents'.
const LONGEST_PATH: usize = 1000;

/// A configuration, read.
#[derive(Debug)]
pub(super) struct Config {
    /// Routes, a parent before its children.
    pub routes: Vec<Route>,
    document: Map<String, Value>,
    intervals: BTreeMap<String, Vec<Entry>>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Its matchers and its parents', for people.
    pub path: String,
    /// The receiver that it or the nearest parent names.
    pub receiver: String,
}

/// Why a text is no configuration.
#[derive(Debug)]
pub(super) struct Unfit {
    /// Where, from 1; 0 where it is about the whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl From<String> for Unfit {
    fn from(what: String) -> Self {
        Self { line: 0, what }
    }
}

impl From<&str> for Unfit {
    fn from(what: &str) -> Self {
        what.to_owned().into()
    }
}

impl Config {
    /// Reads a configuration.
    pub fn read(text: &str) -> Result<Self, Unfit> {
        let documents = read(text, LIMITS).map_err(|error| Unfit {
            line: text
                .get(..error.at)
                .map_or(0, |before| before.matches('\n').count() + 1),
            what: error.what,
        })?;
        let [document] = documents.documents.as_slice() else {
            return Err("an Alertmanager's configuration is one document".into());
        };
        let Value::Object(document) = plain(document) else {
            return Err("an Alertmanager's configuration is a map".into());
        };
        let mut routes = Vec::new();
        let route = document.get("route").ok_or("there is no `route`")?;
        collect(route, "", None, &receivers(&document), &mut routes)?;
        Ok(Self {
            routes,
            intervals: intervals(&document)?,
            document,
        })
    }

    /// Which of the time intervals hold at an instant.
    pub fn holding(&self, at: Option<Timestamp>) -> BTreeMap<&str, bool> {
        let holds = |entries: &[Entry]| at.is_some_and(|at| entries.iter().any(|entry| entry.contains(at)));
        self.intervals
            .iter()
            .map(|(name, entries)| (name.as_str(), holds(entries)))
            .collect()
    }

    /// The configuration to run, as JSON, with the webhooks of the routes below `url`. Without `timed` no interval is
    /// looked at.
    pub fn rewritten(&self, url: &str, holding: &BTreeMap<&str, bool>, timed: bool) -> String {
        let mut number = 0;
        let mut route = self.document.get("route").cloned().unwrap_or_default();
        rewrite(&mut route, &mut number, timed);
        let receivers: Vec<Value> = (0..number)
            .map(|number| {
                let webhook = json!({"url": format!("{url}/{number}"), "send_resolved": false});
                json!({"name": name(number), "webhook_configs": [webhook]})
            })
            .collect();
        let mut inhibitions: Vec<Value> = self
            .document
            .get("inhibit_rules")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for rule in &mut inhibitions {
            let equal = rule
                .as_object_mut()
                .map(|rule| rule.entry("equal").or_insert_with(|| json!([])));
            match equal {
                Some(Value::Array(labels)) => labels.push(TEST.into()),
                Some(other) => *other = json!([TEST]),
                None => {}
            }
        }
        inhibitions.push(json!({
            "source_matchers": [format!("{SENTINEL}=\"source\"")],
            "target_matchers": [format!("{SENTINEL}=\"target\"")],
        }));
        let intervals: Vec<Value> = holding
            .iter()
            .map(|(name, holds)| {
                // A year that no clock shows any more.
                let entry = if *holds { json!({}) } else { json!({"years": ["1970"]}) };
                json!({"name": name, "time_intervals": [entry]})
            })
            .collect();
        json!({
            "route": route,
            "receivers": receivers,
            "inhibit_rules": inhibitions,
            "time_intervals": intervals,
        })
        .to_string()
    }
}

/// YAML as JSON. What is not in quotes stays text, as it is to Alertmanager, whose labels may be called `yes` and `010`.
fn plain(node: &Node) -> Value {
    match &node.value {
        _ if node.is_null() => Value::Null,
        Yaml::Scalar { text, style } => match text.as_str() {
            "true" if *style == Style::Plain => true.into(),
            "false" if *style == Style::Plain => false.into(),
            text => text.into(),
        },
        Yaml::List(items) => items.iter().map(plain).collect(),
        Yaml::Map(entries) => {
            let entries = entries
                .iter()
                .filter_map(|(key, value)| Some((key.text()?.to_owned(), plain(value))));
            Value::Object(entries.collect())
        }
    }
}

/// A route and those below it.
fn collect(
    route: &Value,
    parent: &str,
    receiver: Option<&str>,
    names: &[&str],
    all: &mut Vec<Route>,
) -> Result<(), String> {
    let route = route.as_object().ok_or("a route is a map")?;
    let receiver = route.get("receiver").and_then(Value::as_str).or(receiver);
    let receiver = receiver.ok_or("the first route has no `receiver`")?;
    if !names.contains(&receiver) {
        return Err(format!("there is no receiver `{receiver}`"));
    }
    let mut path = if parent.is_empty() {
        "{}".to_owned()
    } else {
        format!("{parent} / {{{}}}", matchers(route))
    };
    // It is there once for every route below.
    if path.len() > LONGEST_PATH {
        path.truncate(path.floor_char_boundary(LONGEST_PATH));
        path.push('…');
    }
    all.push(Route {
        path: path.clone(),
        receiver: receiver.to_owned(),
    });
    for child in children(route) {
        collect(child, &path, Some(receiver), names, all)?;
    }
    Ok(())
}

/// The receiver of a route in the rewritten configuration.
pub(super) fn name(route: usize) -> String {
    format!("route-{route}")
}

/// The route of a receiver in the rewritten configuration.
pub(super) fn route(name: &str) -> Option<usize> {
    name.strip_prefix("route-")?.parse().ok()
}

fn rewrite(route: &mut Value, number: &mut usize, timed: bool) {
    let Some(route) = route.as_object_mut() else { return };
    route.insert("receiver".to_owned(), name(*number).into());
    *number += 1;
    for (key, value) in [
        ("group_by", json!(["..."])),
        ("group_wait", json!("1ms")),
        ("group_interval", json!("1s")),
        ("repeat_interval", json!("1h")),
    ] {
        route.insert(key.to_owned(), value);
    }
    if !timed {
        route.remove("mute_time_intervals");
        route.remove("active_time_intervals");
    }
    if let Some(Value::Array(routes)) = route.get_mut("routes") {
        for child in routes {
            rewrite(child, number, timed);
        }
    }
}

fn children(route: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    route.get("routes").and_then(Value::as_array).into_iter().flatten()
}

fn receivers(document: &Map<String, Value>) -> Vec<&str> {
    let receivers = document
        .get("receivers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    receivers
        .filter_map(|receiver| receiver.get("name")?.as_str())
        .collect()
}

/// The matchers of a route in all three ways to write them.
fn matchers(route: &Map<String, Value>) -> String {
    let list = route.get("matchers").and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<String> = list.filter_map(|matcher| Some(matcher.as_str()?.to_owned())).collect();
    for (key, sign) in [("match", "="), ("match_re", "=~")] {
        let map = route.get(key).and_then(Value::as_object).into_iter().flatten();
        all.extend(map.map(|(label, value)| format!("{label}{sign}{value}")));
    }
    all.join(", ")
}

fn intervals(document: &Map<String, Value>) -> Result<BTreeMap<String, Vec<Entry>>, String> {
    let mut intervals = BTreeMap::new();
    for key in ["time_intervals", "mute_time_intervals"] {
        for interval in document.get(key).and_then(Value::as_array).into_iter().flatten() {
            let name = interval
                .get("name")
                .and_then(Value::as_str)
                .ok_or("a time interval has no name")?;
            let entries = interval
                .get("time_intervals")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let entries = entries.map(Entry::read).collect::<Result<_, _>>();
            let entries = entries.map_err(|why| format!("the time interval `{name}`: {why}"))?;
            intervals.insert(name.to_owned(), entries);
        }
    }
    Ok(intervals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
global: {smtp_auth_password: hunter2}
route:
  receiver: all
  group_wait: 30s
  routes:
  - matchers: ['team="pay"']
    receiver: pay
    continue: true
    mute_time_intervals: [nights]
    routes:
    - match: {severity: page, on: yes, code: 010}
receivers:
- name: all
- name: pay
  slack_configs: [{api_url: "https://hooks.example/secret"}]
inhibit_rules:
- {source_matchers: ['a="b"'], target_matchers: ['c="d"'], equal: [x]}
time_intervals:
- {name: nights, time_intervals: [{times: [{start_time: "00:00", end_time: "06:00"}]}]}
"#;

    #[test]
    fn nobody_real_is_left() {
        let config = Config::read(CONFIG).unwrap();
        let paths: Vec<_> = config
            .routes
            .iter()
            .map(|route| (route.path.as_str(), route.receiver.as_str()))
            .collect();
        assert_eq!(
            paths,
            [
                ("{}", "all"),
                ("{} / {team=\"pay\"}", "pay"),
                (
                    "{} / {team=\"pay\"} / {severity=\"page\", on=\"yes\", code=\"010\"}",
                    "pay"
                )
            ]
        );
        let holding = config.holding(Some("2026-03-01T03:00:00Z".parse().unwrap()));
        assert_eq!(holding, BTreeMap::from([("nights", true)]));
        let text = config.rewritten("http://127.0.0.1:1/hook", &holding, true);
        for secret in ["hunter2", "slack", "hooks.example", "30s", "06:00"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["route"]["routes"][0]["mute_time_intervals"], json!(["nights"]));
        assert_eq!(value["route"]["routes"][0]["routes"][0]["receiver"], "route-2");
        assert_eq!(value["route"]["routes"][0]["continue"], true);
        assert_eq!(value["inhibit_rules"][0]["equal"], json!(["x", TEST]));
        assert_eq!(route("route-12"), Some(12));
        assert!(!config.rewritten("x", &holding, false).contains("mute_time_intervals"));
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        for (text, why) in [
            ("route: {receiver: a}\nreceivers: []", "no receiver `a`"),
            ("route: {}\nreceivers: [{name: a}]", "no `receiver`"),
            ("receivers: [{name: a}]", "no `route`"),
            ("[]", "is a map"),
            (
                "route: {receiver: a}\nreceivers: [{name: a}]\ntime_intervals: [{name: n, time_intervals: [{hours: 1}]}]",
                "`n`",
            ),
        ] {
            let error = Config::read(text).unwrap_err();
            assert!(error.what.contains(why), "{error:?}");
        }
        let error = Config::read("route:\n  receiver: a\n  routes: [\n").unwrap_err();
        assert!(error.line >= 3 && error.what.contains('['), "{error:?}");
    }

    /// A path is shown with every route below it, so that a long one must not be.
    #[test]
    fn the_path_of_a_route_is_short() {
        let long = "x".repeat(100_000);
        let routes = "{match: {b: c}},".repeat(1000);
        let text = format!(
            "route: {{receiver: a, routes: [{{match: {{a: {long}}}, routes: [{routes}]}}]}}\nreceivers: [{{name: a}}]\n"
        );
        let config = Config::read(&text).unwrap();
        assert_eq!(config.routes.len(), 1002);
        assert!(config.routes.iter().all(|route| route.path.len() < 1100));
    }
}
