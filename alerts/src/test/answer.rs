//! What promtool says about a generated file, read. It prints one block a file, in their order, and in a block the
//! alerts and samples that were there instead of the expected ones. Judges nothing.

use super::file::Labels;
use crate::duration;

/// What one file came to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Whether everything was as expected.
    pub success: bool,
    /// What was not.
    pub failures: Vec<Failure>,
}

/// One complaint.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// Other alerts fired at a time.
    Alerts {
        name: String,
        at: u64,
        /// Each with its labels and annotations.
        got: Vec<Alert>,
    },
    /// An expression gave something else.
    Samples {
        expr: String,
        at: u64,
        /// What was expected, as promtool writes it.
        expected: String,
        got: String,
    },
    /// An expression could not be evaluated.
    Query { expr: String, at: u64, error: String },
    /// Anything else: rules or series that cannot be loaded, a rule that cannot be evaluated.
    Other(String),
}

/// An alert that was there.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Alert {
    /// Its labels, without its name.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
}

const SUCCESS: &str = "  SUCCESS";
const FAILED: &str = "  FAILED:";

/// The blocks of an output, one a file.
pub(super) fn read(output: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut block: Option<Vec<&str>> = None;
    for line in output.lines() {
        if line == SUCCESS || line == FAILED {
            answers.extend(block.take().map(|lines| failed(&lines)));
            if line == FAILED {
                block = Some(Vec::new());
            } else {
                answers.push(Answer {
                    success: true,
                    failures: Vec::new(),
                });
            }
        } else if let Some(lines) = &mut block {
            // Old versions name the next file before its block.
            if !line.starts_with("Unit Testing: ") {
                lines.push(line);
            }
        }
    }
    answers.extend(block.map(|lines| failed(&lines)));
    answers
}

fn failed(lines: &[&str]) -> Answer {
    let begins = |line: &str| {
        ["    alertname: ", "    expr: ", "    rule: "]
            .iter()
            .any(|begin| line.starts_with(begin))
    };
    let mut messages: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        match messages.last_mut() {
            Some(message) if !begins(line) => message.push(line),
            _ => messages.push(vec![line]),
        }
    }
    Answer {
        success: false,
        failures: messages
            .iter()
            .filter(|lines| lines.iter().any(|line| !line.is_empty()))
            .map(|lines| failure(lines).unwrap_or_else(|| Failure::Other(lines.join("\n").trim().to_owned())))
            .collect(),
    }
}

fn failure(lines: &[&str]) -> Option<Failure> {
    let first = *lines.first()?;
    if let Some(rest) = first.strip_prefix("    alertname: ") {
        let (name, at) = rest.trim_end().strip_suffix(',')?.rsplit_once(", time: ")?;
        let got = lines.iter().position(|line| line.starts_with("        got:"))?;
        return Some(Failure::Alerts {
            name: name.to_owned(),
            at: duration::parse(at)?,
            got: alerts(&lines[got..])?,
        });
    }
    let rest = first.strip_prefix("    expr: ")?;
    let (expr, rest) = unquote(rest)?;
    let rest = rest.strip_prefix(", time: ")?;
    let (at, rest) = rest.split_once(',')?;
    let at = duration::parse(at)?;
    if let Some(error) = rest.strip_prefix(" err: ") {
        let more = lines[1..]
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty());
        return Some(Failure::Query {
            expr,
            at,
            error: std::iter::once(error).chain(more).collect::<Vec<_>>().join("\n"),
        });
    }
    let after = |begin: &str| lines.iter().find_map(|line| line.strip_prefix(begin));
    Some(Failure::Samples {
        expr,
        at,
        expected: after("        exp: ")?.to_owned(),
        got: after("        got: ")?.to_owned(),
    })
}

/// The alerts of a list: a line with labels and one with annotations for each.
fn alerts(lines: &[&str]) -> Option<Vec<Alert>> {
    let mut alerts: Vec<Alert> = Vec::new();
    for line in lines {
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("Labels:") {
            let (mut labels, _) = labels(text)?;
            labels.remove("alertname");
            alerts.push(Alert {
                labels,
                annotations: Labels::new(),
            });
        } else if let Some(text) = line.strip_prefix("Annotations:") {
            alerts.last_mut()?.annotations = labels(text)?.0;
        }
    }
    Some(alerts)
}

