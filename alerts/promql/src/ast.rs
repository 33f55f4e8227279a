//! The tree of a query as it was written: every node has its place, parentheses and signs stay. What Prometheus folds
//! away while it reads (a minus before a number, an offset into its selector) is not folded here, except that the
//! modifiers of a selector or subquery are fields of it, whatever their order.

mod duration;
mod name;
mod operator;
mod selector;
mod walk;

pub use duration::{Duration, DurationOp};
pub use name::{Callee, Name, Number, StringLiteral};
pub use operator::{Aggregator, BinaryOp, MatchOp, Sign};
pub use selector::{At, Instant, LabelMatcher, Matcher, MatcherView, Modifiers, Offset, Range, RangeEdge, Selector};

use crate::{function::Function, span::Span, value::ValueType};

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `5`, `0x1F`, `1h30m`, `Inf`.
    Number(Number),
    /// `"text"`.
    String(StringLiteral),
    /// `up{job="api"}`, with a range or without.
    Selector(Box<Selector>),
    /// `expr[1h:5m]`.
    Subquery(Box<Subquery>),
    /// `rate(…)`.
    Call(Box<Call>),
    /// `sum by (job) (…)`.
    Aggregation(Box<Aggregation>),
    /// `-expr`.
    Unary(Box<Unary>),
    /// `a / on (job) b`.
    Binary(Box<Binary>),
    /// `(expr)`.
    Paren(Box<Paren>),
    /// A variable of Grafana that stands for a whole expression: nobody knows of which type.
    Variable(Name),
}

/// `expr[range:step]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// From the inner expression to the last modifier.
    pub span: Span,
    /// What is asked at each step.
    pub expr: Expr,
    /// How far back.
    pub range: Duration,
    /// How often; the evaluation interval where it is missing.
    pub step: Option<Duration>,
    /// `[…]`.
    pub bracket: Span,
    /// `offset` and `@`.
    pub modifiers: Modifiers,
}

/// A function with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// From the name to the closing parenthesis.
    pub span: Span,
    /// Where the name is.
    pub name_span: Span,
    /// Which function.
    pub function: Callee<&'static Function>,
    /// What it is given.
    pub arguments: Vec<Expr>,
}

/// An aggregation over the series of a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregation {
    /// From the operator to the last token.
    pub span: Span,
    /// Where the operator is.
    pub op_span: Span,
    /// Which one.
    pub op: Callee<Aggregator>,
    /// `by (…)` or `without (…)`; without either, one series remains.
    pub grouping: Option<Grouping>,
    /// The `5` of `topk(5, …)`.
    pub parameter: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
}

/// The labels that an aggregation keeps or drops.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    /// From `by` or `without` to the closing parenthesis.
    pub span: Span,
    /// Whether the labels are dropped and the others kept.
    pub without: bool,
    /// The labels, as often as they were written.
    pub labels: Vec<Name>,
}

/// A sign before an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// From the sign on.
    pub span: Span,
    /// Which sign.
    pub sign: Sign,
    /// What is negated, or not.
    pub expr: Expr,
}

/// Parentheses around an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Paren {
    /// With both parentheses.
    pub span: Span,
    /// What is in them.
    pub expr: Expr,
}

/// An operator between two expressions.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// From the left side to the right.
    pub span: Span,
    /// The left side.
    pub left: Expr,
    /// Which operator.
    pub op: BinaryOp,
    /// Where the operator is.
    pub op_span: Span,
    /// `bool`, where it was written.
    pub returns_bool: Option<Span>,
    /// `on (…)` or `ignoring (…)`, where it was written.
    pub matching: Option<Matching>,
    /// `fill(…)` and its kin.
    pub fill: Fill,
    /// The right side.
    pub right: Expr,
}

/// Which labels say that two series belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// From `on` or `ignoring` to the closing parenthesis of it or of the group modifier.
    pub span: Span,
    /// `on`: the labels alone decide; otherwise all but them.
    pub on: bool,
    /// The labels.
    pub labels: Vec<Name>,
    /// `group_left` or `group_right`.
    pub group: Option<Group>,
}

/// `group_left (…)` or `group_right (…)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// From the keyword on.
    pub span: Span,
    /// The side with many series for one of the other.
    pub many: Side,
    /// Labels of the one side that the result has too.
    pub include: Vec<Name>,
}

/// A side of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Before the operator.
    Left,
    /// After it.
    Right,
}

/// What stands in for a series that one side lacks. `fill(0)` sets both.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fill {
    /// For the left side.
    pub left: Option<FillValue>,
    /// For the right side.
    pub right: Option<FillValue>,
}

