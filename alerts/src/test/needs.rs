//! What an expression needs to be there: recorded metrics, and the series of alerts. What cannot be told is everything:
//! a rule too many costs time, a rule too few would change a verdict.

use std::collections::BTreeSet;

/// What must be evaluated before an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// It may ask for anything.
    pub everything: bool,
    /// It asks for the state of any alert.
    pub all_alerts: bool,
    /// Names of metrics that it asks for, and words that may be such.
    pub metrics: BTreeSet<String>,
    /// Alerts whose state it asks for.
    pub alerts: BTreeSet<String>,
}

impl Needs {
    fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Also what another needs.
    pub fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.all_alerts |= other.all_alerts;
        self.metrics.extend(other.metrics);
        self.alerts.extend(other.alerts);
    }

    fn selector(&mut self, name: Option<&str>, alert: Option<&str>) {
        match (name, alert) {
            (None, _) => self.everything = true,
            (Some("ALERTS" | "ALERTS_FOR_STATE"), Some(alert)) => {
                self.alerts.insert(alert.to_owned());
            }
            (Some("ALERTS" | "ALERTS_FOR_STATE"), None) => self.all_alerts = true,
            (Some(name), _) => {
                self.metrics.insert(name.to_owned());
            }
        }
    }
}

/// What an annotation or a label needs: Prometheus runs the queries in it at each evaluation.
pub(super) fn of_template(text: &str) -> Needs {
    if !text.contains("query") {
        return Needs::default();
    }
    let mut needs = Needs::default();
    let mut any = false;
    let mut rest = text;
    while let Some(start) = rest.find(['"', '`']) {
        let quote = rest.as_bytes()[start];
        let (literal, after) = string(&rest[start..]);
        any = true;
        // Put together while it runs.
        if literal.contains('%') {
            return Needs::everything();
        }
        let literal = if quote == b'"' {
            literal.replace("\\\"", "\"")
        } else {
            literal.to_owned()
        };
        needs.add(of_expression(&literal));
        rest = after;
    }
    if any { needs } else { Needs::everything() }
}

