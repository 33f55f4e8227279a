//! How the spans of a trace hang together: by parents, in order of time, with what is missing named. Pure, and safe with
//! whatever a server answers: parents that are their own children, ids twice, a chain of thousands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::output::latency;
use crate::request::{Line, Span, time};

/// Spans and lines, in the order in which they are read.
pub(super) struct Tree<'a> {
    /// The spans, by start.
    pub(super) spans: &'a [Span],
    /// The lines, by time.
    pub(super) lines: &'a [Line],
    /// What is drawn, from the top.
    pub(super) rows: Vec<Row<'a>>,
    /// When the first span began, in nanoseconds since 1970.
    pub(super) start: i64,
    /// When the last one was over.
    pub(super) end: i64,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// What it is of.
    pub(super) item: Item<'a>,
    /// How deep it is; roots are 0.
    pub(super) depth: usize,
    /// For each of the first [`RAILS`] levels below the root: whether that level goes on below this row.
    pub(super) rails: Vec<bool>,
}

/// What a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A span, by its place.
    Span(usize),
    /// A span that others name as their parent and that is not there.
    Missing(&'a str),
    /// A line, by its place.
    Line(usize),
}

/// Levels whose rails are kept; what is deeper is drawn at this depth.
pub(super) const RAILS: usize = 24;

/// A service whose clock runs behind the clock of the service that called it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Skew {
    /// The caller.
    pub(super) caller: String,
    /// The called.
    pub(super) called: String,
    /// By how much at least.
    pub(super) at_least_seconds: f64,
}

impl Skew {
    /// In words.
    pub(super) fn words(&self) -> String {
        format!(
            "the clock of {} is at least {} behind that of {}: their times do not compare exactly",
            self.called,
            latency(self.at_least_seconds),
            self.caller
        )
    }
}

/// Something with children: a span that is there or one that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Parent<'a> {
    Top,
    Span(usize),
    Missing(&'a str),
}

impl<'a> Tree<'a> {
    /// Puts spans (by start) and lines (by time) into order.
    pub(super) fn new(spans: &'a [Span], lines: &'a [Line]) -> Self {
        let start = spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = spans.iter().map(Span::end).max().unwrap_or(start);
        let mut tree = Self {
            spans,
            lines,
            rows: Vec::new(),
            start,
            end,
        };
        tree.rows = tree.order();
        tree
    }