/// The number in `fill(…)`, `fill_left(…)` or `fill_right(…)`.
#[derive(Debug, Clone, PartialEq)]
pub struct FillValue {
    /// From the keyword on.
    pub span: Span,
    /// The number, with its sign, or the variable.
    pub value: Operand,
}

/// A number with a sign, or a variable in its place.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// What was written, its sign applied; the place begins with the sign.
    Number(Number),
    /// A variable of Grafana.
    Variable(Name),
}

/// How many series of one side belong to how many of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// Neither side groups.
    OneToOne,
    /// `group_left`.
    ManyToOne,
    /// `group_right`.
    OneToMany,
    /// `and`, `or`, `unless`.
    ManyToMany,
}

impl Expr {
    /// Where it is.
    pub fn span(&self) -> Span {
        match self {
            Self::Number(number) => number.span,
            Self::String(string) => string.span,
            Self::Selector(selector) => selector.span,
            Self::Subquery(subquery) => subquery.span,
            Self::Call(call) => call.span,
            Self::Aggregation(aggregation) => aggregation.span,
            Self::Unary(unary) => unary.span,
            Self::Binary(binary) => binary.span,
            Self::Paren(paren) => paren.span,
            Self::Variable(name) => name.span,
        }
    }

    /// What it evaluates to; `None` where a variable decides.
    pub fn value_type(&self) -> Option<ValueType> {
        match self {
            Self::Number(_) => Some(ValueType::Scalar),
            Self::String(_) => Some(ValueType::String),
            Self::Selector(selector) if selector.range.is_some() => Some(ValueType::Matrix),
            Self::Selector(_) | Self::Aggregation(_) => Some(ValueType::Vector),
            Self::Subquery(_) => Some(ValueType::Matrix),
            Self::Call(call) => call.function.known().map(|function| function.returns),
            Self::Unary(unary) => unary.expr.value_type(),
            Self::Paren(paren) => paren.expr.value_type(),
            Self::Binary(binary) => binary.value_type(),
            Self::Variable(_) => None,
        }
    }

    /// The expression inside of any parentheses around it.
    pub fn unparenthesised(&self) -> &Self {
        let mut expr = self;
        while let Self::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }

    /// The value of a number, with the signs and parentheses around it.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number.value),
            Self::Paren(paren) => paren.expr.as_number(),
            Self::Unary(unary) => unary.expr.as_number().map(|value| unary.sign.apply(value)),
            _ => None,
        }
    }
}

impl Call {
    /// What the function is called; empty where a variable says which it is.
    pub fn name(&self) -> &str {
        self.function.known().map_or("", |function| function.name)
    }
}

impl Aggregation {
    /// Which aggregation; `None` where a variable says so.
    pub fn aggregator(&self) -> Option<Aggregator> {
        self.op.known().copied()
    }

    /// Whether `label` may be in the result: what grouping says, without regard to what the series have.
    pub fn keeps(&self, label: &str) -> bool {
        match &self.grouping {
            None => false,
            Some(grouping) => grouping.names(label) != grouping.without,
        }
    }
}

impl Grouping {
    /// Whether `label` is in the list.
    pub fn names(&self, label: &str) -> bool {
        self.labels.iter().any(|name| &*name.text == label)
    }
}

impl Binary {
    /// What it evaluates to; `None` where a variable decides.
    pub fn value_type(&self) -> Option<ValueType> {
        match (self.left.value_type(), self.right.value_type()) {
            (Some(ValueType::Scalar), Some(ValueType::Scalar)) => Some(ValueType::Scalar),
            (Some(ValueType::Scalar) | None, None) | (None, Some(ValueType::Scalar)) => None,
            _ => Some(ValueType::Vector),
        }
    }

    /// How many series of one side belong to how many of the other.
    pub fn cardinality(&self) -> Cardinality {
        let group = self.matching.as_ref().and_then(|matching| matching.group.as_ref());
        match group.map(|group| group.many) {
            Some(Side::Left) => Cardinality::ManyToOne,
            Some(Side::Right) => Cardinality::OneToMany,
            None if self.op.is_set() => Cardinality::ManyToMany,
            None => Cardinality::OneToOne,
        }
    }
}

impl Matching {
    /// Whether `label` takes part in saying which series belong together.
    pub fn compares(&self, label: &str) -> bool {
        self.labels.iter().any(|name| &*name.text == label) == self.on
    }
}

impl Fill {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.left.is_none() && self.right.is_none()
    }
}
