//! Checks of variables: whether they can be filled, whether somebody uses them, whether all that is used is there.

use std::collections::{BTreeMap, BTreeSet};

use lint::Fix;
use promql::ast::{MatchOp, Matcher};

use super::question::Asker;
use super::table::{
    VARIABLE_ALL, VARIABLE_CYCLE, VARIABLE_DUPLICATE, VARIABLE_EQUALITY, VARIABLE_LABEL, VARIABLE_QUERY,
    VARIABLE_REPEAT, VARIABLE_UNDEFINED, VARIABLE_UNUSED,
};
use super::{Look, fix};
use crate::read::{Board, Language, Node, Query, Variable};

/// More variables than any board has; what needs what is not followed among so many.
const MANY: usize = 300;

/// Whether Grafana itself, or what is asked for at the import, gives the variable its value.
pub(super) fn is_given(board: &Board<'_>, name: &str) -> bool {
    name.starts_with("__")
        || matches!(name, "timeFilter" | "timeRange" | "interval_ms")
        || board.inputs.iter().any(|(input, _)| *input == name)
}

pub(super) fn definitions(look: &mut Look<'_>) {
    let board = look.board;
    let mut seen = BTreeSet::new();
    for variable in &board.variables {
        let name = variable.name().unwrap_or("");
        let head = variable
            .name
            .map_or(variable.node.span.start..variable.node.span.start + 1, |node| {
                node.span.clone()
            });
        if !name.is_empty() && !seen.insert(name) {
            look.find(
                &VARIABLE_DUPLICATE,
                head.clone(),
                format!("Another variable is called `{name}` too."),
            )
            .subject = name.into();
        }
        if variable.kind == "query" && variable.include_all && variable.all_value.is_none() {
            let object = variable.node.get("spec").unwrap_or(variable.node);
            let edit = match object.get("allValue") {
                Some(node) => Some(fix::replace(node, ".+")),
                None if object.fields().iter().any(|field| &*field.name == "allValue") => None,
                None => fix::add_field(board.document, object, "allValue", ".+"),
            };
            let finding = look.find(
                &VARIABLE_ALL,
                head.clone(),
                format!("\"All\" of `{name}` becomes whatever was found."),
            );
            name.clone_into(&mut finding.subject);
            finding.fix = edit.map(|edit| Fix::proposal("let \"all\" be `.+`", vec![edit]));
        }
        let asked = variable
            .datasource
            .map(|source| source.language(&board.variables, &board.inputs));
        if asked == Some(Language::Prometheus) {
            question(look, variable, name);
        }
    }
    cycles(look);
}

fn question(look: &mut Look<'_>, variable: &Variable<'_>, name: &str) {
    let Some((node, text)) = variable.query.and_then(|node| Some((node, node.text()?))) else {
        return;
    };
    let document = look.board.document;
    if variable.kind == "query" && variable.question().is_none() && !text.trim().is_empty() {
        let what = "This begins like `label_values(…)` and does not end like it.";
        look.find(&VARIABLE_QUERY, node.span.clone(), what).subject = name.into();
        return;
    }
    let Some(
        Query::LabelOf {
            label: (label, span), ..
        }
        | Query::Label { label: (label, span) },
    ) = variable.question()
    else {
        return;
    };
    let is_label = label
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '{' | '}' | '[' | ']' | ':'));
    if !is_label || label.is_empty() {
        let what = format!("`{label}` cannot be a label.");
        look.find(&VARIABLE_QUERY, document.inside(node, span), what).subject = name.into();
        return;
    }
    let asked = look.questions.iter().find(|question| std::ptr::eq(question.node, node));
    if let Some(question) = asked.filter(|_| !label.contains(['$', '[']))
        && question.flow.lost(&label).is_some()
    {
        let what = format!("The series that are asked for have no label `{label}`.");
        look.find(&VARIABLE_LABEL, document.inside(node, span), what).subject = name.into();
    }
}

/// Every text in a tree.
fn texts<'n>(root: &'n Node, mut each: impl FnMut(&'n Node, &'n str)) {
    let mut pending = vec![root];
    while let Some(node) = pending.pop() {
        if let Some(text) = node.text() {
            each(node, text);
        }
        pending.extend(node.items());
        pending.extend(node.fields().iter().map(|field| &field.value));
    }
}

/// The variables that a text names; an automatic interval is its variable's.
fn named(text: &str) -> impl Iterator<Item = &str> {
    promql::variables(text).map(|variable| variable.name.strip_prefix("__auto_interval_").unwrap_or(variable.name))
}

/// Which variable needs which, and whether one needs itself in the end.
fn cycles(look: &mut Look<'_>) {
    let board = look.board;
    if board.variables.len() > MANY {
        return;
    }
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for variable in &board.variables {
        let (Some(name), Some(query)) = (variable.name(), variable.query) else {
            continue;
        };
        texts(query, |_, text| needs.entry(name).or_default().extend(named(text)));
    }
    for variable in &board.variables {
        let Some(name) = variable.name() else { continue };
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut pending = vec![name];
        while let Some(at) = pending.pop() {
            for next in needs.get(at).into_iter().flatten() {
                if reached.insert(next) {
                    pending.push(next);
                }
            }
        }
        if reached.contains(name) {
            let span = variable
                .query
                .map_or(variable.node.span.clone(), |query| query.span.clone());
            look.find(&VARIABLE_CYCLE, span, format!("What fills `{name}` needs `{name}`."))
                .subject = name.into();
        }
    }
}

