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
