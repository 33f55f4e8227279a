//! The variables of a board: which values they have, and what stands in a text for them. It asks nobody.

use std::collections::BTreeMap;

use super::data::Span;

/// Values of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// What is chosen.
    pub values: Vec<String>,
    /// What stands for it where all are chosen and the board says so.
    pub all: Option<String>,
    /// Whether several can be chosen: then each is written as a regular expression.
    pub several: bool,
}

impl Chosen {
    pub fn one(value: &str) -> Self {
        Self {
            values: vec![value.to_owned()],
            all: None,
            several: false,
        }
    }

    /// As a query of Prometheus has it where no format is asked for.
    fn usual(&self) -> String {
        match &self.all {
            Some(all) => all.clone(),
            None if self.several => self.joined(),
            None => self.values.first().map(|value| quoted(value)).unwrap_or_default(),
        }
    }

    fn joined(&self) -> String {
        let all: Vec<String> = self.values.iter().map(|value| literal(value)).collect();
        match all.as_slice() {
            [one] => one.clone(),
            _ => format!("({})", all.join("|")),
        }
    }

    fn format(&self, format: &str) -> String {
        if let Some(all) = &self.all {
            return all.clone();
        }
        let quote = |mark: char| {
            let each = |value: &String| format!("{mark}{}{mark}", value.replace(mark, &format!("\\{mark}")));
            self.values.iter().map(each).collect::<Vec<_>>().join(",")
        };
        match format {
            "regex" => self.joined(),
            "pipe" => self.values.join("|"),
            "raw" | "text" | "csv" | "glob" => self.values.join(","),
            "doublequote" => quote('"'),
            "singlequote" => quote('\''),
            "json" => serde_json::to_string(&self.values).unwrap_or_default(),
            _ => self.usual(),
        }
    }
}

/// A value inside of a string of PromQL.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A value as a regular expression inside of a string of PromQL that matches it alone.
fn literal(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => {
                text.push_str("\\\\");
                text.push(c);
            }
            c => text.push(c),
        }
    }
    text
}

/// All variables of a board with what is chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    chosen: BTreeMap<String, Chosen>,
}

/// A text is not made longer than this.
const LONGEST: usize = 100_000;

impl Variables {
    pub fn set(&mut self, name: &str, chosen: Chosen) {
        self.chosen.insert(name.to_owned(), chosen);
    }

    pub fn get(&self, name: &str) -> Option<&Chosen> {
        self.chosen.get(name)
    }

    /// The same with one variable narrowed to one value.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut narrowed = self.clone();
        let several = self.get(name).is_some_and(|chosen| chosen.several);
        let one = Chosen {
            several,
            ..Chosen::one(value)
        };
        narrowed.set(name, one);
        narrowed
    }

    /// The variables that Grafana has of its own, for a stretch of time and scrapes that are so far apart.
    pub fn clock(&mut self, span: Span, scrape: f64) {
        let range = span.to - span.from;
        let rate = (span.step + scrape).max(scrape * 4.0);
        for (name, value) in [
            ("__interval", duration(span.step)),
            ("__rate_interval", duration(rate)),
            ("__range", duration(range)),
            ("__interval_ms", format!("{:.0}", span.step * 1e3)),
            ("__rate_interval_ms", format!("{:.0}", rate * 1e3)),
            ("__range_s", format!("{range:.0}")),
            ("__range_ms", format!("{:.0}", range * 1e3)),
            ("__from", format!("{:.0}", span.from * 1e3)),
            ("__to", format!("{:.0}", span.to * 1e3)),
        ] {
            self.set(name, Chosen::one(&value));
        }
    }

    /// A text with values for variables. What is no variable stays as it is.
    pub fn fill(&self, text: &str) -> String {
        self.replace(text, Chosen::format)
    }

    /// The same for people: values as they are.
    pub fn tell(&self, text: &str) -> String {
        self.replace(text, |chosen, _| match &chosen.all {
            Some(_) => "all".to_owned(),
            None => chosen.values.join(", "),
        })
    }

    fn replace(&self, text: &str, put: impl Fn(&Chosen, &str) -> String) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['$', '[']) {
            filled.push_str(&rest[..at]);
            let from = &rest[at..];
            match self.reference(from) {
                Some((chosen, format, length)) if filled.len() < LONGEST => {
                    filled.push_str(&put(chosen, format));
                    rest = &from[length..];
                }
                _ => {
                    filled.push_str(&from[..1]);
                    rest = &from[1..];
                }
            }
        }
        filled.push_str(rest);
        filled
    }

    /// The variable that a text begins with, the format that is asked for, and how long that is.
    fn reference<'a>(&self, text: &'a str) -> Option<(&Chosen, &'a str, usize)> {
        let (inner, length) = if let Some(rest) = text.strip_prefix("${") {
            let end = rest.find('}')?;
            (&rest[..end], end + 3)
        } else if let Some(rest) = text.strip_prefix("[[") {
            let end = rest.find("]]")?;
            (&rest[..end], end + 4)
        } else {
            let rest = text.strip_prefix('$')?;
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            (&rest[..end], end + 1)
        };
        let (path, format) = inner.split_once(':').unwrap_or((inner, ""));
        // `.text` and `.value` of one with several fields.
        let name = path.split('.').next().unwrap_or(path);
        Some((self.chosen.get(name)?, format, length))
    }
}

