//! Checks of what is asked of a Prometheus: whether it is a question at all, what `lint` finds in it, and what concerns it
//! on a board alone: ranges that fit the zoom, legends that fit the answer.

use lint::expression::{self, Purpose};
use lint::{Edit, Fix};
use manifest::Unit;
use promql::ast::{Aggregator, Duration, Expr};

use super::question::{Asker, Question, Why};
use super::table::{COUNTER_SHOWN, INTERVAL_FOR_RATE, LEGEND_LABEL, QUERY_SYNTAX, QUERY_UNFINISHED, RATE_INTERVAL};
use super::{Look, fix};

/// Of the question of a variable these alone count: which series there are is asked, not what they say.
const OF_VARIABLES: [&str; 3] = ["metric-unknown", "label-unknown", "label-value"];

pub(super) fn unreadable(look: &mut Look<'_>) {
    for unread in look.unreadable {
        let document = look.board.document;
        let finding = match &unread.why {
            Why::Refused(error) => {
                let start = unread.offset + error.span.start as usize;
                let end = unread.offset + error.span.end as usize;
                look.find(
                    &QUERY_SYNTAX,
                    document.inside(unread.node, start..end.max(start)),
                    format!("{}.", error.message),
                )
            }
            Why::Unfinished(sign) => {
                let at = unread.node.text().and_then(|text| text.find(sign)).unwrap_or_default();
                let span = document.inside(unread.node, at..at + sign.len());
                look.find(
                    &QUERY_UNFINISHED,
                    span,
                    format!("`{sign}` is a sign of a template, not of PromQL."),
                )
            }
        };
        finding.subject = unread.asker.name();
    }
}

pub(super) fn expressions(look: &mut Look<'_>) {
    let document = look.board.document;
    let context = expression::Context {
        manifest: look.context.manifest,
        records: look.context.records,
        purpose: Purpose::Panel,
        scrape_interval: look.context.scrape_interval,
    };
    for question in look.questions {
        for found in expression::check(&question.query, context) {
            if matches!(question.asker, Asker::Variable(_)) && !OF_VARIABLES.contains(&found.check.name) {
                continue;
            }
            if found.check.name == "rate-on-gauge" && is_of_moments(look, question, found.span) {
                continue;
            }
            let place = |span: promql::Span| {
                let range = span.range();
                question.offset + range.start..question.offset + range.end
            };
            let fix = found.fix.map(|remedy| {
                let edits = remedy
                    .edits
                    .iter()
                    .map(|(span, by)| fix::inside(document, question.node, place(*span), by));
                Fix {
                    title: remedy.title,
                    safe: remedy.safe,
                    edits: edits.collect(),
                }
            });
            let finding = look.find(
                found.check,
                document.inside(question.node, place(found.span)),
                found.what,
            );
            finding.severity = found.severity;
            finding.subject = question.asker.name();
            finding.according_to = found.according_to;
            finding.fix = fix;
            if let Some(why) = found.why {
                finding.why = why;
            }
        }
    }
}

/// A moment that only ever moves on may be taken a rate of: how fast something follows.
fn is_of_moments(look: &Look<'_>, question: &Question<'_>, span: promql::Span) -> bool {
    let selectors = question.query.expr.selectors();
    let mut names = selectors
        .iter()
        .filter(|of| span.contains(of.span))
        .filter_map(|of| of.name.as_ref());
    names.all(|name| {
        Unit::of_name(&name.text) == Unit::Timestamp || {
            let found = look.context.manifest.lookup(&name.text);
            found.is_some_and(|found| found.metric.unit == Unit::Timestamp)
        }
    })
}

