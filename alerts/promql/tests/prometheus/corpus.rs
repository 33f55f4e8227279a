//! Expressions that people wrote: Prometheus' own tests, and real rules.

use std::{fs, path::Path};

use serde::Deserialize;

/// An expression, and where it comes from.
#[derive(Debug, Clone)]
pub struct Expression {
    pub origin: String,
    pub text: String,
}

/// All of them that are at hand; what is missing is said of `test`.
pub fn all(test: &str) -> Vec<Expression> {
    let mut expressions = Vec::new();
    if let Some(folder) = peers::peer("promql-corpus", test) {
        of_evaluations(&folder.join("promqltest/testdata"), &mut expressions);
        for file in ["parse_test.go", "printer_test.go", "prettier_test.go"] {
            of_source(&folder.join("parser").join(file), &mut expressions);
        }
        of_source(&folder.join("engine_test.go"), &mut expressions);
    }
    if let Some(folder) = peers::shared_data("mixins", test) {
        for mixin in entries(&folder) {
            for file in ["alerts.yaml", "rules.yaml"] {
                of_rules(&mixin.join(file), &mut expressions);
            }
        }
    }
    expressions
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

/// `eval instant at 5m EXPRESSION`.
fn of_evaluations(folder: &Path, expressions: &mut Vec<Expression>) {
    for file in entries(folder) {
        let text = fs::read_to_string(&file).unwrap();
        let origin = file.file_name().unwrap().to_string_lossy().into_owned();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with("eval")) {
            let words = line.split_whitespace().collect::<Vec<_>>();
            let skip = match words[1] {
                "instant" if words[2] == "at" => 4,
                "range" if words[2] == "from" => 8,
                other => panic!("{origin}:{}: {other}", number + 1),
            };
            let mut rest = line;
            for _ in 0..skip {
                rest = rest.trim_start().split_once(char::is_whitespace).unwrap().1;
            }
            expressions.push(Expression {
                origin: format!("{origin}:{}", number + 1),
                text: rest.trim_start().to_owned(),
            });
        }
    }
}

/// Every literal in Go source that stands for itself: many are expressions, and the others are no worse.
fn of_source(file: &Path, expressions: &mut Vec<Expression>) {
    let text = fs::read_to_string(file).unwrap();
    let origin = file.file_name().unwrap().to_string_lossy().into_owned();
    let mut rest = &text[..];
    while let Some(start) = rest.find(['"', '`']) {
        let quote = &rest[start..=start];
        let inner = &rest[start + 1..];
        let mut end = inner.find(quote).unwrap();
        while quote == "\"" && inner[..end].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1 {
            end += 1 + inner[end + 1..].find(quote).unwrap();
        }
        let literal = &inner[..end];
        rest = &inner[end + 1..];
        let text = match quote {
            "`" => literal.to_owned(),
            _ => match serde_json::from_str(&format!("\"{literal}\"")) {
                Ok(text) => text,
                Err(_) => continue,
            },
        };
        let origin = origin.clone();
        expressions.push(Expression { origin, text });
    }
}

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    expr: serde_json::Value,
}

fn of_rules(file: &Path, expressions: &mut Vec<Expression>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    if text.trim().is_empty() {
        return;
    }
    let read: File = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mixin = file
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    for rule in read.groups.into_iter().flat_map(|group| group.rules) {
        let text = rule.expr.as_str().map_or_else(|| rule.expr.to_string(), str::to_owned);
        let origin = mixin.clone();
        expressions.push(Expression { origin, text });
    }
}

/// Every query of a board that goes to Prometheus.
pub fn of_boards(test: &str) -> Vec<Expression> {
    let mut expressions = Vec::new();
    for mixin in peers::shared_data("mixins", test)
        .iter()
        .flat_map(|folder| entries(folder))
    {
        let boards = mixin.join("dashboards");
        for board in if boards.is_dir() { entries(&boards) } else { Vec::new() } {
            let origin = board.file_name().unwrap().to_string_lossy().into_owned();
            let read = serde_json::from_str(&fs::read_to_string(&board).unwrap()).unwrap();
            collect(&read, false, &origin, &mut expressions);
        }
    }
    expressions
}

fn collect(value: &serde_json::Value, loki: bool, origin: &str, expressions: &mut Vec<Expression>) {
    match value {
        serde_json::Value::Array(list) => list.iter().for_each(|item| collect(item, loki, origin, expressions)),
        serde_json::Value::Object(fields) => {
            let source = fields.get("datasource").map(ToString::to_string).unwrap_or_default();
            let loki = loki || source.to_lowercase().contains("loki");
            if let Some(text) = fields.get("expr").and_then(|expr| expr.as_str()).filter(|_| !loki) {
                expressions.push(Expression {
                    origin: origin.to_owned(),
                    text: text.to_owned(),
                });
            }
            fields
                .values()
                .for_each(|field| collect(field, loki, origin, expressions));
        }
        _ => {}
    }
}

/// The text with something in the place of every variable: a word in quotes, five minutes in brackets, and `other`.
pub fn substituted(text: &str, other: &str) -> String {
    let (mut result, mut behind, mut quote, mut bracket) = (String::new(), 0, None, false);
    for variable in promql::variables(text) {
        for character in text[behind..variable.span.range().start].chars() {
            match (quote, character) {
                (None, '"' | '\'' | '`') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                (None, '[') => bracket = true,
                (None, ']') => bracket = false,
                _ => {}
            }
            result.push(character);
        }
        behind = variable.span.range().end;
        let unit = text[behind..].starts_with(|next: char| next.is_ascii_alphabetic());
        result.push_str(match (quote, bracket) {
            (Some(_), _) => "x",
            (None, true) if unit => "5",
            (None, true) => "5m",
            (None, false) => other,
        });
    }
    result + &text[behind..]
}
