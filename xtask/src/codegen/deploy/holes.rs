//! Objects with holes: one description that is filled with values, which gives manifests, or written as it stands, which
//! gives a Helm template. Helm is the judge of both: a test holds what it makes of the template against what was filled.
//!
//! A description is JSON. In its texts, keys and lists stand:
//!
//! | what | means |
//! |---|---|
//! | `"${image.tag}"` | the value at that path; alone in a text it keeps its type |
//! | `"${service.tag\|image.tag}"` | the first of both that says something |
//! | `"${text service.count}"` | the value as a text |
//! | `"${upper peer}"` | the value as the name of an environment variable |
//! | `"?gateway.enabled": {…}` or `[…]` | what is in there, if that value says something; with `!`, if it does not |
//! | `"*peer,call=service.calls": […]` | what is in there, once for each entry (or, with one name, each item), by name |
//! | `"# why": null` | a comment |
//!
//! In a list, the last three stand alone in an object. A path begins with a name that a loop gave, with `release`, or
//! with a key of the values.

use serde_json::{Map, Value};

use super::yaml::{self, Dialect, Written};

/// Names and what they stand for: the values, and what loops have added.
#[derive(Clone)]
pub struct Scope<'a> {
    names: Vec<(&'a str, Value)>,
    values: &'a Value,
}

impl<'a> Scope<'a> {
    pub fn of(values: &'a Value) -> Self {
        Self {
            names: Vec::new(),
            values,
        }
    }

    /// With one name more.
    pub fn with(&self, name: &'a str, value: Value) -> Self {
        let mut scope = self.clone();
        scope.names.push((name, value));
        scope
    }

    /// What a path stands for; null when there is nothing.
    fn at(&self, path: &str) -> Value {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let (mut value, rest) = match self.names.iter().rev().find(|(name, _)| *name == first) {
            Some((_, value)) => (value, rest),
            None => (self.values, path),
        };
        for key in rest.split('.').filter(|key| !key.is_empty()) {
            value = value.get(key).unwrap_or(&Value::Null);
        }
        value.clone()
    }

    /// The value of what stands between `${` and `}`.
    fn hole(&self, hole: &str) -> Value {
        if let Some(path) = hole.strip_prefix("upper ") {
            return word(&self.at(path)).to_uppercase().replace('-', "_").into();
        }
        if let Some(path) = hole.strip_prefix("text ") {
            return word(&self.at(path)).into();
        }
        let mut values = hole.split('|').map(|path| self.at(path));
        let first = values.next().unwrap_or_default();
        values.fold(first, |found, next| if says_something(&found) { found } else { next })
    }
}

/// A description with its holes filled. An entry whose value is null is left out.
pub fn fill<'a>(description: &'a Value, scope: &Scope<'a>) -> Value {
    match description {
        Value::Object(entries) => {
            let mut filled = Map::new();
            for (key, value) in entries {
                match Key::of(key) {
                    Key::If(path, wanted) => {
                        if let (true, Value::Object(more)) =
                            (says_something(&scope.at(path)) == wanted, fill(value, scope))
                        {
                            filled.extend(more);
                        }
                    }
                    Key::Comment => {
                        filled.insert(key.clone(), Value::Null);
                    }
                    Key::Each(..) | Key::Plain => match fill(value, scope) {
                        Value::Null => {}
                        value => {
                            filled.insert(key.clone(), value);
                        }
                    },
                }
            }
            Value::Object(filled)
        }
        Value::Array(items) => Value::Array(items.iter().flat_map(|item| fill_item(item, scope)).collect()),
        Value::String(text) => fill_text(text, scope),
        other => other.clone(),
    }
}

/// An item of a list, which may be none or many.
fn fill_item<'a>(item: &'a Value, scope: &Scope<'a>) -> Vec<Value> {
    let Some((key, inner)) = framed(item) else {
        return vec![fill(item, scope)];
    };
    let items = |scope: &Scope<'a>| match fill(inner, scope) {
        Value::Array(items) => items,
        other => vec![other],
    };
    match Key::of(key) {
        Key::If(path, wanted) if says_something(&scope.at(path)) == wanted => items(scope),
        Key::Each(names, path) => match (names.split_once(','), scope.at(path)) {
            // Helm goes through a map in the order of its keys.
            (Some((key, value)), Value::Object(entries)) => {
                let mut entries: Vec<_> = entries.into_iter().collect();
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                let scopes = entries
                    .into_iter()
                    .map(|(name, entry)| scope.with(key, name.into()).with(value, entry));
                scopes.flat_map(|scope| items(&scope)).collect()
            }
            (None, Value::Array(list)) => list
                .into_iter()
                .flat_map(|one| items(&scope.with(names, one)))
                .collect(),
            _ => Vec::new(),
        },
        Key::If(..) | Key::Comment | Key::Plain => Vec::new(),
    }
}

