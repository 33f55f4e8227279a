//! What differs between two boards, by the names of things: `panels["HTTP / Duration"].targets[A].expr`. A diff of lines
//! would say that all below a new panel has moved.

use std::fmt;

use serde_json::Value;

/// What Grafana gives a board when it is saved, and what only concerns how it is kept.
const VOLATILE: [&str; 6] = ["id", "version", "iteration", "gnetId", "uid", "liveNow"];
/// More than anybody reads; a board that differs in more is another board.
const MOST: usize = 200;

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What differs.
    pub path: String,
    /// What is there; none when it comes.
    pub before: Option<Value>,
    /// What will be there; none when it goes.
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    /// `- path: before` and `+ path: after`, long values cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| {
            let text = value.to_string();
            match text.char_indices().nth(160) {
                Some((at, _)) => format!("{} …", &text[..at]),
                None => text,
            }
        };
        if let Some(before) = &self.before {
            write!(f, "- {}: {}", self.path, shown(before))?;
        }
        if self.before.is_some() && self.after.is_some() {
            writeln!(f)?;
        }
        if let Some(after) = &self.after {
            write!(f, "+ {}: {}", self.path, shown(after))?;
        }
        Ok(())
    }
}

/// Everything that differs, at most `MOST` of it. What is empty in one and absent in the other does not: Grafana drops
/// such fields, or adds them.
pub fn between(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), before, after, true, &mut changes);
    changes.truncate(MOST);
    changes
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn compare(path: String, before: &Value, after: &Value, top: bool, changes: &mut Vec<Change>) {
    if before == after || changes.len() > MOST || (is_nothing(before) && is_nothing(after)) {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            for name in new.keys().chain(gone) {
                if top && VOLATILE.contains(&name.as_str()) {
                    continue;
                }
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                compare(path, &of(old), &of(new), false, changes);
            }
        }
        (Value::Array(old), Value::Array(new)) => lists(&path, old, new, changes),
        (Value::Number(old), Value::Number(new)) if old.as_f64() == new.as_f64() => {}
        _ => changes.push(change(path, before, after)),
    }
}

fn change(path: String, before: &Value, after: &Value) -> Change {
    let some = |value: &Value| (!value.is_null()).then(|| value.clone());
    Change {
        path,
        before: some(before),
        after: some(after),
    }
}

/// Items that have names are compared by name, all others by place.
fn lists(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let key = |item: &Value| name(item);
    let named = |items: &[Value]| items.iter().map(key).collect::<Option<Vec<String>>>();
    if let (Some(old_names), Some(new_names)) = (named(old), named(new))
        && is_unique(&old_names)
        && is_unique(&new_names)
    {
        for (name, item) in new_names.iter().zip(new) {
            let there = old_names
                .iter()
                .position(|other| other == name)
                .map_or(&Value::Null, |at| &old[at]);
            compare(format!("{path}[{name}]"), there, item, false, changes);
        }
        for (name, item) in old_names.iter().zip(old) {
            if !new_names.contains(name) {
                changes.push(change(format!("{path}[{name}]"), item, &Value::Null));
            }
        }
        let common = |names: &[String], others: &[String]| -> Vec<String> {
            names.iter().filter(|name| others.contains(name)).cloned().collect()
        };
        let (before, after) = (common(&old_names, &new_names), common(&new_names, &old_names));
        if before != after {
            changes.push(Change {
                path: format!("order of {path}"),
                before: Some(before.into()),
                after: Some(after.into()),
            });
        }
        return;
    }
    for at in 0..old.len().max(new.len()) {
        let of = |items: &[Value]| items.get(at).cloned().unwrap_or_default();
        compare(format!("{path}[{at}]"), &of(old), &of(new), false, changes);
    }
}

fn is_unique(names: &[String]) -> bool {
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

/// What a thing on a board is known by.
fn name(item: &Value) -> Option<String> {
    let text = |field: &str| item.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let title = || Some(format!("\"{}\"", text("title")?));
    if item.get("gridPos").is_some() {
        return title().or_else(|| Some(item.get("id")?.to_string()));
    }
    text("refId").or_else(|| text("name")).map(str::to_owned).or_else(title)
}
