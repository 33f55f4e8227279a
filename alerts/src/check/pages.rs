//! What an alert tells whoever is called: its labels, its annotations, and the templates in them.

use lint::expression::LABEL_DROPPED;
use lint::flow::{How, Loss, TARGET_LABELS};
use lint::{Edit, Finding, Fix};
use manifest::{closest, is_typo};
use promql::ast::{Aggregator, BinaryOp, Expr};

use super::table::{
    NO_RUNBOOK, NO_SEVERITY, NO_SUMMARY, PERCENT_TWICE, TEMPLATE, TEMPLATE_QUERY, UNKNOWN_SEVERITY, VALUE_AS_LABEL,
    VALUE_IN_LABEL,
};
use super::template::{self, Template, Use};
use super::{Options, Read};
use crate::rules::Text;

pub(super) fn check(read: &Read<'_>, options: &Options, findings: &mut Vec<Finding>) {
    for (_, value) in &read.rule.annotations {
        templates(read, value, findings);
    }
    for (key, value) in &read.rule.labels {
        let Some(template) = templates(read, value, findings) else {
            continue;
        };
        if let Some(span) = template.values.first() {
            let what = format!("The label `{}` changes with the value.", key.value);
            let span = value.offsets.range(span.clone());
            findings.push(Finding::new(&VALUE_IN_LABEL, read.file, span, what).about(read.name()));
        }
    }
    severity(read, options, findings);
    annotations(read, findings);
}

fn templates(read: &Read<'_>, value: &Text, findings: &mut Vec<Finding>) -> Option<Template> {
    if !value.value.contains("{{") {
        return None;
    }
    let template = template::read(&value.value);
    for fault in &template.faults {
        let span = value.offsets.range(fault.span.clone());
        let fix = fault.meant.as_ref().and_then(|(span, text)| {
            let edit = Edit {
                span: value.offsets.range(span.clone()),
                text: text.clone(),
            };
            let fits = value.offsets.is_verbatim(span);
            fits.then(|| Fix::proposal(format!("write `{text}`"), vec![edit]))
        });
        let finding = Finding::new(&TEMPLATE, read.file, span, fault.what.as_str());
        findings.push(finding.about(read.name()).fixed_by(fix));
    }
    for label in &template.labels {
        if !template.asked.contains(&label.text) {
            findings.extend(dropped(read, value, label).or_else(|| number(read, value, label)));
        }
    }
    for query in &template.queries {
        findings.extend(unreadable(read, value, query));
    }
    if in_percent(&read.query.expr) {
        for span in &template.percentages {
            let what = "The expression multiplies by 100, and `humanizePercentage` does so again.";
            let span = value.offsets.range(span.clone());
            findings.push(Finding::new(&PERCENT_TWICE, read.file, span, what).about(read.name()));
        }
    }
    Some(template)
}

/// Whether the value of an expression is a share in per cent: multiplied by 100, or what is left of 100.
fn in_percent(expr: &Expr) -> bool {
    const ALL: Option<f64> = Some(100.0);
    match expr {
        Expr::Paren(paren) => in_percent(&paren.expr),
        Expr::Aggregation(aggregation) => {
            let same = [Aggregator::Avg, Aggregator::Max, Aggregator::Min];
            aggregation
                .aggregator()
                .is_some_and(|aggregator| same.contains(&aggregator))
                && in_percent(&aggregation.expr)
        }
        Expr::Binary(binary) => match binary.op {
            BinaryOp::Mul => binary.left.as_number() == ALL || binary.right.as_number() == ALL,
            BinaryOp::Sub => binary.left.as_number() == ALL,
            BinaryOp::Div => {
                let multiplied = |left: &Expr| matches!(left, Expr::Binary(left) if left.op == BinaryOp::Mul);
                multiplied(binary.left.unparenthesised()) && in_percent(&binary.left)
            }
            op => (op.is_comparison() || op.is_set()) && binary.returns_bool.is_none() && in_percent(&binary.left),
        },
        _ => false,
    }
}

