//! Durations in brackets and after `offset`, which may be computed.

use super::{Name, Number, Sign};
use crate::span::Span;

/// A duration.
#[derive(Debug, Clone, PartialEq)]
pub enum Duration {
    /// `5m`, or a number of seconds.
    Literal(Number),
    /// A variable of Grafana, such as `$__rate_interval`, with what stands close to it, such as the unit.
    Variable(Name),
    /// `step()`: the step of a range query.
    Step(Span),
    /// `range()`: the length of a range query.
    Range(Span),
    /// `-5m`.
    Signed {
        /// From the sign on.
        span: Span,
        /// Which sign.
        sign: Sign,
        /// What it stands before.
        duration: Box<Duration>,
    },
    /// `5m * 2`, `max_of(5m, step())`.
    Computed {
        /// All of it.
        span: Span,
        /// How.
        op: DurationOp,
        /// The left side, or the first argument.
        left: Box<Duration>,
        /// The right side, or the second argument.
        right: Box<Duration>,
    },
    /// `(5m)`.
    Paren {
        /// With both parentheses.
        span: Span,
        /// What is in them.
        duration: Box<Duration>,
    },
}

/// How a duration is computed of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `min_of(…, …)`
    MinOf,
    /// `max_of(…, …)`
    MaxOf,
}

impl Duration {
    /// Where it is.
    pub fn span(&self) -> Span {
        match self {
            Self::Literal(number) => number.span,
            Self::Variable(name) => name.span,
            Self::Step(span)
            | Self::Range(span)
            | Self::Signed { span, .. }
            | Self::Computed { span, .. }
            | Self::Paren { span, .. } => *span,
        }
    }

    /// Its length in seconds; `None` where variables or the query's own range decide.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Self::Literal(number) => Some(number.value),
            Self::Variable(_) | Self::Step(_) | Self::Range(_) => None,
            Self::Signed { sign, duration, .. } => duration.seconds().map(|seconds| sign.apply(seconds)),
            Self::Computed { op, left, right, .. } => Some(op.apply(left.seconds()?, right.seconds()?)),
            Self::Paren { duration, .. } => duration.seconds(),
        }
    }
}

impl DurationOp {
    /// How it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::MinOf => "min_of",
            Self::MaxOf => "max_of",
        }
    }

    /// How strongly it binds; `None` for those that are written like functions.
    pub const fn precedence(self) -> Option<u8> {
        match self {
            Self::Add | Self::Sub => Some(4),
            Self::Mul | Self::Div | Self::Mod => Some(5),
            Self::Pow => Some(6),
            Self::MinOf | Self::MaxOf => None,
        }
    }

    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Sub => left - right,
            Self::Mul => left * right,
            Self::Div => left / right,
            Self::Mod => left % right,
            Self::Pow => left.powf(right),
            Self::MinOf => left.min(right),
            Self::MaxOf => left.max(right),
        }
    }
}
