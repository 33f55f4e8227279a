//! Names that nobody exports: metrics, labels, values of labels.

use std::fmt::Write as _;

use manifest::{Found as Known, Source, Values, closest, is_typo};
use promql::ast::{Expr, MatchOp, MatcherView, Selector};

use super::table::{CLIENT_ERRORS, LABEL_UNKNOWN, LABEL_VALUE, METRIC_AS_LABEL, METRIC_UNKNOWN};
use super::{Look, Purpose};
use crate::Severity;
use crate::flow::TARGET_LABELS;

/// The metric of a selector, where its family is known as a whole.
pub(super) fn metric(look: &mut Look<'_>, expr: &Expr, above: &[&Expr]) {
    let Some((selector, name)) = named(expr) else {
        return;
    };
    let manifest = look.context.manifest;
    // Exporters have no colons in names: those are of rules, which may stand in other files.
    let recorded = name.contains(':') || look.context.records.contains_key(name);
    if recorded || manifest.lookup(name).is_some() || alternative(above) {
        return;
    }
    let Some(source) = manifest.owner(name) else {
        return;
    };
    let near = manifest.like(name);
    let mut what = format!("There is no metric `{name}`.");
    if !near.is_empty() {
        let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        let _ = write!(what, " There is {}.", near.join(", "));
    }
    let place = selector.name.as_ref().map_or(selector.span, |name| name.span);
    // Words of ours are words of others too: without a slip of the pen the metric may be theirs.
    let slip = near.iter().any(|near| is_typo(name, near)) || name.starts_with("opsctl_");
    let sure = slip || *source != Source::Catalogue;
    let found = look.find(&METRIC_UNKNOWN, place, what).according_to(source);
    if !sure {
        found
            .graded(Severity::Warning)
            .because("Unless another program exports it, the result is empty for ever.");
    }
    if let [only, ..] = near.as_slice()
        && selector.name.is_some()
    {
        found.propose(format!("ask for `{only}`"), vec![(place, only.clone())]);
    }
}

/// `on (x)` and `by (x)` where `x` is a metric of the same expression, and none of its labels as far as anybody knows.
pub(super) fn instead_of_labels(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let named = match expr {
        Expr::Binary(binary) => binary.matching.as_ref().map(|matching| &matching.labels),
        Expr::Aggregation(aggregation) => aggregation.grouping.as_ref().map(|grouping| &grouping.labels),
        _ => None,
    };
    let Some(named) = named.filter(|labels| !labels.is_empty()) else {
        return;
    };
    let selectors = look.query.expr.selectors();
    for label in named.iter().filter(|label| !label.templated) {
        let is_metric = selectors.iter().any(|selector| selector.metric() == Some(&label.text));
        let is_label = selectors.iter().any(|selector| {
            selector.views().any(|view| *view.label == *label.text)
                || selector
                    .metric()
                    .and_then(|name| look.context.manifest.lookup(name))
                    .is_some_and(|known| known.metric.label(&label.text).is_some())
        });
        if is_metric && !is_label {
            let what = format!("`{}` is a metric here, and no label.", label.text);
            look.find(&METRIC_AS_LABEL, label.span, what);
        }
    }
}

/// Whether the selector is one of several that stand in for each other (`old or new`): then one of them may be unknown.
fn alternative(above: &[&Expr]) -> bool {
    above.iter().any(|expr| match expr {
        Expr::Binary(binary) => binary.op == promql::ast::BinaryOp::Or,
        _ => false,
    })
}

fn named(expr: &Expr) -> Option<(&Selector, &str)> {
    match expr {
        Expr::Selector(selector) if !selector.metric_is_templated() => Some((selector, selector.metric()?)),
        _ => None,
    }
}

/// The labels and values in a selector's matchers.
pub(super) fn labels(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Some((selector, name)) = named(expr) else {
        return;
    };
    let known = look.context.manifest.lookup(name);
    for view in selector
        .views()
        .filter(|view| !view.templated && view.label != "__name__")
    {
        if let Some(known) = known {
            if known.metric.label(view.label).is_none() {
                unknown_label(look, known, view);
            } else {
                unknown_value(look, known, view);
            }
        }
        client_errors(look, known, view);
    }
}