    fn order(&self) -> Vec<Row<'a>> {
        let (spans, lines) = (self.spans, self.lines);
        let by_id = self.by_id();
        let mut children: HashMap<Parent<'a>, Vec<Item<'a>>> = HashMap::new();
        // Missing spans count as begun with their first child.
        let mut begun: HashMap<&str, i64> = HashMap::new();
        for (index, span) in spans.iter().enumerate() {
            let parent = match &span.parent {
                None => Parent::Top,
                Some(id) => match by_id.get(id.as_str()) {
                    // The two halves of a call may have one id (Zipkin): such a one is not its own parent.
                    Some(parent) if *parent != index => Parent::Span(*parent),
                    Some(_) => Parent::Top,
                    None => Parent::Missing(id),
                },
            };
            if let Parent::Missing(id) = parent
                && !begun.contains_key(id)
            {
                begun.insert(id, span.start);
                children.entry(Parent::Top).or_default().push(Item::Missing(id));
            }
            children.entry(parent).or_default().push(Item::Span(index));
        }
        for (index, line) in lines.iter().enumerate() {
            let of = line.span_id.as_deref().and_then(|id| by_id.get(id));
            let parent = of.map_or(Parent::Top, |span| Parent::Span(*span));
            children.entry(parent).or_default().push(Item::Line(index));
        }
        for items in children.values_mut() {
            items.sort_by_key(|item| match item {
                Item::Span(index) => spans[*index].start,
                Item::Line(index) => self.nanoseconds(*index),
                Item::Missing(id) => begun.get(id).copied().unwrap_or(self.start),
            });
        }
        let mut seen = vec![false; spans.len()];
        let mut rows = Vec::with_capacity(spans.len() + lines.len());
        walk(
            children.remove(&Parent::Top).unwrap_or_default(),
            &mut children,
            &mut seen,
            &mut rows,
        );
        // What is left are spans whose parents are their own descendants: the first of each ring counts as a root.
        for index in 0..spans.len() {
            if !seen[index] {
                walk(vec![Item::Span(index)], &mut children, &mut seen, &mut rows);
            }
        }
        rows
    }

    fn by_id(&self) -> HashMap<&'a str, usize> {
        let mut by_id = HashMap::new();
        for (index, span) in self.spans.iter().enumerate() {
            by_id.entry(span.id.as_str()).or_insert(index);
        }
        by_id
    }

    /// When a line was written, in nanoseconds since 1970.
    pub(super) fn nanoseconds(&self, line: usize) -> i64 {
        let time = self.lines[line].time.map(jiff::Timestamp::as_nanosecond);
        time.and_then(|time| i64::try_from(time).ok()).unwrap_or(self.start)
    }

    /// When the first span began.
    pub(super) fn started_at(&self) -> jiff::Timestamp {
        time(self.start)
    }

    /// From the first start to the last end.
    pub(super) fn duration_seconds(&self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1e9
    }

    /// The services, by name.
    pub(super) fn services(&self) -> Vec<&'a str> {
        let services: BTreeSet<&str> = self.spans.iter().map(|span| span.service.as_str()).collect();
        services.into_iter().collect()
    }

    /// The ids of spans that are not there.
    pub(super) fn missing(&self) -> Vec<&'a str> {
        let missing = self.rows.iter().filter_map(|row| match row.item {
            Item::Missing(id) => Some(id),
            Item::Span(_) | Item::Line(_) => None,
        });
        missing.collect()
    }

    /// Where a called span began before its caller: no clock is right to the nanosecond, but cause comes before effect.
    pub(super) fn skews(&self) -> Vec<Skew> {
        let by_id = self.by_id();
        let mut worst: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for span in self.spans {
            let parent = span.parent.as_deref().and_then(|id| by_id.get(id));
            if let Some(parent) = parent.map(|index| &self.spans[*index])
                && parent.service != span.service
                && parent.start > span.start
            {
                let behind = parent.start - span.start;
                let known = worst.entry((&parent.service, &span.service)).or_default();
                *known = behind.max(*known);
            }
        }
        let skews = worst.into_iter().map(|((caller, called), behind)| Skew {
            caller: caller.to_owned(),
            called: called.to_owned(),
            at_least_seconds: behind as f64 / 1e9,
        });
        skews.collect()
    }
}