fn fill_text(text: &str, scope: &Scope<'_>) -> Value {
    let pieces = pieces(text);
    if let [Piece::Hole(hole)] = pieces[..] {
        return scope.hole(hole);
    }
    let filled = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => (*text).to_owned(),
        Piece::Hole(hole) => word(&scope.hole(hole)),
    });
    filled.collect::<String>().into()
}

/// A description as a Helm template.
pub struct Template<'a> {
    /// Something that each hole may stand for: it tells texts from numbers and from more than that.
    example: Scope<'a>,
}

impl<'a> Template<'a> {
    pub fn new(example: Scope<'a>) -> Self {
        Self { example }
    }

    /// The documents of a file.
    pub fn documents(&self, documents: &Value) -> String {
        let documents = documents.as_array().map_or(&[][..], Vec::as_slice);
        let written = documents.iter().map(|document| {
            let framed = framed(document).and_then(|(key, inner)| Some((self.frame(key)?, inner)));
            match framed {
                Some(((before, after), inner)) => format!("{before}\n{}{after}\n", self.documents(inner)),
                None => format!("---\n{}", yaml::text_in(self, document)),
            }
        });
        written.collect()
    }

    /// What stands between `${` and `}`, as Helm writes it.
    fn expression(&self, hole: &str) -> String {
        if let Some(path) = hole.strip_prefix("upper ") {
            return format!("{} | upper | replace \"-\" \"_\"", self.variable(path));
        }
        let hole = hole.strip_prefix("text ").unwrap_or(hole);
        let mut paths = hole.split('|').map(|path| self.variable(path));
        let first = paths.next().unwrap_or_default();
        paths.fold(first, |all, next| format!("{all} | default {next}"))
    }

    /// A path as Helm writes it. What is no value, a loop has named.
    fn variable(&self, path: &str) -> String {
        let first = path.split('.').next().unwrap_or_default();
        match path {
            "release.namespace" => "$.Release.Namespace".to_owned(),
            "release.service" => "$.Release.Service".to_owned(),
            _ if self.example.values.get(first).is_some() => format!("$.Values.{path}"),
            _ => format!("${path}"),
        }
    }
}

impl Dialect for Template<'_> {
    fn frame(&self, key: &str) -> Option<(String, &'static str)> {
        match Key::of(key) {
            Key::If(path, true) => Some((format!("{{{{- if {} }}}}", self.variable(path)), "{{- end }}")),
            Key::If(path, false) => Some((format!("{{{{- if not {} }}}}", self.variable(path)), "{{- end }}")),
            Key::Each(names, path) => {
                let names: Vec<String> = names.split(',').map(|name| format!("${name}")).collect();
                let opening = format!("{{{{- range {} := {} }}}}", names.join(", "), self.variable(path));
                Some((opening, "{{- end }}"))
            }
            Key::Comment | Key::Plain => None,
        }
    }

    fn text(&self, text: &str) -> Written {
        match pieces(text)[..] {
            [] | [Piece::Text(_)] => Written::Plain,
            [Piece::Hole(hole)] => {
                let expression = self.expression(hole);
                match self.example.hole(hole) {
                    Value::Object(_) | Value::Array(_) => Written::Block(expression),
                    Value::Number(_) | Value::Bool(_) => Written::Scalar(format!("{{{{ {expression} }}}}")),
                    Value::Null | Value::String(_) => Written::Scalar(format!("{{{{ {expression} | quote }}}}")),
                }
            }
            ref pieces => {
                let written = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => (*text).to_owned(),
                    Piece::Hole(hole) => format!("{{{{ {} }}}}", self.expression(hole)),
                });
                Written::Scalar(format!("\"{}\"", written.collect::<String>()))
            }
        }
    }
}

enum Key<'a> {
    If(&'a str, bool),
    Each(&'a str, &'a str),
    Comment,
    Plain,
}

