//! When an alert fires: its condition, and how long that has to hold.

use std::time::Duration;

use lint::expression::holds_call;
use lint::{Edit, Finding, Fix};
use promql::ast::{BinaryOp, Expr, MatchOp, Selector};

use super::table::{BOOL_CONDITION, FOR_LONGER_THAN_RANGE, FOR_SHORT, NO_CONDITION, NO_FOR, PER_SERVICE};
use super::{Options, Read};

pub(super) fn check(read: &Read<'_>, options: &Options, findings: &mut Vec<Finding>) {
    condition(read, findings);
    holding(read, options, findings);
    one_for_all(read, findings);
}

/// What an expression leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    /// Nothing: every series is in the result.
    None,
    /// Nothing, though something is compared: `bool` gives 0 or 1.
    Bool,
    /// Something, or it is a constant that is meant to be there always.
    Some,
}

fn condition_of(expr: &Expr) -> Condition {
    match expr {
        Expr::Paren(paren) => condition_of(&paren.expr),
        Expr::Unary(unary) => condition_of(&unary.expr),
        Expr::Subquery(subquery) => condition_of(&subquery.expr),
        Expr::Aggregation(aggregation) => condition_of(&aggregation.expr),
        Expr::Number(_) | Expr::String(_) | Expr::Variable(_) => Condition::Some,
        // Alerts are there while they are pending or firing; what a rule records may have a condition.
        Expr::Selector(selector) => match selector.metric() {
            Some(name) if !name.starts_with("ALERTS") && !name.contains(':') => Condition::None,
            _ => Condition::Some,
        },
        Expr::Call(call) => match call.name() {
            "absent" | "absent_over_time" | "vector" | "time" => Condition::Some,
            _ => {
                let worst = call.arguments.iter().filter(|argument| argument.as_number().is_none());
                worst.map(condition_of).min().unwrap_or(Condition::Some)
            }
        },
        Expr::Binary(binary) => match binary.op {
            op if op.is_comparison() && binary.returns_bool.is_some() => Condition::Bool,
            op if op.is_comparison() => Condition::Some,
            BinaryOp::And | BinaryOp::Unless => Condition::Some,
            BinaryOp::Or => condition_of(&binary.left).min(condition_of(&binary.right)),
            _ => {
                let of = |side: &Expr| side.as_number().is_none().then(|| condition_of(side));
                let (left, right) = (of(&binary.left), of(&binary.right));
                left.max(right).unwrap_or(Condition::Some)
            }
        },
    }
}

fn condition(read: &Read<'_>, findings: &mut Vec<Finding>) {
    let (check, what) = match condition_of(&read.query.expr) {
        Condition::Some => return,
        Condition::None => (&NO_CONDITION, "Nothing here is compared with anything."),
        Condition::Bool => (
            &BOOL_CONDITION,
            "With `bool` every series stays in the result, as 0 or 1.",
        ),
    };
    let span = read.rule.expr.offsets.range(read.query.expr.span().range());
    findings.push(Finding::new(check, read.file, span, what).about(read.name()));
}

/// Calls that look for an event in a range, with the range's length.
fn events(expr: &Expr) -> Vec<(&'static str, Duration)> {
    const EVENTS: &[&str] = &["increase", "changes", "resets"];
    let mut found = Vec::new();
    expr.walk(&mut |part| {
        let Expr::Call(call) = part else {
            return;
        };
        let is_event = EVENTS.iter().copied().find(|name| *name == call.name());
        let name = match is_event {
            Some(name) => name,
            None if call.name().ends_with("_over_time") => "_over_time",
            None => return,
        };
        let range = call
            .arguments
            .last()
            .map(Expr::unparenthesised)
            .and_then(|argument| match argument {
                Expr::Selector(selector) => selector.range.as_ref()?.duration.seconds(),
                Expr::Subquery(subquery) => subquery.range.seconds(),
                _ => None,
            });
        if let Some(range) = range.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            found.push((name, range));
        }
    });
    found
}

