//! The same objects for kustomize: a base with the default values, and an overlay for each environment that says what is
//! otherwise there, as JSON patches (RFC 6902).

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::holes::{self, Scope};
use super::objects::ENVIRONMENT;
use super::values::{self, ENVIRONMENTS};
use super::{head, objects, yaml};

/// The files, below their folder.
///
/// # Errors
/// When an environment has objects that the base has not: overlays only change and take away.
pub fn files(defaults: &Value) -> Result<Vec<(String, String)>> {
    let base = filled(defaults);
    let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in &base {
        let labels = &object["metadata"]["labels"];
        let file = labels["opsctl.dev/service"].as_str().unwrap_or("project");
        by_file
            .entry(format!("{file}.yaml"))
            .or_default()
            .push(yaml::text(object));
    }
    let names: Vec<&String> = by_file.keys().collect();
    let kustomization = kustomization(&json!({ "resources": names }));
    let mut files = vec![("base/kustomization.yaml".to_owned(), kustomization)];
    for (name, documents) in by_file {
        files.push((format!("base/{name}"), head("") + &documents.join("---\n")));
    }
    for environment in ENVIRONMENTS {
        let text = overlay(environment, &base, defaults)?;
        files.push((format!("overlays/{environment}/kustomization.yaml"), text));
    }
    Ok(files)
}

fn kustomization(more: &Value) -> String {
    let mut document = json!({ "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization" });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more.clone());
    }
    head("") + &yaml::text(&document)
}

/// All objects with these values.
fn filled(values: &Value) -> Vec<Value> {
    let scope = Scope::of(values).with("release", json!({ "service": "kustomize" }));
    let files = objects::files();
    let objects = files.iter().map(|(_, objects)| match holes::fill(objects, &scope) {
        Value::Array(objects) => objects,
        other => vec![other],
    });
    objects.flatten().collect()
}

fn overlay(environment: &str, base: &[Value], defaults: &Value) -> Result<String> {
    let mut values = defaults.clone();
    values::over(&mut values, &values::of_environment(environment, defaults));
    let wanted: Vec<Value> = filled(&values).iter().map(holes::without_comments).collect();
    let same = |one: &Value, other: &Value| {
        one["kind"] == other["kind"] && one["metadata"]["name"] == other["metadata"]["name"]
    };
    for object in &wanted {
        ensure!(
            base.iter().any(|known| same(known, object)),
            "{environment} adds a {} that the base has not",
            object["kind"]
        );
    }
    // What is the same for several objects of a kind is said once.
    let mut patches: Vec<Patch<'_>> = Vec::new();
    for object in base {
        let Some(text) = patch(object, wanted.iter().find(|wanted| same(wanted, object)), environment) else {
            continue;
        };
        let (kind, name) = (text_of(&object["kind"]), text_of(&object["metadata"]["name"]));
        match patches
            .iter_mut()
            .find(|patch| patch.kind == kind && patch.text == text)
        {
            Some(patch) => patch.names.push(name),
            None => patches.push(Patch {
                kind,
                names: vec![name],
                text,
            }),
        }
    }
    let patches: Vec<Value> = patches
        .iter()
        .map(|patch| json!({ "target": { "kind": patch.kind, "name": patch.names.join("|") }, "patch": patch.text }))
        .collect();
    Ok(kustomization(&json!({
        "namespace": values["project"],
        "resources": ["../../base"],
        "labels": [{ "pairs": { ENVIRONMENT: environment }, "includeTemplates": true }],
        "patches": patches,
    })))
}

/// A patch of the objects of a kind that have these names.
struct Patch<'a> {
    kind: &'a str,
    names: Vec<&'a str>,
    text: String,
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What makes the object of an overlay, if there is one, from that of the base.
fn patch(object: &Value, wanted: Option<&Value>, environment: &str) -> Option<String> {
    let mut object = holes::without_comments(object);
    let Some(wanted) = wanted else {
        let gone = json!({
            "$patch": "delete",
            "apiVersion": object["apiVersion"],
            "kind": object["kind"],
            "metadata": { "name": "whatever-the-target-says" },
        });
        return Some(yaml::text(&gone));
    };
    // The overlay labels all objects by itself.
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(Value::Object(labels)) = object.pointer_mut(labels) {
            labels.insert(ENVIRONMENT.to_owned(), environment.into());
        }
    }
    let mut changes = Vec::new();
    compare("", &object, wanted, &mut changes);
    (!changes.is_empty()).then(|| yaml::text(&changes.into()))
}

/// The operations that make `new` of `old`.
fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<Value>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => compare_objects(path, old, new, changes),
        (Value::Array(old), Value::Array(new)) => compare_lists(path, old, new, changes),
        _ if old != new => changes.push(json!({ "op": "replace", "path": path, "value": new })),
        _ => {}
    }
}

fn compare_objects(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<Value>) {
    let below = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    for (key, value) in old {
        match new.get(key) {
            Some(other) => compare(&below(key), value, other, changes),
            None => changes.push(json!({ "op": "remove", "path": below(key) })),
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        changes.push(json!({ "op": "add", "path": below(key), "value": value }));
    }
}

/// Items are the same when they have the same name, or are equal, or stand at the same place of lists that have no names
/// and are equally long. They keep their order.
fn compare_lists(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<Value>) {
    let named = |item: &Value| item.get("name").is_some();
    if old.len() == new.len() && !old.iter().any(named) {
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            compare(&format!("{path}/{index}"), old, new, changes);
        }
        return;
    }
    let is = |one: &Value, other: &Value| match (one.get("name"), other.get("name")) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    };
    let mut kept = Vec::new();
    for (index, item) in old.iter().enumerate().rev() {
        if new.iter().any(|other| is(item, other)) {
            kept.insert(0, item);
        } else {
            changes.push(json!({ "op": "remove", "path": format!("{path}/{index}") }));
        }
    }
    let mut kept = kept.into_iter().peekable();
    for (index, item) in new.iter().enumerate() {
        let path = format!("{path}/{index}");
        match kept.next_if(|old| is(old, item)) {
            Some(old) => compare(&path, old, item, changes),
            None => changes.push(json!({ "op": "add", "path": path, "value": item })),
        }
    }
}
