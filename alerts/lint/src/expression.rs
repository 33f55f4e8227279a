//! Checks of one expression against what is known of its metrics: names, labels, types, matching, bounds, ranges. They
//! work on the tree, never on the text. What concerns a whole rule or board is checked elsewhere.

mod aggregation;
mod bounds;
mod interval;
mod matching;
mod names;
mod ranges;
mod regexes;
mod shape;
mod table;
mod types;

use std::time::Duration;

use manifest::Manifest;
use promql::ast::Expr;
use promql::{Dialect, Query, Span};

pub use shape::holds_call;
pub use table::CHECKS;
pub use table::LABEL_DROPPED;

use crate::document::Offsets;
use crate::fix::apply;
use crate::flow::{Flows, Records};
use crate::{Check, Edit, Finding, Fix, Severity, SourceFile};

/// What an expression is looked at with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What is known of metrics.
    pub manifest: &'a Manifest,
    /// What is known of recorded series.
    pub records: &'a Records,
    /// What the expression is for.
    pub purpose: Purpose,
    /// How often targets are scraped, where somebody said so.
    pub scrape_interval: Option<Duration>,
}

/// What an expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Its series are alerts.
    Alert,
    /// Its series are recorded.
    Record,
    /// People look at it.
    Panel,
}

impl Purpose {
    /// Whether that can be read for this purpose.
    fn reads(self, text: &str) -> bool {
        let dialect = match self {
            Self::Alert | Self::Record => Dialect::all_features(),
            Self::Panel => Dialect::grafana(),
        };
        dialect.parse(text).is_ok()
    }
}

/// What a check found in an expression, in bytes of the expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What was looked for.
    pub check: &'static Check,
    /// How grave it is here.
    pub severity: Severity,
    /// The part of the expression.
    pub span: Span,
    /// What is wrong.
    pub what: String,
    /// Why that matters, where more can be said than the check does.
    pub why: Option<String>,
    /// Who says so.
    pub according_to: Option<String>,
    /// What to replace, and whether that is safe.
    pub fix: Option<Remedy>,
}

/// A fix in bytes of the expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    /// What it does.
    pub title: String,
    /// Whether it may be applied without anybody looking.
    pub safe: bool,
    /// What is replaced by what.
    pub edits: Vec<(Span, String)>,
}

impl Remedy {
    /// What it makes of `query`.
    fn applied(&self, query: &Query) -> Option<String> {
        let edit = |(span, text): &(Span, String)| Edit {
            span: span.range(),
            text: text.clone(),
        };
        let edits: Vec<Edit> = self.edits.iter().map(edit).collect();
        apply(&query.text, &edits).ok()
    }
}

/// Everything that is wrong with `query`.
pub fn check(query: &Query, context: Context<'_>) -> Vec<Found> {
    let flows = Flows::new(query, context.manifest, context.records);
    check_with(query, context, &flows)
}

/// The same with flows that are there already.
pub fn check_with(query: &Query, context: Context<'_>, flows: &Flows) -> Vec<Found> {
    let mut look = Look {
        query,
        context,
        flows,
        found: Vec::new(),
    };
    let mut above = Vec::new();
    visit(&mut look, &query.expr, &mut above);
    for found in &mut look.found {
        let leaves_a_query = |fix: &Remedy| fix.applied(query).is_some_and(|text| context.purpose.reads(&text));
        found.fix = found.fix.take().filter(leaves_a_query);
    }
    look.found
}

/// A check of one part of an expression, with the parts that it stands in, the nearest last.
type Part = fn(&mut Look<'_>, &Expr, &[&Expr]);

/// All of them, in no order that matters.
const PARTS: &[Part] = &[
    names::metric,
    names::labels,
    names::instead_of_labels,
    regexes::matchers,
    types::counter,
    types::gauge,
    types::timestamp,
    types::quantiles,
    types::rate_of_aggregate,
    matching::binary,
    bounds::comparison,
    bounds::buckets,
    ranges::range,
    ranges::guard,
    aggregation::le,
    aggregation::shared,
    aggregation::identities,
    aggregation::selection,
    aggregation::absent,
];

/// Parents first. The parser limits how deep it goes.
fn visit<'q>(look: &mut Look<'_>, expr: &'q Expr, above: &mut Vec<&'q Expr>) {
    for part in PARTS {
        part(look, expr, above);
    }
    above.push(expr);
    for child in expr.children() {
        visit(look, child, above);
    }
    above.pop();
}

/// An expression that is being looked at, and what was found so far.
struct Look<'a> {
    query: &'a Query,
    context: Context<'a>,
    flows: &'a Flows,
    found: Vec<Found>,
}

impl<'a> Look<'a> {
    fn find(&mut self, check: &'static Check, span: Span, what: impl Into<String>) -> &mut Found {
        let index = self.found.len();
        self.found.push(Found {
            check,
            severity: check.severity,
            span,
            what: what.into(),
            why: None,
            according_to: None,
            fix: None,
        });
        &mut self.found[index]
    }

    fn text(&self, span: Span) -> &'a str {
        span.of(&self.query.text)
    }
}

impl Found {
    fn graded(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }

    fn because(&mut self, why: impl Into<String>) -> &mut Self {
        self.why = Some(why.into());
        self
    }

    fn according_to(&mut self, source: &impl ToString) -> &mut Self {
        self.according_to = Some(source.to_string());
        self
    }

    fn fix(&mut self, title: impl Into<String>, edits: Vec<(Span, String)>) -> &mut Self {
        self.fix = Some(Remedy {
            title: title.into(),
            safe: true,
            edits,
        });
        self
    }

    fn propose(&mut self, title: impl Into<String>, edits: Vec<(Span, String)>) -> &mut Self {
        self.fix(title, edits);
        if let Some(fix) = &mut self.fix {
            fix.safe = false;
        }
        self
    }

    /// As a finding about `file`, in which the expression stands at `offsets`. A fix that would have to be written
    /// into quotes or across folded lines is left out.
    pub fn place(self, file: &SourceFile, offsets: &Offsets) -> Finding {
        let mut finding = Finding::new(self.check, file, offsets.range(self.span.range()), self.what);
        finding.severity = self.severity;
        if let Some(why) = self.why {
            finding.why = why;
        }
        finding.according_to = self.according_to;
        finding.fix = self.fix.and_then(|remedy| {
            let edits = remedy
                .edits
                .into_iter()
                .map(|(span, text)| {
                    let verbatim = offsets.is_verbatim(&span.range());
                    let span = offsets.range(span.range());
                    let fits = verbatim && fits(file, offsets, &text);
                    fits.then_some(Edit { span, text })
                })
                .collect::<Option<Vec<Edit>>>()?;
            Some(Fix {
                title: remedy.title,
                safe: remedy.safe,
                edits,
            })
        });
        finding
    }
}

/// Whether `text` means itself where the scalar at `offsets` is written: quotes of its own kind do not.
fn fits(file: &SourceFile, offsets: &Offsets, text: &str) -> bool {
    match file.text().as_bytes().get(offsets.start()) {
        Some(b'\'') => !text.contains('\''),
        Some(b'"') => !text.contains(['"', '\\', '\n']),
        Some(b'|' | b'>') => true,
        _ => !text.contains(['\n', '#']) && !text.contains(": "),
    }
}