pub(super) fn uses(look: &mut Look<'_>) {
    let board = look.board;
    let defined: BTreeSet<&str> = board.variables.iter().filter_map(Variable::name).collect();
    let known = |name: &str| defined.contains(name) || is_given(board, name);
    // Questions alone: a dollar in a text or a description may be money.
    let mut asked: Vec<(&Node, String)> = Vec::new();
    for panel in look.panels() {
        let of_panel = panel
            .targets
            .iter()
            // Other plugins have fields of their own, and keep what stood there for Prometheus.
            .filter(|target| target.language != Language::Other)
            .filter_map(|target| Some((target.expr?, panel.name())));
        asked.extend(of_panel);
        if let Some((node, name)) = panel.repeat.and_then(|node| Some((node, node.text()?)))
            && !known(name)
        {
            look.find_in(
                panel,
                &VARIABLE_REPEAT,
                node.span.clone(),
                format!("The board has no variable `{name}`."),
            );
        }
    }
    let of_variables = board.variables.iter().filter(|variable| variable.kind == "query");
    asked.extend(of_variables.filter_map(|variable| Some((variable.query?, variable.name()?.to_owned()))));
    asked.extend(
        board
            .annotations
            .iter()
            .filter_map(|of| Some((of.expr?, of.name.unwrap_or("").to_owned()))),
    );
    for (node, subject) in asked {
        let text = node.text().unwrap_or("");
        for variable in promql::variables(text) {
            let name = variable.name.strip_prefix("__auto_interval_").unwrap_or(variable.name);
            // Grafana leaves what it does not know: the dollar of a regular expression.
            let escaped = text[..variable.span.range().start].ends_with('\\');
            if !known(name) && !escaped {
                let span = board.document.inside(node, variable.span.range());
                look.find(
                    &VARIABLE_UNDEFINED,
                    span,
                    format!("The board has no variable `{name}`."),
                )
                .subject = subject.as_str().into();
            }
        }
    }
    let mut used: BTreeSet<&str> = look.panels().iter().filter_map(|panel| panel.repeat?.text()).collect();
    let own: Vec<&Node> = board.variables.iter().map(|variable| variable.node).collect();
    texts(&board.document.root, |node, text| {
        // What a variable says of itself is no use of it.
        let at = own.partition_point(|of| of.span.start <= node.span.start);
        let within = at.checked_sub(1).filter(|at| node.span.end <= own[*at].span.end);
        let itself = within.and_then(|at| board.variables[at].name());
        used.extend(named(text).filter(|name| Some(*name) != itself));
    });
    for variable in &board.variables {
        let Some(name) = variable.name().filter(|name| !used.contains(name)) else {
            continue;
        };
        // Filters that apply to every question need not be named.
        if !matches!(variable.kind, "adhoc" | "groupby") && !name.is_empty() {
            let span = variable.name.map_or(0..0, |node| node.span.clone());
            look.find(&VARIABLE_UNUSED, span, format!("Nothing on the board uses `{name}`."))
                .subject = name.into();
        }
    }
}

pub(super) fn equality(look: &mut Look<'_>) {
    for question in look.questions {
        if matches!(question.asker, Asker::Annotation(_)) {
            continue;
        }
        for selector in question.query.expr.selectors() {
            for matcher in &selector.matchers {
                let Matcher::Label(matcher) = matcher else { continue };
                let operator = match matcher.op {
                    MatchOp::Equal => "=~",
                    MatchOp::NotEqual => "!~",
                    _ => continue,
                };
                let mut variables = matcher.value.variables();
                let Some(variable) = variables.next().filter(|variable| {
                    // The whole value, in the way that Grafana writes it by itself.
                    variable.span.range() == (0..matcher.value.value.len()) && variable.format.is_none()
                }) else {
                    continue;
                };
                let Some(defined) = look.board.variable(variable.name) else {
                    continue;
                };
                let several = defined.multi || defined.include_all;
                if !several || question.asker.repeats(variable.name) {
                    continue;
                }
                let place = |span: promql::Span| {
                    let range = span.range();
                    question.offset + range.start..question.offset + range.end
                };
                let document = look.board.document;
                let between = matcher.label.span.end..matcher.value.span.start;
                let between = question.offset + between.start as usize..question.offset + between.end as usize;
                let edit = fix::inside(document, question.node, between, operator);
                let what = format!("`{}` may be several values.", variable.name);
                let finding = look.find(
                    &VARIABLE_EQUALITY,
                    document.inside(question.node, place(matcher.span)),
                    what,
                );
                finding.subject = question.asker.name();
                finding.fix = Some(Fix::safe(format!("compare with `{operator}`"), vec![edit]));
            }
        }
    }
}