/// Depth first, without recursion: a chain of spans may be longer than a stack.
fn walk<'a>(
    roots: Vec<Item<'a>>,
    children: &mut HashMap<Parent<'a>, Vec<Item<'a>>>,
    seen: &mut [bool],
    rows: &mut Vec<Row<'a>>,
) {
    let mut open: Vec<Row<'a>> = roots
        .into_iter()
        .rev()
        .map(|item| Row {
            item,
            depth: 0,
            rails: Vec::new(),
        })
        .collect();
    while let Some(row) = open.pop() {
        let below = match row.item {
            Item::Span(index) => {
                if std::mem::replace(&mut seen[index], true) {
                    continue;
                }
                children.remove(&Parent::Span(index))
            }
            Item::Missing(id) => children.remove(&Parent::Missing(id)),
            Item::Line(_) => None,
        };
        for (place, item) in below.unwrap_or_default().into_iter().rev().enumerate() {
            let mut rails = row.rails.clone();
            if rails.len() < RAILS {
                // The last one was taken first.
                rails.push(place > 0);
            }
            open.push(Row {
                item,
                depth: row.depth + 1,
                rails,
            });
        }
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::{Item, Tree};
    use crate::request::{Kind, Line, Span, Status};

    fn span(id: &str, parent: &str, service: &str, start: i64, duration: i64) -> Span {
        Span {
            id: id.to_owned(),
            parent: (!parent.is_empty()).then(|| parent.to_owned()),
            service: service.to_owned(),
            instance: None,
            name: id.to_owned(),
            kind: Kind::Internal,
            start,
            duration,
            status: Status::Unset,
            message: None,
            attributes: serde_json::Map::new(),
            events: Vec::new(),
        }
    }

    /// Depth and name of every row.
    fn told(spans: &[Span], lines: &[Line]) -> Vec<String> {
        let tree = Tree::new(spans, lines);
        let rows = tree.rows.iter().map(|row| {
            let name = match row.item {
                Item::Span(index) => spans[index].name.clone(),
                Item::Missing(id) => format!("?{id}"),
                Item::Line(index) => format!("\"{}", lines[index].text),
            };
            format!("{}{name}", row.depth)
        });
        rows.collect()
    }

    #[test]
    fn children_stand_under_their_parents_in_order_of_time() {
        let spans = [
            span("a", "", "x", 0, 90),
            span("b", "a", "x", 10, 20),
            span("d", "b", "x", 12, 5),
            span("c", "a", "x", 40, 20),
        ];
        assert_eq!(told(&spans, &[]), ["0a", "1b", "2d", "1c"]);
        let tree = Tree::new(&spans, &[]);
        assert_eq!(tree.rows[2].rails, [true, false]);
    }

    #[test]
    fn what_is_missing_is_named_and_several_roots_are_shown() {
        let spans = [
            span("b", "lost", "x", 5, 1),
            span("a", "", "x", 8, 2),
            span("c", "lost", "x", 9, 1),
        ];
        assert_eq!(told(&spans, &[]), ["0?lost", "1b", "1c", "0a"]);
        assert_eq!(Tree::new(&spans, &[]).missing(), ["lost"]);
    }

    #[test]
    fn rings_and_ids_that_stand_twice_lose_no_span_and_hang_nobody() {
        let spans = [
            span("a", "b", "x", 0, 1),
            span("b", "a", "x", 1, 1),
            span("s", "s", "x", 2, 1),
            span("s", "s", "y", 3, 1),
        ];
        let told = told(&spans, &[]);
        assert_eq!(told, ["0s", "1s", "0a", "1b"]);
    }

    #[test]
    fn a_chain_of_thousands_is_no_deeper_than_memory() {
        let spans: Vec<Span> = (0..20_000)
            .map(|n: i64| {
                span(
                    &n.to_string(),
                    &if n == 0 { String::new() } else { (n - 1).to_string() },
                    "x",
                    n,
                    1,
                )
            })
            .collect();
        let tree = Tree::new(&spans, &[]);
        assert_eq!(tree.rows.len(), 20_000);
        assert_eq!(tree.rows[19_999].depth, 19_999);
    }

    #[test]
    fn a_clock_that_is_behind_is_noted_once() {
        let spans = [
            span("b", "a", "payments", 5, 10),
            span("c", "a", "payments", 7, 10),
            span("a", "", "orders", 10, 30),
        ];
        let skews = Tree::new(&spans, &[]).skews();
        assert_eq!(skews.len(), 1);
        assert_eq!(
            (skews[0].called.as_str(), skews[0].at_least_seconds),
            ("payments", 5e-9)
        );
    }

    #[test]
    fn lines_stand_in_their_spans() {
        let spans = [
            span("a", "", "x", 1_000_000_000, 10),
            span("b", "a", "x", 3_000_000_000, 10),
        ];
        let line = |second: u8, span: &str| {
            let json = format!(r#"{{"timestamp":"1970-01-01T00:00:0{second}Z","span_id":"{span}","message":"m"}}"#);
            Line::new("x", "x-1", json)
        };
        let lines = [line(2, "a"), line(4, "a"), line(5, "other")];
        let rows = told(&spans, &lines);
        let order: Vec<&str> = rows.iter().map(|row| &row[..2]).collect();
        assert_eq!(order, ["0a", "1\"", "1b", "1\"", "0\""]);
    }
}