fn holding(read: &Read<'_>, options: &Options, findings: &mut Vec<Finding>) {
    const LONG: Duration = Duration::from_mins(5);
    let expr = &read.query.expr;
    let events = events(expr);
    let Some(hold) = read.rule.hold.as_ref() else {
        let smooth = events.iter().any(|(_, range)| *range >= LONG);
        let constant = expr.selectors().is_empty();
        // What is held against the clock grows by itself: no lost scrape and no spike makes it true. No more is a trend of
        // hours made by one.
        let is_uptime = |selector: &&Selector| selector.metric().is_some_and(|name| name.contains("uptime"));
        let clocked = holds_call(expr, &["time", "predict_linear"]) || expr.selectors().iter().any(is_uptime);
        if !smooth && !constant && !clocked {
            let absent = matches!(expr.unparenthesised(), Expr::Call(call) if call.name().starts_with("absent"));
            let what = if absent {
                "A restart or one lost scrape is enough for this to fire."
            } else {
                "The condition needs to be true for one evaluation only."
            };
            let finding = Finding::new(&NO_FOR, read.file, read.rule.name.span.clone(), what).about(read.name());
            findings.push(finding.fixed_by(field(read, "for: 5m")));
        }
        return;
    };
    // Written as nothing it is meant so.
    if hold.value.is_zero() {
        return;
    }
    let interval = read.group.interval.as_ref().map(|interval| interval.value);
    if let Some(interval) = interval.or(options.evaluation_interval)
        && hold.value < interval * 2
    {
        let what = format!(
            "`for` is {}s, and the group is evaluated every {}s.",
            hold.value.as_secs_f64(),
            interval.as_secs_f64()
        );
        findings.push(Finding::new(&FOR_SHORT, read.file, hold.span.clone(), what).about(read.name()));
    }
    let Expr::Binary(binary) = expr.unparenthesised() else {
        return;
    };
    let one_is_enough = binary.op == BinaryOp::Greater && binary.right.as_number() == Some(0.0);
    let counted = events
        .iter()
        .find(|(name, range)| *name != "_over_time" && *range < hold.value);
    if let (true, Some((name, range))) = (one_is_enough, counted) {
        let what = format!(
            "`{name}` looks back over {}s, and has to be above 0 for {}s.",
            range.as_secs_f64(),
            hold.value.as_secs_f64()
        );
        findings.push(Finding::new(&FOR_LONGER_THAN_RANGE, read.file, hold.span.clone(), what).about(read.name()));
    }
}

/// A field behind the rule's name, where the file is written in lines.
fn field(read: &Read<'_>, text: &str) -> Option<Fix> {
    let file = read.file;
    let end = read.rule.name.span.end;
    let line = file.position(end).line;
    let rest = file.text().get(end..file.line_start(line + 1))?;
    let key = file.position(read.rule.span.start);
    let in_lines = rest.trim().is_empty() && read.rule.expr.span.start > end;
    let indent = " ".repeat(key.column - 1);
    let edit = Edit {
        span: end..end,
        text: format!("\n{indent}{text}"),
    };
    in_lines.then(|| Fix::proposal(format!("add `{text}`"), vec![edit]))
}

/// Whether an aggregation makes one of everything, whatever it is compared with after that.
fn whole(side: &Expr) -> bool {
    match side.unparenthesised() {
        Expr::Aggregation(aggregation) => aggregation.grouping.is_none(),
        Expr::Binary(binary) => binary.op.is_comparison() && binary.right.as_number().is_some() && whole(&binary.left),
        _ => false,
    }
}

/// Whether what is asked for is of one service anyway.
fn names_one(expr: &Expr) -> bool {
    let is_one = |selector: &Selector| {
        let mut views = selector.views();
        views.any(|view| matches!(view.label, "job" | "service" | "app") && view.op == MatchOp::Equal)
    };
    expr.selectors().into_iter().all(is_one)
}

/// A ratio of everything to everything: all labels are gone.
fn one_for_all(read: &Read<'_>, findings: &mut Vec<Finding>) {
    let Expr::Binary(comparison) = read.query.expr.unparenthesised() else {
        return;
    };
    let Expr::Binary(ratio) = comparison.left.unparenthesised() else {
        return;
    };
    if !comparison.op.is_comparison()
        || ratio.op != BinaryOp::Div
        || !whole(&ratio.left)
        || !whole(&ratio.right)
        || read.flow.others_possible()
        || names_one(&comparison.left)
    {
        return;
    }
    let Expr::Aggregation(left) = ratio.left.unparenthesised() else {
        return;
    };
    let span = read.rule.expr.offsets.range(left.op_span.range());
    let what = "Both sides add up everything there is.";
    findings.push(Finding::new(&PER_SERVICE, read.file, span, what).about(read.name()));
}
