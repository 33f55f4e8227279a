//! A trace on a terminal, or without one: the tree, when each span began, how long it took, and a bar of it. Whatever the
//! width, no line is longer; what is cut is cut at the end of names, and the JSON has it whole.

use super::tree::{Item, RAILS, Row, Tree};
use crate::output::{Paint, Style, latency, plural, printable};
use crate::request::{Kind, Span, Status};

/// Columns of the times.
const TIME: usize = 9;
/// Without a terminal.
const WIDTH: usize = 120;
/// From this width on there is room for a bar.
const WITH_BAR: usize = 72;
/// From this width on there is room for the starts.
const WITH_START: usize = 48;

/// The columns.
struct Columns {
    name: usize,
    start: bool,
    bar: usize,
    /// Without the bar.
    text: usize,
    /// Levels of the tree that are drawn; what is deeper stands at the last one, with its depth.
    levels: usize,
}

impl Columns {
    fn of(width: usize) -> Self {
        let start = width >= WITH_START;
        let bar = if width >= WITH_BAR { (width / 4).min(40) } else { 0 };
        let times = if start { 2 * (TIME + 2) } else { TIME + 2 };
        let name = width.saturating_sub(times + if bar > 0 { bar + 2 } else { 0 }).max(8);
        Self {
            name,
            start,
            bar,
            text: name + times,
            // Half of the column is for names.
            levels: (name / 6).clamp(1, RAILS),
        }
    }
}

/// The trace with at most `limit` spans.
pub(super) fn text(id: &str, tree: &Tree<'_>, limit: usize, paint: Paint, width: Option<usize>) -> String {
    let columns = Columns::of(width.unwrap_or(WIDTH));
    let mut text = format!(
        "{} {id}\n{}\n\n",
        paint.apply(Style::Heading, "trace"),
        summary(tree, paint)
    );
    let head = |label: &str| paint.apply(Style::Heading, &format!("{label:>TIME$}"));
    text.push_str(&paint.apply(Style::Heading, &format!("{:<width$}", "SPAN", width = columns.name)));
    if columns.start {
        text.push_str(&format!("  {}", head("START")));
    }
    text.push_str(&format!("  {}\n", head("TIME")));
    let mut spans = 0;
    for row in &tree.rows {
        if let Item::Span(_) = row.item {
            spans += 1;
            if spans > limit {
                break;
            }
        }
        text.push_str(&line(row, tree, &columns, paint));
    }
    text
}

fn summary(tree: &Tree<'_>, paint: Paint) -> String {
    let errors = super::errors(tree.spans) as u64;
    let mut told = vec![
        plural(tree.spans.len() as u64, "span", "spans"),
        plural(tree.services().len() as u64, "service", "services"),
        latency(tree.duration_seconds()),
    ];
    if errors > 0 {
        told.push(paint.apply(Style::Error, &plural(errors, "error", "errors")));
    }
    let missing = tree.missing().len() as u64;
    if missing > 0 {
        let missing = plural(missing, "span missing", "spans missing");
        told.push(paint.apply(Style::Warning, &missing));
    }
    told.push(tree.started_at().strftime("%FT%T%.3fZ").to_string());
    told.join(", ")
}

fn line(row: &Row<'_>, tree: &Tree<'_>, columns: &Columns, paint: Paint) -> String {
    let rails = rails(row, columns.levels, paint);
    match row.item {
        Item::Span(index) => {
            let span = &tree.spans[index];
            let mut text = span_line(span, &rails, tree, columns, paint);
            if span.status == Status::Error
                && let Some(why) = span.why()
            {
                let below = straight(&row.rails[..row.rails.len().min(columns.levels)], paint);
                let told = cut(&format!("{below}  {}", one_line(why)), columns.text);
                text.push_str(&format!("{}\n", behind(&told, &below, Style::Error, paint)));
            }
            text
        }
        Item::Missing(id) => {
            let told = cut(&format!("{rails}(span {} is not there)", one_line(id)), columns.name);
            format!("{}\n", behind(&told, &rails, Style::Warning, paint))
        }
        Item::Line(index) => {
            let line = &tree.lines[index];
            let style = if line.is_error() { Style::Error } else { Style::Faint };
            let brief = one_line(&line.brief());
            let mark = if paint == Paint::Ascii { "*" } else { "·" };
            let offset = tree.nanoseconds(index).saturating_sub(tree.start);
            if !columns.start {
                let told = cut(&format!("{rails}{mark} {brief}"), columns.text);
                return format!("{}\n", behind(&told, &rails, style, paint));
            }
            let name = cut(&format!("{rails}{mark} {brief}"), columns.name);
            let pad = columns.name - name.chars().count();
            format!(
                "{}{:pad$}  {:>TIME$}\n",
                paint.apply(style, &name),
                "",
                offset_text(offset)
            )
        }
    }
}