/// What an expression needs. Every word counts as a metric, so that no grammar, however new, hides one; only braces are
/// read closely.
pub(super) fn of_expression(text: &str) -> Needs {
    let mut needs = Needs::default();
    let mut rest = text;
    // The word before a brace is the name in front of a selector.
    let mut name: Option<&str> = None;
    while let Some(first) = rest.chars().next() {
        match first {
            '#' => rest = rest.find('\n').map_or("", |end| &rest[end..]),
            '"' | '\'' | '`' => {
                let (_, after) = string(rest);
                rest = after;
                word(&mut needs, name.take());
            }
            '{' => {
                let (inside, after) = braces(rest);
                needs.selector(name.take().or(inside.name), inside.alert);
                rest = after;
            }
            _ if first.is_alphabetic() || first == '_' || first == ':' => {
                word(&mut needs, name.take());
                let (found, after) = split(rest);
                name = Some(found);
                rest = after;
            }
            // Numbers and durations: their letters are no words.
            _ if first.is_ascii_digit() => (_, rest) = split(rest),
            _ if first.is_whitespace() => rest = &rest[first.len_utf8()..],
            _ => {
                word(&mut needs, name.take());
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    word(&mut needs, name);
    needs
}

fn word(needs: &mut Needs, name: Option<&str>) {
    if let Some(name) = name {
        needs.selector(Some(name), None);
    }
}

/// Letters, digits and what names may hold beside them.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    text.split_at(end.unwrap_or(text.len()))
}

/// The inside of a string that begins here, and what follows it.
fn string(text: &str) -> (&str, &str) {
    let mut signs = text.char_indices();
    let quote = signs.next().map(|(_, quote)| quote);
    let mut escaped = false;
    for (at, sign) in signs {
        if escaped {
            escaped = false;
        } else if sign == '\\' && quote != Some('`') {
            escaped = true;
        } else if Some(sign) == quote {
            return (&text[1..at], &text[at + 1..]);
        }
    }
    (text.get(1..).unwrap_or_default(), "")
}

/// What matchers pin down.
#[derive(Default)]
struct Pinned<'a> {
    name: Option<&'a str>,
    alert: Option<&'a str>,
}

/// The matchers that begin here, and what follows them.
fn braces(text: &str) -> (Pinned<'_>, &str) {
    let mut pinned = Pinned::default();
    let mut rest = &text[1..];
    let mut label = None;
    let mut operator = String::new();
    while let Some(first) = rest.chars().next() {
        match first {
            '}' => return (finish(pinned, label), &rest[1..]),
            '#' => rest = rest.find('\n').map_or("", |end| &rest[end..]),
            ',' => {
                pinned = finish(pinned, label.take());
                operator.clear();
                rest = &rest[1..];
            }
            '"' | '\'' | '`' => {
                let (value, after) = string(rest);
                // With an escape in it the text is not the value.
                let plain = Some(value).filter(|value| !value.contains('\\'));
                match (label.take(), operator.as_str()) {
                    (Some(Label::Word("__name__")), "=") => pinned.name = plain,
                    (Some(Label::Word("alertname")), "=") => pinned.alert = plain,
                    (None, "") => label = plain.map(Label::Quoted),
                    _ => {}
                }
                rest = after;
            }
            '=' | '!' | '~' => {
                operator.push(first);
                if let Some(Label::Quoted(name)) = label {
                    label = Some(Label::Word(name));
                }
                rest = &rest[1..];
            }
            _ if first.is_alphanumeric() || first == '_' => {
                let (found, after) = split(rest);
                label = Some(Label::Word(found));
                rest = after;
            }
            _ => rest = &rest[first.len_utf8()..],
        }
    }
    (pinned, "")
}

enum Label<'a> {
    Word(&'a str),
    Quoted(&'a str),
}

/// A string alone is the metric's name.
fn finish<'a>(mut pinned: Pinned<'a>, label: Option<Label<'a>>) -> Pinned<'a> {
    if let Some(Label::Quoted(name)) = label {
        pinned.name = Some(name);
    }
    pinned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(text: &str) -> Vec<String> {
        let needs = of_expression(text);
        assert!(!needs.everything, "{text}");
        needs.metrics.into_iter().collect()
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        for (text, name) in [
            ("a:b:rate5m > 1", "a:b:rate5m"),
            ("sum by (x) (rate(a_total{job=\"b\"}[5m]))", "a_total"),
            ("{__name__=\"a\", b=\"c\"}", "a"),
            ("{'a b', c='d'}", "a b"),
            ("{\"a.b\"}", "a.b"),
            ("a # comment with 'quote\n", "a"),
            ("sum(a) / on (x) group_left sum(b)", "b"),
            ("histogram_quantile(0.9, a{le=~\".+\"})", "a"),
            ("métrique == 0", "métrique"),
        ] {
            assert!(metrics(text).contains(&name.to_owned()), "{text}: {:?}", metrics(text));
        }
        assert_eq!(metrics("a{b=\"c\"}[5m]"), ["a"]);
    }

    #[test]
    fn what_may_ask_for_anything_needs_everything() {
        for text in [
            "{job=\"a\"}",
            "{__name__=~\"a.*\"}",
            "{__name__!=\"a\"}",
            "count({b=~\".+\"})",
            "{__name__=\"a\\x41\"}",
            "{\"__name__\"=~\"x\"}",
        ] {
            assert!(of_expression(text).everything, "{text}");
        }
    }

    #[test]
    fn alerts_are_asked_for_by_name_or_all() {
        let one = of_expression("ALERTS{alertname=\"A\",alertstate=\"firing\"}");
        assert_eq!((one.all_alerts, one.alerts.len()), (false, 1));
        assert!(of_expression("ALERTS == 1").all_alerts);
        assert!(of_expression("ALERTS{alertname=~\"A|B\"}").all_alerts);
        assert!(of_expression("ALERTS_FOR_STATE{severity=\"x\"}").all_alerts);
    }

    #[test]
    fn queries_in_annotations_count() {
        let needs = of_template("{{ with query \"sum(a:b) by (x)\" }}{{ . | first }}{{ end }}");
        assert!(needs.metrics.contains("a:b"), "{needs:?}");
        assert!(of_template("{{ with printf \"a{x=%q}\" $labels.x | query }}{{ end }}").everything);
        assert!(of_template("{{ $labels.query }}").everything);
        assert_eq!(of_template("it is {{ $value }}"), Needs::default());
    }
}
