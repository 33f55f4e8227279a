//! Objects of Kubernetes as YAML, in the order that people write them. Strings are quoted as JSON, which YAML reads, unless
//! they are plain words; it writes what `rbac` and `schedule export` print and nothing more general.

use serde_json::{Map, Value};

/// The keys that come first.
const FIRST: [&str; 4] = ["apiVersion", "kind", "metadata", "name"];

/// One document.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    if let Value::Object(fields) = value {
        table(fields, 0, &mut text);
    }
    text
}

fn table(fields: &Map<String, Value>, depth: usize, text: &mut String) {
    let mut names: Vec<&String> = fields.keys().collect();
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    names.sort_by_key(|name| (rank(name), name.as_str()));
    for (index, name) in names.into_iter().enumerate() {
        // The first field of a list's item stands beside its dash.
        if index > 0 || !text.ends_with("- ") {
            text.push_str(&"  ".repeat(depth));
        }
        text.push_str(name);
        text.push(':');
        entry(&fields[name], depth, text);
    }
}

fn entry(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            table(fields, depth + 1, text);
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            text.push('\n');
            for item in items {
                text.push_str(&"  ".repeat(depth));
                text.push_str("- ");
                if let Value::Object(fields) = item {
                    table(fields, depth + 1, text);
                }
            }
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(word).collect();
            text.push_str(&format!(" [{}]\n", words.join(", ")));
        }
        value => text.push_str(&format!(" {}\n", word(value))),
    }
}

fn word(value: &Value) -> String {
    match value.as_str() {
        Some(text) if plain(text) => text.to_owned(),
        _ => value.to_string(),
    }
}

/// Whether YAML reads it as this string.
fn plain(text: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '/' | '_');
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(part)
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn an_object_reads_as_people_write_it() {
        let role = json!({
            "rules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"] }, { "verbs": [] }],
            "metadata": { "namespace": "shop", "name": "no", "labels": { "a": "b c" } },
            "kind": "Role",
        });
        assert_eq!(
            document(&role),
            "kind: Role\nmetadata:\n  name: \"no\"\n  labels:\n    a: \"b c\"\n  namespace: shop\nrules:\n\
             - apiGroups: [\"\"]\n  resources: [pods, pods/log]\n  verbs: [get]\n- verbs: []\n"
        );
    }
}