fn unknown_label(look: &mut Look<'_>, known: Known<'_>, view: MatcherView<'_>) {
    let metric = known.metric;
    let wants_it = match view.op {
        MatchOp::Equal => !view.value.is_empty(),
        MatchOp::Regex => view.value != ".*" && !view.value.is_empty(),
        _ => false,
    };
    let manifest = look.context.manifest;
    let of_target = TARGET_LABELS.contains(&view.label) || manifest.target_labels().iter().any(|l| l == view.label);
    let of_bucket = view.label == "le" && known.part == manifest::Part::Bucket;
    // A label that the target has too is scraped under this name.
    let renamed = view.label.strip_prefix("exported_");
    let is_renamed = renamed.is_some_and(|label| metric.label(label).is_some());
    if !metric.complete || !wants_it || of_target || of_bucket || is_renamed {
        return;
    }
    let names: Vec<&str> = metric.labels.iter().map(|label| label.name.as_str()).collect();
    // A label that others of its source have, or that is nearly one of its own, is no label of the target.
    let near = closest(view.label, &names, 1).pop();
    let others_have = manifest.vocabulary(&metric.source).contains(view.label) && !is_standard(&metric.name);
    let sure = near.is_some() || others_have;
    let has = match names.as_slice() {
        [] => "no labels of its own".to_owned(),
        names => format!("the labels {}", names.join(", ")),
    };
    let what = format!("`{}` has no label `{}`. It has {has}.", metric.name, view.label);
    let found = look.find(&LABEL_UNKNOWN, view.span, what).according_to(&metric.source);
    if !sure {
        found
            .graded(Severity::Warning)
            .because("Unless scraping adds that label to its series, the selector matches nothing.");
    }
    if let Some(near) = near {
        let end = promql::Span::new(view.span.start, view.span.start + view.label.len() as u32);
        found.propose(format!("write `{near}`"), vec![(end, near)]);
    }
}

/// Whether programs of all kinds export a metric of that name, some with labels of their own.
fn is_standard(name: &str) -> bool {
    const STANDARDS: &[&str] = &["http_", "rpc_", "grpc_", "db_client_", "process_", "build_info"];
    STANDARDS.iter().any(|beginning| name.starts_with(beginning))
}

fn unknown_value(look: &mut Look<'_>, known: Known<'_>, view: MatcherView<'_>) {
    let Some(Values::Closed(values)) = known.metric.label(view.label).map(|label| &label.values) else {
        return;
    };
    let asked: Vec<&str> = match view.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![view.value],
        MatchOp::Regex | MatchOp::NotRegex => match super::regexes::literals(view.value) {
            Some(literals) => literals,
            None => return,
        },
    };
    let wrong: Vec<&str> = asked
        .iter()
        .copied()
        .filter(|value| !value.is_empty() && !values.iter().any(|known| known == value))
        .collect();
    let Some(first) = wrong.first() else {
        return;
    };
    let near = closest(first, values, 1).pop();
    let what = format!(
        "`{}` of `{}` is never {}. It is {}.",
        view.label,
        known.metric.name,
        wrong
            .iter()
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>()
            .join(" or "),
        shown(values),
    );
    let all_wrong = wrong.len() == asked.len() && !view.op.is_negative();
    let found = look
        .find(&LABEL_VALUE, view.span, what)
        .according_to(&known.metric.source);
    if !all_wrong {
        found
            .graded(Severity::Warning)
            .because("That part of the condition has no effect.");
    }
    if let (Some(near), [only]) = (near, asked.as_slice()) {
        let end = view.span.end - 1;
        let start = end.saturating_sub(only.len() as u32);
        found.propose(format!("ask for `{near}`"), vec![(promql::Span::new(start, end), near)]);
    }
}

/// A list of values, cut where it becomes long.
fn shown(values: &[String]) -> String {
    const MOST: usize = 10;
    let mut text = values.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if values.len() > MOST {
        let _ = write!(text, " or one of {} more", values.len() - MOST);
    }
    text
}

/// What counts as the server's fault, by the label that tells.
const SERVER_FAULTS: &[(&str, &[&str], &str)] = &[
    (
        "grpc_code",
        &["OK"],
        "Unknown|DeadlineExceeded|ResourceExhausted|Unimplemented|Internal|Unavailable|DataLoss",
    ),
    (
        "rpc_response_status_code",
        &["OK"],
        "UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS",
    ),
    ("rpc_grpc_status_code", &["0"], "2|4|8|12|13|14|15"),
    (
        "http_response_status_code",
        &["200", "2..", "2.*", "2\\d\\d", "2\\\\d\\\\d"],
        "5..",
    ),
    ("status_code", &["200", "2..", "2.*"], "5.."),
    ("code", &["200", "2..", "2.*", "2xx", "OK"], "5.."),
    ("status", &["200", "2..", "2.*", "2xx"], "5.."),
];

fn client_errors(look: &mut Look<'_>, known: Option<Known<'_>>, view: MatcherView<'_>) {
    if look.context.purpose != Purpose::Alert || !view.op.is_negative() {
        return;
    }
    let rows = SERVER_FAULTS.iter();
    let mut rows = rows.filter(|(label, success, _)| *label == view.label && success.contains(&view.value));
    let Some((label, _, faults)) = rows.next() else {
        return;
    };
    let (label, faults) = match (*label, view.value) {
        // go-grpc-prometheus under a shorter name.
        ("code", "OK") => ("code", SERVER_FAULTS[0].2),
        (_, "2xx") => (*label, "5xx"),
        _ => (*label, *faults),
    };
    let what = format!("`{}` counts callers' mistakes as errors too.", look.text(view.span));
    let found = look.find(&CLIENT_ERRORS, view.span, what);
    found.propose(
        "count what is the server's fault",
        vec![(view.span, format!("{label}=~\"{faults}\""))],
    );
    if let Some(known) = known {
        found.according_to(&known.metric.source);
    }
}
