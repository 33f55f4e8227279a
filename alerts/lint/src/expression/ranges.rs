//! Ranges that hold too few samples, and ratios whose divisor may be zero.

use promql::ast::{BinaryOp, Expr};

use super::shape::{GROWTH, holds, holds_call};
use super::table::{NO_ZERO_GUARD, RANGE_SHORT};
use super::{Look, Purpose};
use crate::Severity;

/// Scrapes that a range should hold, and must hold to have two samples at all.
const WANTED: f64 = 4.0;
const NEEDED: f64 = 2.0;

pub(super) fn range(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let (Expr::Call(call), Some(scrape)) = (expr, look.context.scrape_interval) else {
        return;
    };
    let needs_two = GROWTH.contains(&call.name()) || matches!(call.name(), "delta" | "idelta" | "deriv");
    let Some(Expr::Selector(selector)) = call.arguments.first().map(Expr::unparenthesised) else {
        return;
    };
    let recorded = selector
        .metric()
        .is_some_and(|name| look.context.records.contains_key(name) || name.contains(':'));
    let Some(range) = selector.range.as_ref().filter(|_| needs_two && !recorded) else {
        return;
    };
    let (Some(seconds), scrape) = (range.duration.seconds(), scrape.as_secs_f64()) else {
        return;
    };
    let scrapes = seconds / scrape;
    let looks_back = matches!(call.name(), "irate" | "idelta");
    if scrapes >= WANTED || (looks_back && scrapes > NEEDED) || scrape <= 0.0 {
        return;
    }
    let what = format!(
        "{} holds {} of a scrape every {}s.",
        look.text(range.duration.span()),
        if scrapes < NEEDED {
            "fewer than two samples"
        } else {
            "fewer than four samples"
        },
        scrape
    );
    let wanted = (scrape * WANTED).ceil() as u64;
    let text = if wanted.is_multiple_of(60) {
        format!("{}m", wanted / 60)
    } else {
        format!("{wanted}s")
    };
    let found = look.find(&RANGE_SHORT, range.span, what);
    if scrapes < NEEDED {
        found
            .graded(Severity::Error)
            .because("A rate needs two samples: the result is empty for ever.");
    }
    found.propose(format!("look back over {text}"), vec![(range.duration.span(), text)]);
}

/// `a / b` where both are rates: without traffic they are 0, and the result NaN.
pub(super) fn guard(look: &mut Look<'_>, expr: &Expr, above: &[&Expr]) {
    let Expr::Binary(binary) = expr else {
        return;
    };
    if look.context.purpose != Purpose::Alert || binary.op != BinaryOp::Div {
        return;
    }
    let divisor = &binary.right;
    let guards = |part: &Expr| match part {
        Expr::Binary(inner) => {
            inner.op.is_comparison()
                || matches!(inner.op, BinaryOp::Or | BinaryOp::Unless)
                || (inner.op == BinaryOp::Add
                    && (inner.left.as_number().is_some() || inner.right.as_number().is_some()))
        }
        _ => false,
    };
    let recorded = |part: &Expr| matches!(part, Expr::Selector(selector) if selector.metric().is_some_and(|name| name.contains(':')));
    let may_be_zero =
        holds_call(divisor, GROWTH) && (holds_call(&binary.left, GROWTH) || holds(&binary.left, recorded));
    if !may_be_zero || holds(divisor, guards) || holds_call(divisor, &["clamp_min", "clamp"]) {
        return;
    }
    let mut compared = false;
    let mut below = expr;
    for parent in above.iter().rev() {
        if let Expr::Binary(outer) = parent {
            let is_left = std::ptr::eq(below, &raw const outer.left);
            let other = if is_left { &outer.right } else { &outer.left };
            compared |= outer.op.is_comparison();
            let compares = |part: &Expr| matches!(part, Expr::Binary(inner) if inner.op.is_comparison());
            if matches!(outer.op, BinaryOp::And | BinaryOp::Unless | BinaryOp::Or) && holds(other, compares) {
                return;
            }
        }
        below = parent;
    }
    if !compared {
        return;
    }
    let span = divisor.span();
    let what = format!("`{}` is 0 when there is no traffic.", one_line(look.text(span)));
    let start = promql::Span::new(span.start, span.start);
    let end = promql::Span::new(span.end, span.end);
    let group = binary.matching.as_ref().and_then(|matching| matching.group.as_ref());
    // A parenthesis right after `group_left` opens its list of labels.
    let bare = group.is_some_and(|group| !look.text(group.span).contains('('));
    let open = if bare { "() (" } else { "(" };
    let edits = vec![(start, open.to_owned()), (end, " > 0)".to_owned())];
    look.find(&NO_ZERO_GUARD, span, what).propose(
        "divide by what is above zero, and alert on missing traffic apart",
        edits,
    );
}

/// Text with its white space as single blanks, cut where it becomes long.
fn one_line(text: &str) -> String {
    const MOST: usize = 60;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