/// A label that the result of the expression does not have.
fn dropped(read: &Read<'_>, value: &Text, label: &Use) -> Option<Finding> {
    let loss = read.flow.lost(&label.text)?;
    let name = &label.text;
    let part = one_line(loss.span.of(&read.query.text));
    let what = match loss.how {
        How::By | How::Without | How::On | How::Ignoring => {
            format!("`{part}` does not keep the label `{name}`, so it is empty here.")
        }
        How::Aggregated => format!("`{part}` without `by ({name})` drops all labels, so `{name}` is empty here."),
        How::Absent => {
            format!("`absent` has only the labels that its selector compares with `=`: `{name}` is empty here.")
        }
        How::Quantile => format!("`histogram_quantile` drops `{name}`, so it is empty here."),
        How::Constant => format!("`{part}` has no labels, so `{name}` is empty here."),
        How::NotExported => format!("`{part}` has no label `{name}`, so it is empty here."),
        How::AskedEmpty => format!("`{part}` asks for series without `{name}`, so it is empty here."),
        How::Recorded => format!("`{part}` is recorded without `{name}`, so it is empty here."),
    };
    let span = value.offsets.range(label.span.clone());
    let finding = Finding::new(&LABEL_DROPPED, read.file, span, what)
        .about(read.name())
        .because("Whoever is called does not read which one it is.");
    let fix = respell(read, value, label).or_else(|| keep(read, name, loss));
    Some(finding.fixed_by(fix))
}

/// A label that the result has, and that is written almost like this one.
fn respell(read: &Read<'_>, value: &Text, label: &Use) -> Option<Fix> {
    let near = closest(
        &label.text,
        read.flow
            .known_labels()
            .into_iter()
            .chain(TARGET_LABELS.iter().copied()),
        1,
    )
    .pop()?;
    let written = value.value.get(label.span.clone())?;
    let meant = label.text.len() > 4 && is_typo(&label.text, &near) && !TARGET_LABELS.contains(&label.text.as_str());
    let fits = meant && written.ends_with(&label.text) && value.offsets.is_verbatim(&label.span);
    let start = label.span.end - label.text.len();
    let edit = Edit {
        span: value.offsets.range(start..label.span.end),
        text: near.clone(),
    };
    fits.then(|| Fix::proposal(format!("write `{near}`"), vec![edit]))
}

/// `$labels.value` where nothing in the expression speaks of such a label.
fn number(read: &Read<'_>, value: &Text, label: &Use) -> Option<Finding> {
    let of_result = &read.flow;
    if label.text != "value" || of_result.named().any(|(name, _)| name == "value") {
        return None;
    }
    let finding = Finding::new(
        &VALUE_AS_LABEL,
        read.file,
        value.offsets.range(label.span.clone()),
        "`$labels.value` is a label called `value`, of which the expression says nothing.",
    );
    let edit = Edit {
        span: value.offsets.range(label.span.clone()),
        text: "$value".to_owned(),
    };
    let written = &value.value[label.span.clone()];
    let fits = written == "$labels.value" && value.offsets.is_verbatim(&label.span);
    let fix = fits.then(|| Fix::proposal("write `$value`", vec![edit]));
    Some(finding.about(read.name()).fixed_by(fix))
}

/// Naming the label in every aggregation, so that the sides of an operator still have the same labels.
fn keep(read: &Read<'_>, label: &str, loss: Loss) -> Option<Fix> {
    let offsets = &read.rule.expr.offsets;
    if !matches!(loss.how, How::By | How::Aggregated) || !offsets.exact() {
        return None;
    }
    let mut edits = Vec::new();
    let mut counts = false;
    read.query.expr.walk(&mut |part| {
        counts |= counts_targets(part);
        let Expr::Aggregation(aggregation) = part else {
            return;
        };
        if aggregation.keeps(label) || aggregation.aggregator().is_none_or(Aggregator::is_selection) {
            return;
        }
        let (at, text) = match &aggregation.grouping {
            None => (aggregation.op_span.end, format!(" by ({label}) ")),
            Some(grouping) => {
                let written = grouping.span.of(&read.query.text);
                let open = written.find('(').unwrap_or_default();
                let comma = if grouping.labels.is_empty() { "" } else { ", " };
                (grouping.span.start + open as u32 + 1, format!("{label}{comma}"))
            }
        };
        let place = offsets.range(at as usize..at as usize);
        edits.push(Edit { span: place, text });
    });
    (!counts).then(|| Fix::proposal(format!("keep `{label}`"), edits))
}