/// `90s`, `5m`, `1h30m`, `7d` as seconds; a bare number is seconds.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    if let Ok(number) = rest.parse::<f64>() {
        return Some(number).filter(|number| *number > 0.0 && number.is_finite());
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
            ("d", 86_400.0),
            ("w", 604_800.0),
            ("M", 2_592_000.0),
            ("y", 31_536_000.0),
        ];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        sum += number * factor;
        rest = &rest[unit.len()..];
    }
    (sum > 0.0).then_some(sum)
}

/// Seconds as PromQL writes them.
fn duration(seconds: f64) -> String {
    let milliseconds = (seconds * 1e3).round().max(1.0) as u64;
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.set("job", Chosen::one("a\"b"));
        variables.set(
            "pod",
            Chosen {
                values: vec!["a.b".to_owned(), "c".to_owned()],
                all: None,
                several: true,
            },
        );
        variables.set(
            "namespace",
            Chosen {
                values: vec!["x".to_owned()],
                all: Some(".+".to_owned()),
                several: true,
            },
        );
        let span = Span {
            from: 0.0,
            to: 3600.0,
            step: 15.0,
        };
        variables.clock(span, 15.0);
        variables
    }

    #[test]
    fn values_stand_for_variables_in_every_way_of_writing() {
        for (text, expected) in [
            ("up{job=\"$job\"}", "up{job=\"a\\\"b\"}"),
            ("up{pod=~\"$pod\"}", "up{pod=~\"(a\\\\.b|c)\"}"),
            ("up{pod=~\"${pod:pipe}\"}", "up{pod=~\"a.b|c\"}"),
            ("up{pod=~\"[[pod]]\"}", "up{pod=~\"(a\\\\.b|c)\"}"),
            ("up{namespace=~\"${namespace:regex}\"}", "up{namespace=~\".+\"}"),
            ("rate(x[$__rate_interval])", "rate(x[1m])"),
            ("increase(x[${__range}])", "increase(x[1h])"),
            (
                "x[$__range_ss] $unknown $ ${open [[open",
                "x[$__range_ss] $unknown $ ${open [[open",
            ),
            ("$__interval_ms", "15000"),
        ] {
            assert_eq!(variables().fill(text), expected);
        }
        assert_eq!(variables().tell("pods $pod in $namespace"), "pods a.b, c in all");
        assert_eq!(variables().with("pod", "c").fill("$pod"), "c");
    }

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, expected) in [
            ("30s", Some(30.0)),
            ("1h30m", Some(5400.0)),
            ("500ms", Some(0.5)),
            ("7d", Some(604_800.0)),
            ("15", Some(15.0)),
            ("", None),
            ("5 parsecs", None),
            ("$x", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!(duration(5400.0), "90m");
        assert_eq!(duration(0.0), "1ms");
    }
}
