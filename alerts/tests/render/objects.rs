//! PrometheusRule objects have the shape of their definition, and hold the same rules as the files.

use std::collections::BTreeSet;

use alerts::render::{Settings, render};
use serde_json::Value;

use crate::landscapes;

fn read(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Go's durations as the definition's pattern has them, of which ours have one unit.
fn is_duration(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    digits.parse::<u64>().is_ok() && ["ms", "s", "m", "h", "d", "w", "y"].contains(&&text[digits.len()..])
}

#[test]
fn an_object_has_the_shape_of_its_definition() {
    let rendered = render(&landscapes::cluster(), &Settings::default()).unwrap();
    let files: Vec<Value> = rendered
        .prometheus()
        .iter()
        .filter(|file| !file.path.contains('/'))
        .map(|file| read(&file.text))
        .collect();
    let objects = rendered.kubernetes();
    assert_eq!(objects.len(), files.len());
    let mut names = BTreeSet::new();
    for (object, file) in objects.iter().zip(files) {
        let object = read(&object.text);
        assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1");
        assert_eq!(object["kind"], "PrometheusRule");
        assert_eq!(keys(&object), ["apiVersion", "kind", "metadata", "spec"].into());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let well = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c));
        assert!(well && name.len() <= 253, "{name}");
        let namespaced = name.starts_with("opsctl-service-");
        assert_eq!(
            object["metadata"]["namespace"].as_str(),
            namespaced.then_some("shop"),
            "{name}"
        );
        assert!(names.insert(name));
        assert_eq!(object["spec"], file);
        for group in object["spec"]["groups"].as_array().unwrap() {
            assert_eq!(keys(group), ["interval", "name", "rules"].into());
            assert!(is_duration(&group["interval"]), "{group}");
            for rule in group["rules"].as_array().unwrap() {
                let known = [
                    "alert",
                    "annotations",
                    "expr",
                    "for",
                    "keep_firing_for",
                    "labels",
                    "record",
                ];
                assert!(keys(rule).is_subset(&known.into()), "{rule}");
                assert_ne!(rule.get("alert").is_some(), rule.get("record").is_some(), "{rule}");
                assert!(rule["expr"].is_string(), "{rule}");
                for key in ["for", "keep_firing_for"] {
                    assert!(rule.get(key).is_none_or(is_duration), "{rule}");
                }
                for key in ["labels", "annotations"] {
                    let Some(texts) = rule.get(key) else { continue };
                    assert!(texts.as_object().unwrap().values().all(Value::is_string), "{rule}");
                }
            }
        }
    }
}

#[test]
fn every_alert_says_whose_it_is_how_urgent_and_where_to_read_on() {
    let rendered = render(&landscapes::cluster(), &Settings::default()).unwrap();
    for alert in rendered.rules.iter().flat_map(alerts::render::RuleFile::alerts) {
        let label = |name: &str| {
            alert
                .labels
                .iter()
                .any(|(label, value)| label == name && !value.is_empty())
        };
        let annotation = |name: &str| alert.annotations.iter().find(|(key, _)| key == name);
        assert!(label("severity") && label("environment"), "{alert:?}");
        assert!(
            alert.name == "Watchdog" || label("service") || label("datastore"),
            "{alert:?}"
        );
        for name in ["summary", "description", "runbook_url", "dashboard_url"] {
            assert!(
                annotation(name).is_some_and(|(_, text)| !text.is_empty()),
                "{name} {alert:?}"
            );
        }
        assert!(
            rendered.pages().iter().any(|page| page.alert == alert.name),
            "{} has no page",
            alert.name
        );
        assert!(alert.name == "Watchdog" || !alert.hold.is_zero(), "{alert:?}");
    }
    let mut names: Vec<&str> = alerts::render::PAGES.iter().map(|page| page.alert).collect();
    names.sort_unstable();
    names.dedup();
    let used: Vec<&str> = rendered.pages().iter().map(|page| page.alert).collect();
    assert_eq!(used, names, "a page for every alert, an alert for every page");
}

#[test]
fn the_same_landscape_gives_the_same_bytes() {
    let files = |landscape| {
        let rendered = render(&landscape, &Settings::default()).unwrap();
        (rendered.prometheus(), rendered.kubernetes(), rendered.alertmanager())
    };
    assert_eq!(files(landscapes::cluster()), files(landscapes::cluster()));
}
