//! Values as YAML that people like to read. Only writing, and only what our files need: no anchors, no tags. A key that
//! begins with `# ` is written as a comment. What else stands between the lines, such as Helm's conditions, is the
//! matter of a [`Dialect`].

use serde_json::Value;

/// What a kind of YAML has beyond keys and values.
pub trait Dialect {
    /// The lines around what this key holds, when the key itself is not written.
    fn frame(&self, key: &str) -> Option<(String, &'static str)>;
    /// How a text is written.
    fn text(&self, text: &str) -> Written;
}

/// How a text is written.
pub enum Written {
    /// As YAML has it.
    Plain,
    /// Like this.
    Scalar(String),
    /// By a Helm expression that gives a value of several lines.
    Block(String),
}

/// The document, ending with a line feed.
pub fn text(value: &Value) -> String {
    text_in(&Standard, value)
}

/// The document in a dialect.
pub fn text_in(dialect: &dyn Dialect, value: &Value) -> String {
    let mut writer = Writer {
        dialect,
        out: String::new(),
    };
    writer.block(value, 0);
    writer.out
}

struct Standard;

impl Dialect for Standard {
    fn frame(&self, _: &str) -> Option<(String, &'static str)> {
        None
    }

    fn text(&self, _: &str) -> Written {
        Written::Plain
    }
}

struct Writer<'a> {
    dialect: &'a dyn Dialect,
    out: String,
}

impl Writer<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        self.out.push_str(&" ".repeat(indent));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A value that is no scalar, each entry on lines of its own.
    fn block(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    self.entry(key, value, indent);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.item(item, indent);
                }
            }
            _ => {
                let text = scalar_of(value);
                self.line(indent, &text);
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Value, indent: usize) {
        if key.starts_with("# ") {
            self.line(indent, key);
        } else if let Some((before, after)) = self.dialect.frame(key) {
            self.line(indent, &before);
            self.block(value, indent);
            self.line(indent, after);
        } else {
            self.out.push_str(&" ".repeat(indent));
            self.out.push_str(&scalar(key));
            self.out.push(':');
            self.nested(value, indent);
        }
    }

    fn item(&mut self, item: &Value, indent: usize) {
        match item {
            Value::Object(entries) if self.stands_alone(entries) => self.block(item, indent),
            Value::Object(entries) if !entries.is_empty() => {
                // The first key of an object stands beside the dash.
                let start = self.out.len();
                self.block(item, indent + 2);
                let dash = start + indent;
                self.out.replace_range(dash..=dash, "-");
            }
            _ => {
                self.out.push_str(&" ".repeat(indent));
                self.out.push('-');
                self.nested(item, indent);
            }
        }
    }

    /// Whether the object is no item but what stands between items.
    fn stands_alone(&self, entries: &serde_json::Map<String, Value>) -> bool {
        let mut keys = entries.keys();
        let is_frame = |key: &String| key.starts_with("# ") || self.dialect.frame(key).is_some();
        keys.next().is_some_and(is_frame) && keys.next().is_none()
    }

    /// What follows a key or a dash.
    fn nested(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                self.out.push('\n');
                self.block(value, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                self.out.push('\n');
                self.block(value, indent + 2);
            }
            Value::String(text) if text.ends_with('\n') => {
                self.out.push_str(" |\n");
                for line in text.lines() {
                    let margin = if line.is_empty() { 0 } else { indent + 2 };
                    self.line(margin, line);
                }
            }
            Value::String(text) => match self.dialect.text(text) {
                Written::Plain => self.line(1, &scalar(text)),
                Written::Scalar(text) => self.line(1, &text),
                Written::Block(expression) => {
                    let indent = indent + 2;
                    self.out.push('\n');
                    self.line(indent, &format!("{{{{- toYaml {expression} | nindent {indent} }}}}"));
                }
            },
            _ => self.line(1, &scalar_of(value)),
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
