//! Regular expressions in matchers that say less than they seem to.

use promql::Span;
use promql::ast::{Expr, MatchOp};

use super::Look;
use super::table::{REGEX_ANCHOR, REGEX_ANY, REGEX_LITERAL, REGEX_NONE};

/// The alternatives of an expression that consists of nothing else.
pub(super) fn literals(regex: &str) -> Option<Vec<&str>> {
    let inner = regex.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.unwrap_or(regex);
    let is_literal = |text: &str| !text.contains(META);
    let alternatives: Vec<&str> = inner.split('|').collect();
    alternatives.iter().all(|text| is_literal(text)).then_some(alternatives)
}

const META: [char; 14] = ['\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$', '|'];

pub(super) fn matchers(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Selector(selector) = expr else {
        return;
    };
    for view in selector.views().filter(|view| view.op.is_regex() && !view.templated) {
        let (label, value) = (view.label, view.value);
        let equality = if view.op == MatchOp::Regex {
            MatchOp::Equal
        } else {
            MatchOp::NotEqual
        };
        let written = look.text(view.span);
        // Of what is written with escapes the value is not what is replaced.
        let plain = written
            .strip_suffix(['"', '\'', '`'])
            .is_some_and(|text| text.ends_with(value));
        let last = view.span.end.saturating_sub(1);
        let at = |start: usize, length: usize| {
            let begin = last.saturating_sub((value.len() - start) as u32);
            Span::new(begin, begin + length as u32)
        };
        if value == ".*" && view.op == MatchOp::NotRegex {
            let what = format!(
                "Nothing matches {}, not even a series without `{label}`.",
                code(written)
            );
            look.find(&REGEX_NONE, view.span, what);
        } else if value == ".*" && label != "__name__" {
            let what = format!("Everything matches {}, a series without `{label}` too.", code(written));
            look.find(&REGEX_ANY, view.span, what);
        } else if value.starts_with('^') || (value.ends_with('$') && !value.ends_with("\\$")) {
            let what = format!("The anchors in {} are there without being written.", code(written));
            let mut edits = Vec::new();
            if value.starts_with('^') {
                edits.push((at(0, 1), String::new()));
            }
            if value.ends_with('$') && value.len() > 1 {
                edits.push((at(value.len() - 1, 1), String::new()));
            }
            // With alternatives outside of parentheses an anchor belongs to one of them alone.
            let alone = !value.contains('|') || value.starts_with("^(") && value.ends_with(")$");
            let found = look.find(&REGEX_ANCHOR, view.span, what);
            if plain && alone {
                found.fix("leave them out", edits);
            }
        } else if !value.is_empty() && !value.contains(META) {
            let what = format!("{} is the same as `{label}{equality}\"{value}\"`.", code(written));
            let text = format!("{label}{equality}");
            let found = look.find(&REGEX_LITERAL, view.span, what);
            let end = last.saturating_sub(value.len() as u32 + 1);
            if plain && written.starts_with(label) {
                found.fix(
                    format!("write `{equality}`"),
                    vec![(Span::new(view.span.start, end), text)],
                );
            }
        }
    }
}

/// A part of an expression in a sentence, in doubled marks where it has such marks itself.
fn code(written: &str) -> String {
    if written.contains('`') {
        format!("`` {written} ``")
    } else {
        format!("`{written}`")
    }
}
