//! Values as YAML that people like to read. Only writing, and only what the configuration files need: no anchors, no tags.

use serde_json::Value;

/// The document, ending with a line feed.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// A value that is no scalar, each entry on lines of its own.
fn block(value: &Value, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                out.push_str(&margin);
                out.push_str(&scalar(key));
                out.push(':');
                nested(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut entry = String::new();
                match item {
                    Value::Object(entries) if !entries.is_empty() => block(item, indent + 2, &mut entry),
                    _ => {
                        entry.push_str(&margin);
                        entry.push('-');
                        nested(item, indent, &mut entry);
                        out.push_str(&entry);
                        continue;
                    }
                }
                // The first key of an object stands beside the dash.
                out.push_str(&margin);
                out.push_str("- ");
                out.push_str(&entry[indent + 2..]);
            }
        }
        _ => {
            out.push_str(&scalar_of(value));
            out.push('\n');
        }
    }
}

/// What follows a key or a dash.
fn nested(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::String(text) if text.ends_with('\n') => {
            out.push_str(" |\n");
            for line in text.lines() {
                if !line.is_empty() {
                    out.push_str(&" ".repeat(indent + 2));
                    out.push_str(line);
                }
                out.push('\n');
            }
        }
        _ => {
            out.push(' ');
            out.push_str(&scalar_of(value));
            out.push('\n');
        }
    }
}

fn scalar_of(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // Numbers, booleans, null and what is empty are written as in JSON.
        other => other.to_string(),
    }
}

/// A string without quotes where no reader could take it for anything else.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if begins && text.chars().all(plain) && !word {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn every_shape_is_written_as_people_write_it() {
        let value = json!({
            "plain": "a/b-c.d_e",
            "quoted": "a: b",
            "number": 1,
            "like_a_number": "1",
            "like_a_word": "No",
            "nothing": null,
            "empty": {},
            "none": [],
            "list": ["a", {"b": 1, "c": [2]}, {"d": {"e": "f"}}, [3]],
            "lines": "first\n\n  second\n",
        });
        let expected = "plain: a/b-c.d_e
quoted: \"a: b\"
number: 1
like_a_number: \"1\"
like_a_word: \"No\"
nothing: null
empty: {}
none: []
list:
  - a
  - b: 1
    c:
      - 2
  - d:
      e: f
  -
    - 3
lines: |
  first

    second
";
        assert_eq!(text(&value), expected);
    }
}