fn span_line(span: &Span, rails: &str, tree: &Tree<'_>, columns: &Columns, paint: Paint) -> String {
    let failed = span.status == Status::Error;
    let kind = if span.kind == Kind::Internal {
        String::new()
    } else {
        format!(" ({})", span.kind.word())
    };
    let mark = match (failed, paint) {
        (true, Paint::Ascii) => "x ",
        (true, _) => "✗ ",
        (false, _) => "",
    };
    let service = one_line(&span.service);
    let whole = cut(
        &format!("{rails}{mark}{service}: {}{kind}", one_line(&span.name)),
        columns.name,
    );
    let pad = columns.name - whole.chars().count();
    let name = if failed {
        paint.apply(Style::Error, &whole)
    } else {
        named(&whole, rails, &service, paint)
    };
    let mut text = format!("{name}{:pad$}", "");
    let offset = span.start.saturating_sub(tree.start);
    if columns.start {
        text.push_str(&format!("  {:>TIME$}", offset_text(offset)));
    }
    text.push_str(&format!("  {:>TIME$}", latency(span.duration as f64 / 1e9)));
    if columns.bar > 0 {
        let style = if failed { Style::Error } else { Style::Hint };
        let (before, bar) = bar(span, tree, columns.bar, paint);
        text.push_str(&format!("  {before}{}", paint.apply(style, &bar)));
    }
    text.push('\n');
    text
}

/// The service in its colour, the rest plain.
fn named(whole: &str, rails: &str, service: &str, paint: Paint) -> String {
    match whole.strip_prefix(rails).and_then(|rest| rest.strip_prefix(service)) {
        Some(name) => format!("{rails}{}{name}", paint.apply(Style::Hint, service)),
        None => whole.to_owned(),
    }
}

/// The rails plain, what is behind them in a colour.
fn behind(whole: &str, rails: &str, style: Style, paint: Paint) -> String {
    match whole.strip_prefix(rails) {
        Some(rest) => format!("{rails}{}", paint.apply(style, rest)),
        None => paint.apply(style, whole),
    }
}

/// What stands before the bar, and the bar: as long as its share of the whole, and never nothing.
fn bar(span: &Span, tree: &Tree<'_>, width: usize, paint: Paint) -> (String, String) {
    let whole = tree.end.saturating_sub(tree.start).max(1) as f64;
    let at = |nanoseconds: i64| (nanoseconds.saturating_sub(tree.start) as f64 / whole * width as f64).round() as usize;
    let from = at(span.start).min(width - 1);
    let to = at(span.end()).clamp(from + 1, width);
    let cell = if paint == Paint::Ascii { "=" } else { "█" };
    (" ".repeat(from), cell.repeat(to - from))
}

fn offset_text(nanoseconds: i64) -> String {
    latency(nanoseconds as f64 / 1e9)
}

/// `│  ├─ `, at most so many levels.
fn rails(row: &Row<'_>, levels: usize, paint: Paint) -> String {
    let Some((last, above)) = row.rails[..row.rails.len().min(levels)].split_last() else {
        return String::new();
    };
    let (turn, end) = if paint == Paint::Ascii {
        ("|- ", "`- ")
    } else {
        ("├─ ", "└─ ")
    };
    let mut text = straight(above, paint);
    text.push_str(if *last { turn } else { end });
    if row.depth > levels {
        text.push_str(&format!("({}) ", row.depth));
    }
    text
}

fn straight(rails: &[bool], paint: Paint) -> String {
    let on = if paint == Paint::Ascii { "|  " } else { "│  " };
    rails.iter().map(|goes_on| if *goes_on { on } else { "   " }).collect()
}

/// Names and messages come from elsewhere: nothing in them steers the terminal, and they are one line.
fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n").replace('\t', " ")
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