/// The label sets of samples such as `{a="b"} 1E+00, {} 2E+00`, or of `nil`; `None` for a histogram's.
pub(super) fn samples(text: &str) -> Option<Vec<Labels>> {
    if text == "nil" {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (labels, after) = labels(rest)?;
        found.push(labels);
        rest = after.split_once(", ").map_or("", |(_, next)| next);
    }
    Some(found)
}

/// `{a="b", "c d"="e"}` as Go prints it, and what follows.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let mut rest = text.strip_prefix('{')?;
    let mut labels = Labels::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        rest = rest.strip_prefix(", ").unwrap_or(rest);
        let (name, after) = if rest.starts_with('"') {
            unquote(rest)?
        } else {
            let (name, _) = rest.split_once('=')?;
            (name.to_owned(), &rest[name.len()..])
        };
        let (value, after) = unquote(after.strip_prefix('=')?)?;
        labels.insert(name, value);
        rest = after;
    }
}

/// A string that Go has quoted, and what follows. Bytes that are not UTF-8 are replaced.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let sign = rest.chars().next()?;
        rest = &rest[sign.len_utf8()..];
        if sign == '"' {
            return Some((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if sign != '\\' {
            bytes.extend(sign.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
            rest = &rest[digits..];
            if escape == 'x' {
                bytes.push(code as u8);
            } else {
                bytes.extend(char::from_u32(code)?.encode_utf8(&mut [0; 4]).bytes());
            }
            continue;
        }
        bytes.push(match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '"' | '\'' => escape as u8,
            _ => return None,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTPUT: &str = r#"  SUCCESS

  FAILED:
    alertname: A, time: 5m, 
        exp:[
            0:
              Labels:{alertname="A", b="c"}
              Annotations:{}
            ], 
        got:[
            0:
              Labels:{alertname="A", b="say \"x\"\n", "c d"="é\u200b"}
              Annotations:{summary="1, 2"}
            ]

    expr: "sum(\"a\")", time: 1h30m,
        exp: {} 1E+00
        got: {__name__="ALERTS", a="b, c"} 1E+00, {} 2E+00

    expr: "x(", time: 0s, err: 1:3: parse error: unclosed left parenthesis

    rule: R, time: 0s, err: found duplicate series
with a second line

Unit Testing:  next.yaml
  SUCCESS
"#;

    #[test]
    fn blocks_are_read_in_order() {
        let answers = read(OUTPUT);
        let successes: Vec<_> = answers.iter().map(|answer| answer.success).collect();
        assert_eq!(successes, [true, false, true]);
        let [alerts, samples_, query, other] = answers[1].failures.as_slice() else {
            panic!("{answers:?}")
        };
        let Failure::Alerts { name, at, got } = alerts else {
            panic!("{alerts:?}")
        };
        assert_eq!((name.as_str(), *at, got.len()), ("A", 300_000, 1));
        assert_eq!(got[0].labels["b"], "say \"x\"\n");
        assert_eq!(got[0].labels["c d"], "é\u{200b}");
        assert_eq!(got[0].annotations["summary"], "1, 2");
        let Failure::Samples { expr, at, got, .. } = samples_ else {
            panic!("{samples_:?}")
        };
        assert_eq!((expr.as_str(), *at), ("sum(\"a\")", 5_400_000));
        let sets = samples(got).unwrap();
        assert_eq!(sets[0]["a"], "b, c");
        assert_eq!(sets.len(), 2);
        assert!(matches!(query, Failure::Query { error, .. } if error.contains("unclosed")));
        assert!(
            matches!(other, Failure::Other(text) if text.ends_with("second line")),
            "{other:?}"
        );
        assert_eq!(samples("nil"), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_output_breaks_the_reader(text in "(  SUCCESS\n|  FAILED:\n|    alertname: |    expr: \"|, time: |[{}\"\\\\,=:a-z0-9\n ]){0,40}") {
            let _ = read(&text);
            let _ = samples(&text);
        }
    }
}
