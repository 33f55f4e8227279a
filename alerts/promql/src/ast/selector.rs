//! Selectors of series: name, matchers, range and modifiers.

use super::{Duration, MatchOp, Name, StringLiteral};
use crate::span::Span;

/// The label that holds a metric's name.
pub(crate) const METRIC_NAME: &str = "__name__";

/// What selects series: `up{job="api"}[5m] offset 1h`.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// From the name to the last modifier.
    pub span: Span,
    /// The name before the braces.
    pub name: Option<Name>,
    /// `{…}`, where braces were written.
    pub braces: Option<Span>,
    /// What is in the braces.
    pub matchers: Vec<Matcher>,
    /// `[…]`.
    pub range: Option<Range>,
    /// `offset`, `@`, `anchored`, `smoothed`.
    pub modifiers: Modifiers,
}

/// `[5m]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// With both brackets.
    pub span: Span,
    /// How far back.
    pub duration: Duration,
}

/// What shifts a selector or a subquery in time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Modifiers {
    /// `offset 5m`. Of several, which only zeros may be, the last.
    pub offset: Option<Offset>,
    /// `@ …`.
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub edge: Option<(RangeEdge, Span)>,
}

/// `offset 5m`.
#[derive(Debug, Clone, PartialEq)]
pub struct Offset {
    /// From the keyword on.
    pub span: Span,
    /// How far into the past; into the future when negative.
    pub duration: Duration,
}

/// `@ 1609746000`, `@ start()`.
#[derive(Debug, Clone, PartialEq)]
pub struct At {
    /// From the `@` on.
    pub span: Span,
    /// When.
    pub instant: Instant,
}

/// When, in place of the time of evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Instant {
    /// Milliseconds since 1970.
    Milliseconds(i64),
    /// The beginning of the queried range.
    Start,
    /// Its end.
    End,
    /// A variable of Grafana.
    Variable(Name),
}

/// How the values at both ends of a range are had. Experimental.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeEdge {
    /// From the last sample before.
    Anchored,
    /// Interpolated between the neighbours.
    Smoothed,
}

/// One thing between the braces.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    /// `job="api"`.
    Label(LabelMatcher),
    /// `"metric.name"`: the metric's name inside of the braces.
    Name(StringLiteral),
    /// A variable of Grafana that stands for matchers.
    Variable(Name),
}

/// `job="api"`.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelMatcher {
    /// From the label to the value.
    pub span: Span,
    /// The label.
    pub label: Name,
    /// How it is compared.
    pub op: MatchOp,
    /// With what. A variable without quotes is a templated literal.
    pub value: StringLiteral,
    /// Whether series without the label match. Not where variables decide.
    pub matches_empty: bool,
}

/// A matcher, whichever way it was written: the name before the braces and `{"name"}` are matchers of `__name__`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatcherView<'a> {
    /// Where it is.
    pub span: Span,
    /// The label; with variables in it, nobody knows which.
    pub label: &'a str,
    /// How it is compared.
    pub op: MatchOp,
    /// With what.
    pub value: &'a str,
    /// Whether series without the label match. Not where variables decide.
    pub matches_empty: bool,
    /// Whether there are variables in the label or the value.
    pub templated: bool,
}

impl Selector {
    /// The metric's name, where exactly one is asked for: before the braces, in them, or with `__name__=`. Variables
    /// stand in it as they were written.
    pub fn metric(&self) -> Option<&str> {
        let is_name = |view: &MatcherView<'_>| view.label == METRIC_NAME && view.op == MatchOp::Equal;
        self.views().find(is_name).map(|view| view.value)
    }

    /// Whether variables have a part in the metric's name.
    pub fn metric_is_templated(&self) -> bool {
        self.views().any(|view| view.label == METRIC_NAME && view.templated)
    }

    /// Whether a variable stands for matchers that nobody knows.
    pub fn has_unknown_matchers(&self) -> bool {
        let unknown = |matcher: &Matcher| match matcher {
            Matcher::Variable(_) => true,
            Matcher::Label(matcher) => matcher.label.templated,
            Matcher::Name(_) => false,
        };
        self.matchers.iter().any(unknown)
    }

    /// All matchers in one form, that of the name before the braces first.
    pub fn views(&self) -> impl Iterator<Item = MatcherView<'_>> {
        let name = self.name.iter().map(|name| MatcherView {
            span: name.span,
            label: METRIC_NAME,
            op: MatchOp::Equal,
            value: &name.text,
            matches_empty: false,
            templated: name.templated,
        });
        name.chain(self.matchers.iter().filter_map(Matcher::view))
    }

    /// The matchers that compare the label `label`.
    pub fn matchers_of<'a>(&'a self, label: &'a str) -> impl Iterator<Item = MatcherView<'a>> {
        self.views().filter(move |view| view.label == label)
    }
}

impl Matcher {
    /// Where it is.
    pub fn span(&self) -> Span {
        match self {
            Self::Label(matcher) => matcher.span,
            Self::Name(name) => name.span,
            Self::Variable(name) => name.span,
        }
    }

    /// The one form of both ways to write it; a variable has none.
    pub fn view(&self) -> Option<MatcherView<'_>> {
        match self {
            Self::Label(matcher) => Some(MatcherView {
                span: matcher.span,
                label: &matcher.label.text,
                op: matcher.op,
                value: &matcher.value.value,
                matches_empty: matcher.matches_empty,
                templated: matcher.label.templated || matcher.value.templated,
            }),
            Self::Name(name) => Some(MatcherView {
                span: name.span,
                label: METRIC_NAME,
                op: MatchOp::Equal,
                value: &name.value,
                matches_empty: name.value.is_empty(),
                templated: name.templated,
            }),
            Self::Variable(_) => None,
        }
    }
}

impl RangeEdge {
    /// How it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}