impl<'a> Key<'a> {
    fn of(key: &'a str) -> Self {
        for (sign, wanted) in [('?', true), ('!', false)] {
            if let Some(path) = key.strip_prefix(sign) {
                return Self::If(path, wanted);
            }
        }
        if let Some((names, path)) = key.strip_prefix('*').and_then(|rest| rest.split_once('=')) {
            return Self::Each(names, path);
        }
        if key.starts_with("# ") {
            return Self::Comment;
        }
        Self::Plain
    }
}

/// The condition or loop that stands alone in an object of a list.
fn framed(item: &Value) -> Option<(&String, &Value)> {
    let entries = item.as_object().filter(|entries| entries.len() == 1)?;
    let (key, inner) = entries.iter().next()?;
    matches!(Key::of(key), Key::If(..) | Key::Each(..)).then_some((key, inner))
}

enum Piece<'a> {
    Text(&'a str),
    Hole(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((hole, after)) = after.split_once('}') else {
            break;
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Hole(hole));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// As Go's templates have it.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

/// A value inside of a text.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What is filled, without its comments.
pub fn without_comments(value: &Value) -> Value {
    let is_comment = |key: &String| matches!(Key::of(key), Key::Comment);
    match value {
        Value::Object(entries) => {
            let kept = entries.iter().filter(|(key, _)| !is_comment(key));
            Value::Object(
                kept.map(|(key, value)| (key.clone(), without_comments(value)))
                    .collect(),
            )
        }
        Value::Array(items) => {
            let comment = |item: &Value| {
                let entries = item.as_object().filter(|entries| !entries.is_empty());
                entries.is_some_and(|entries| entries.keys().all(is_comment))
            };
            let kept = items.iter().filter(|item| !comment(item));
            Value::Array(kept.map(without_comments).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn description() -> Value {
        json!([{ "*name,service=services": [{
            "?service.open": [{
                "name": "${name}",
                "# why": null,
                "count": "${service.count}",
                "digits": "${text service.count}",
                "more": "${more}",
                "gone": "${release.namespace}",
                "!service.count": { "closed": true },
                "list": [
                    "${upper name}_URL",
                    { "*one=service.list": ["${one}/${service.tag|tag}"] },
                    { "# last": null },
                    { "?service.tag": ["tagged"] },
                ],
            }],
        }] }])
    }

    fn values() -> Value {
        json!({
            "tag": "v1",
            "more": { "a": 1 },
            "services": {
                "pay-out": { "open": true, "count": 0, "tag": "", "list": ["x", "y"] },
                "a-shop": { "open": true, "count": 2, "tag": "v2", "list": [] },
                "shut": { "open": false },
            },
        })
    }

    #[test]
    fn holes_are_filled_as_helm_fills_them() {
        let values = values();
        let description = description();
        let filled = without_comments(&fill(&description, &Scope::of(&values)));
        let expected = json!([
            { "name": "a-shop", "count": 2, "digits": "2", "more": { "a": 1 }, "list": ["A_SHOP_URL", "tagged"] },
            { "name": "pay-out", "count": 0, "digits": "0", "more": { "a": 1 }, "closed": true, "list": ["PAY_OUT_URL", "x/v1", "y/v1"] },
        ]);
        assert_eq!(filled, expected);
    }

    #[test]
    fn a_template_has_conditions_loops_and_comments_on_lines_of_their_own() {
        let values = values();
        let service = values["services"]["pay-out"].clone();
        let template = Template::new(Scope::of(&values).with("service", service));
        let expected = r#"{{- range $name, $service := $.Values.services }}
{{- if $service.open }}
---
name: {{ $name | quote }}
# why
count: {{ $service.count }}
digits: {{ $service.count | quote }}
more:
  {{- toYaml $.Values.more | nindent 2 }}
gone: {{ $.Release.Namespace | quote }}
{{- if not $service.count }}
closed: true
{{- end }}
list:
  - "{{ $name | upper | replace "-" "_" }}_URL"
  {{- range $one := $service.list }}
  - "{{ $one }}/{{ $service.tag | default $.Values.tag }}"
  {{- end }}
  # last
  {{- if $service.tag }}
  - tagged
  {{- end }}
{{- end }}
{{- end }}
"#;
        assert_eq!(template.documents(&description()), expected);
    }
}