pub(super) fn rates(look: &mut Look<'_>) {
    for question in look.questions {
        let Asker::Panel(panel, target, _) = question.asker else {
            continue;
        };
        // With an interval of its own `$__interval` is never shorter than that.
        let has_least = [target.node, panel.node]
            .iter()
            .any(|of| of.text_of("interval").is_some_and(|of| !of.is_empty()));
        let over_time = matches!(panel.kind, "timeseries" | "graph" | "heatmap") && !target.instant;
        let mut found = Vec::new();
        question.query.expr.walk(&mut |expr| {
            let Expr::Call(call) = expr else { return };
            let argument = call.arguments.first().map(Expr::unparenthesised);
            let Some(Expr::Selector(selector)) = argument else {
                return;
            };
            let Some(range) = &selector.range else { return };
            match &range.duration {
                Duration::Literal(_) if over_time && matches!(call.name(), "rate" | "irate") => {
                    found.push((&RATE_INTERVAL, range.span, call.name()));
                }
                Duration::Variable(name)
                    if !has_least
                        && matches!(call.name(), "rate" | "irate" | "increase")
                        && matches!(&*name.text, "$__interval" | "${__interval}" | "[[__interval]]") =>
                {
                    found.push((&INTERVAL_FOR_RATE, range.span, call.name()));
                }
                _ => {}
            }
        });
        for (check, span, name) in found {
            let written = span.of(&question.query.text).to_owned();
            let fix = vec![edit(look, question, span, "[$__rate_interval]")];
            let document = look.board.document;
            let span = document.inside(
                question.node,
                question.offset + span.range().start..question.offset + span.range().end,
            );
            let finding = look.find_in(panel, check, span, format!("`{name}` is taken over `{written}`."));
            // Increases over windows that overlap would count twice.
            finding.fix = (name != "increase").then(|| Fix::proposal("take it over what fits the zoom", fix));
        }
    }
}

/// Counters that reach a chart over time as they are: summed or filtered perhaps, but never as a rate.
pub(super) fn counters(look: &mut Look<'_>) {
    for question in look.questions {
        let Asker::Panel(panel, target, _) = question.asker else {
            continue;
        };
        if !matches!(panel.kind, "timeseries" | "graph") || target.instant || panel.transformed {
            continue;
        }
        let mut expr = question.query.expr.unparenthesised();
        while let Expr::Aggregation(aggregation) = expr {
            if aggregation
                .aggregator()
                .is_none_or(|op| matches!(op, Aggregator::Count | Aggregator::Group))
            {
                break;
            }
            expr = aggregation.expr.unparenthesised();
        }
        let Expr::Selector(selector) = expr else { continue };
        let Some(name) = selector
            .name
            .as_ref()
            .filter(|name| !name.templated && selector.range.is_none())
        else {
            continue;
        };
        let found = look.context.manifest.lookup(&name.text);
        if let Some(found) = found.filter(|found| found.metric.is_cumulative(found.part)) {
            let document = look.board.document;
            let span = name.span.range();
            let span = document.inside(question.node, question.offset + span.start..question.offset + span.end);
            let source = found.metric.source.to_string();
            let what = format!("`{}` is a counter.", name.text);
            look.find_in(panel, &COUNTER_SHOWN, span, what).according_to = Some(source);
        }
    }
}

fn edit(look: &Look<'_>, question: &Question<'_>, span: promql::Span, by: &str) -> Edit {
    let range = question.offset + span.range().start..question.offset + span.range().end;
    fix::inside(look.board.document, question.node, range, by)
}

pub(super) fn legends(look: &mut Look<'_>) {
    for question in look.questions {
        let Asker::Panel(panel, target, _) = question.asker else {
            continue;
        };
        let Some((node, legend)) = target.legend.and_then(|node| Some((node, node.text()?))) else {
            continue;
        };
        // A heat map shows no names.
        if target.format == "table" || panel.kind == "heatmap" {
            continue;
        }
        for (at, label) in named(legend) {
            if question.flow.lost(label).is_some() {
                let span = look.board.document.inside(node, at..at + label.len());
                look.find_in(
                    panel,
                    &LEGEND_LABEL,
                    span,
                    format!("The answer has no label `{label}`."),
                );
            }
        }
    }
}

/// The labels that a legend names, with their places.
fn named(legend: &str) -> impl Iterator<Item = (usize, &str)> {
    // Up to the next end, so that openings without one are not looked through again and again.
    let parts = legend.match_indices("}}").scan(0, |after, (end, _)| {
        let part = *after..end;
        *after = end + 2;
        Some(part)
    });
    parts.filter_map(|part| {
        let (before, inner) = legend.get(part.clone())?.rsplit_once("{{")?;
        let label = inner.trim();
        let at = part.start + before.len() + 2 + (inner.len() - inner.trim_start().len());
        let is_label = !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_label.then_some((at, label))
    })
}