/// Whether an expression is about how many there are, or whether there is any: apart from each other they would say
/// another thing.
fn counts_targets(expr: &Expr) -> bool {
    match expr {
        Expr::Aggregation(aggregation) => match aggregation.aggregator() {
            Some(Aggregator::Count | Aggregator::CountValues | Aggregator::Group) => true,
            Some(Aggregator::Sum) => {
                let selectors = aggregation.expr.selectors();
                let mut names = selectors.iter().filter_map(|selector| selector.metric());
                names.any(|name| name == "up" || name.ends_with("_info"))
            }
            _ => false,
        },
        // Of several states the best or the worst.
        Expr::Binary(binary) if binary.op.is_comparison() => {
            let extreme = |side: &Expr| match side.unparenthesised() {
                Expr::Aggregation(of) => matches!(of.aggregator(), Some(Aggregator::Max | Aggregator::Min)),
                _ => false,
            };
            let is_state = |side: &Expr| side.as_number().is_some_and(|number| (0.0..=1.0).contains(&number));
            extreme(&binary.left) && is_state(&binary.right) || extreme(&binary.right) && is_state(&binary.left)
        }
        Expr::Call(call) => call.name() == "vector",
        _ => false,
    }
}

fn unreadable(read: &Read<'_>, value: &Text, query: &Use) -> Option<Finding> {
    let text = match query.text.strip_prefix('`') {
        Some(raw) => raw.strip_suffix('`')?.to_owned(),
        // Go's quotes and JSON's agree on all that queries hold.
        None => serde_json::from_str(&query.text).ok()?,
    };
    let error = promql::parse(&text).err()?;
    let what = format!("The query in this template is not PromQL: {}.", error.message);
    let span = value.offsets.range(query.span.clone());
    Some(Finding::new(&TEMPLATE_QUERY, read.file, span, what).about(read.name()))
}

fn severity(read: &Read<'_>, options: &Options, findings: &mut Vec<Finding>) {
    let name = &read.rule.name;
    let Some(severity) = read.rule.label("severity").or_else(|| read.group.label("severity")) else {
        let what = "This alert has no `severity`.";
        findings.push(Finding::new(&NO_SEVERITY, read.file, name.span.clone(), what).about(&name.value));
        return;
    };
    let known = &options.severities;
    let value = &severity.value;
    if value.contains("{{") || known.is_empty() || known.contains(value) {
        return;
    }
    let near = closest(&value.to_lowercase(), known, 1).pop();
    let what = match &near {
        Some(near) => format!("No severity is called `{value}`; `{near}` is."),
        None => format!("No severity is called `{value}`. There are {}.", known.join(", ")),
    };
    let fix = near.map(|near| {
        let edit = Edit {
            span: severity.span.clone(),
            text: near.clone(),
        };
        Fix::proposal(format!("write `{near}`"), vec![edit])
    });
    let finding = Finding::new(&UNKNOWN_SEVERITY, read.file, severity.span.clone(), what);
    findings.push(finding.about(&name.value).fixed_by(fix));
}

fn annotations(read: &Read<'_>, findings: &mut Vec<Finding>) {
    const TELLING: &[&str] = &["summary", "description", "message", "title"];
    let name = &read.rule.name;
    let has = |wanted: &dyn Fn(&str) -> bool| read.rule.annotations.iter().any(|(key, _)| wanted(&key.value));
    if !has(&|key| TELLING.contains(&key)) {
        let what = "This alert has neither `summary` nor `description`.";
        findings.push(Finding::new(&NO_SUMMARY, read.file, name.span.clone(), what).about(&name.value));
    }
    if !has(&|key| key.starts_with("runbook") || key == "playbook") {
        let what = "This alert has no `runbook_url`.";
        findings.push(Finding::new(&NO_RUNBOOK, read.file, name.span.clone(), what).about(&name.value));
    }
}

/// Text with its white space as single blanks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
