//! Prints a tree as Prometheus prints its own: one line, without comments, matchers sorted, durations in their largest
//! units. What was read is [`Query::text`](crate::Query::text), to the byte; several lines with the comments are
//! [`Query::pretty`](crate::Query::pretty).

mod go;
mod pretty;

use std::fmt::{self, Display, Formatter, Write as _};

pub use go::{duration, number, quote};
pub(crate) use pretty::pretty;

use crate::{
    ast::{
        Aggregation, Binary, Call, Callee, Duration, DurationOp, Expr, Fill, FillValue, Instant, MatchOp, Matcher,
        Modifiers, Name, Operand, Selector, Sign, StringLiteral, Subquery,
    },
    literal::nanoseconds,
    value::ValueType,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write_number(f, number.value, number.duration),
            Self::String(string) => string.fmt(f),
            Self::Variable(name) => f.write_str(&name.text),
            Self::Selector(selector) => selector.fmt(f),
            Self::Paren(paren) => write!(f, "({})", paren.expr),
            Self::Unary(unary) => match self.folded() {
                Some((value, duration)) => write_number(f, value, duration),
                None => write!(f, "{}{}", unary.sign, unary.expr),
            },
            Self::Subquery(subquery) => write!(f, "{}{}", subquery.expr, Suffix(subquery)),
            Self::Call(call) => {
                write!(f, "{}(", CallName(call))?;
                write_list(f, &call.arguments, |f, argument| argument.fmt(f))?;
                f.write_char(')')
            }
            Self::Aggregation(aggregation) => {
                write!(f, "{}(", AggregationHead(aggregation))?;
                if let Some(parameter) = &aggregation.parameter {
                    write!(f, "{parameter}, ")?;
                }
                write!(f, "{})", aggregation.expr)
            }
            Self::Binary(binary) => write!(f, "{} {} {}", binary.left, OperatorHead(binary), binary.right),
        }
    }
}

impl Expr {
    /// The value of a number with the signs before it, but without parentheses, and whether it is a duration: what
    /// Prometheus makes one number of.
    pub(crate) fn folded(&self) -> Option<(f64, bool)> {
        match self {
            Self::Number(number) => Some((number.value, number.duration)),
            Self::Unary(unary) => unary
                .expr
                .folded()
                .map(|(value, duration)| (unary.sign.apply(value), duration)),
            _ => None,
        }
    }
}

/// The name of a function.
struct CallName<'a>(&'a Call);

impl Display for CallName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0.function {
            Callee::Known(function) => f.write_str(function.name),
            Callee::Variable(name) => f.write_str(&name.text),
        }
    }
}

/// An aggregation before its parenthesis.
struct AggregationHead<'a>(&'a Aggregation);

impl Display for AggregationHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0.op {
            Callee::Known(aggregator) => aggregator.fmt(f)?,
            Callee::Variable(name) => f.write_str(&name.text)?,
        }
        match &self.0.grouping {
            Some(grouping) if grouping.without || !grouping.labels.is_empty() => {
                f.write_str(if grouping.without { " without (" } else { " by (" })?;
                write_list(f, &grouping.labels, write_label)?;
                f.write_str(") ")
            }
            _ => Ok(()),
        }
    }
}

/// An operator with what stands beside it.
struct OperatorHead<'a>(&'a Binary);

impl Display for OperatorHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let binary = self.0;
        binary.op.fmt(f)?;
        if binary.returns_bool.is_some() {
            f.write_str(" bool")?;
        }
        let scalar = |expr: &Expr| expr.value_type() == Some(ValueType::Scalar);
        if scalar(&binary.left) || scalar(&binary.right) {
            return Ok(());
        }
        if let Some(matching) = &binary.matching {
            if matching.on || matching.group.is_some() || !matching.labels.is_empty() {
                f.write_str(if matching.on { " on (" } else { " ignoring (" })?;
                write_list(f, &matching.labels, write_label)?;
                f.write_char(')')?;
            }
            if let Some(group) = &matching.group {
                f.write_str(match group.many {
                    crate::ast::Side::Left => " group_left (",
                    crate::ast::Side::Right => " group_right (",
                })?;
                write_list(f, &group.include, write_label)?;
                f.write_char(')')?;
            }
        }
        binary.fill.fmt(f)
    }
}

impl Display for Fill {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = |value: &FillValue| match &value.value {
            Operand::Number(number) => go::shortest(number.value),
            Operand::Variable(name) => name.text.to_string(),
        };
        match (self.left.as_ref().map(text), self.right.as_ref().map(text)) {
            // Nothing equals what is no number.
            (Some(left), Some(right)) if left == right && left != "NaN" => write!(f, " fill ({left})"),
            (left, right) => {
                let write = |f: &mut Formatter<'_>, word: &str, value: Option<String>| match value {
                    Some(value) => write!(f, " {word} ({value})"),
                    None => Ok(()),
                };
                write(f, "fill_left", left)?;
                write(f, "fill_right", right)
            }
        }
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map_or("", |name| &name.text);
        f.write_str(name)?;
        let mut matchers: Vec<String> = self.matchers.iter().map(ToString::to_string).collect();
        if !matchers.is_empty() {
            matchers.sort_unstable();
            write!(f, "{{{}}}", matchers.join(","))?;
        }
        let Some(range) = &self.range else {
            write_at(f, &self.modifiers)?;
            write_edge(f, &self.modifiers)?;
            return write_offset(f, &self.modifiers);
        };
        write!(f, "[{}]", InBracket(&range.duration))?;
        write_edge(f, &self.modifiers)?;
        write_at(f, &self.modifiers)?;
        write_offset(f, &self.modifiers)
    }
}

impl Display for Matcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(&name.text),
            Self::Name(name) => write!(f, "__name__{}{name}", MatchOp::Equal),
            Self::Label(matcher) => {
                write_label(f, &matcher.label)?;
                write!(f, "{}{}", matcher.op, matcher.value)
            }
        }
    }
}

impl Display for StringLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.quoted {
            f.write_str(&quote(self.bytes()))
        } else {
            f.write_str(&self.value)
        }
    }
}

/// `[1h:5m] @ end() offset 1m`.
struct Suffix<'a>(&'a Subquery);

impl Display for Suffix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Subquery {
            range, step, modifiers, ..
        } = self.0;
        write!(f, "[{}:", InBracket(range))?;
        if let Some(step) = step.as_ref().filter(|step| step.nanoseconds() != Some(0)) {
            write!(f, "{}", InBracket(step))?;
        }
        f.write_char(']')?;
        write_at(f, modifiers)?;
        write_offset(f, modifiers)
    }
}

/// A duration where a mere number is written with units.
struct InBracket<'a>(&'a Duration);

impl Display for InBracket<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.nanoseconds() {
            Some(nanoseconds) => f.write_str(&duration(nanoseconds)),
            None => self.0.fmt(f),
        }
    }
}

impl Duration {
    /// The value of a number with the signs before it, but without parentheses, and whether it has units.
    pub(crate) fn folded(&self) -> Option<(f64, bool)> {
        match self {
            Self::Literal(number) => Some((number.value, number.duration)),
            Self::Signed { sign, duration, .. } => duration.folded().map(|(value, units)| (sign.apply(value), units)),
            _ => None,
        }
    }

    /// The nanoseconds of such a number.
    pub(crate) fn nanoseconds(&self) -> Option<i64> {
        self.folded().map(|(seconds, _)| nanoseconds(seconds))
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some((value, units)) = self.folded() {
            return write_number(f, value, units);
        }
        match self {
            // A number is folded.
            Self::Literal(_) => Ok(()),
            Self::Variable(name) => f.write_str(&name.text),
            Self::Step(_) => f.write_str("step()"),
            Self::Range(_) => f.write_str("range()"),
            Self::Signed {
                sign: Sign::Plus,
                duration,
                ..
            } => duration.fmt(f),
            Self::Signed { duration, .. } => write!(f, "-{duration}"),
            Self::Computed {
                op: op @ (DurationOp::MinOf | DurationOp::MaxOf),
                left,
                right,
                ..
            } => {
                write!(f, "{}({left}, {right})", op.text())
            }
            Self::Computed { op, left, right, .. } => write!(f, "{left} {} {right}", op.text()),
            Self::Paren { duration, .. } => {
                // A second pair of parentheses says nothing, and a plus between two pairs does not either.
                let mut inner = duration;
                while let Self::Paren { duration, .. }
                | Self::Signed {
                    sign: Sign::Plus,
                    duration,
                    ..
                } = &**inner
                {
                    inner = duration;
                }
                write!(f, "({inner})")
            }
        }
    }
}

fn write_number(f: &mut Formatter<'_>, value: f64, units: bool) -> fmt::Result {
    if !units {
        return f.write_str(&number(value));
    }
    let nanoseconds = crate::literal::to_i64(value.abs() * 1e9);
    write!(f, "{}{}", if value < 0.0 { "-" } else { "" }, duration(nanoseconds))
}

fn write_at(f: &mut Formatter<'_>, modifiers: &Modifiers) -> fmt::Result {
    match modifiers.at.as_ref().map(|at| &at.instant) {
        None => Ok(()),
        Some(Instant::Milliseconds(at)) => write!(f, " @ {:.3}", *at as f64 / 1000.0),
        Some(Instant::Start) => f.write_str(" @ start()"),
        Some(Instant::End) => f.write_str(" @ end()"),
        Some(Instant::Variable(name)) => write!(f, " @ {}", name.text),
    }
}

fn write_edge(f: &mut Formatter<'_>, modifiers: &Modifiers) -> fmt::Result {
    match modifiers.edge {
        Some((edge, _)) => write!(f, " {}", edge.text()),
        None => Ok(()),
    }
}

fn write_offset(f: &mut Formatter<'_>, modifiers: &Modifiers) -> fmt::Result {
    match &modifiers.offset {
        Some(offset) if offset.duration.nanoseconds() != Some(0) => {
            write!(f, " offset {}", InBracket(&offset.duration))
        }
        _ => Ok(()),
    }
}

fn write_label(f: &mut Formatter<'_>, label: &Name) -> fmt::Result {
    let plain = |(at, byte): (usize, u8)| byte.is_ascii_alphabetic() || byte == b'_' || at > 0 && byte.is_ascii_digit();
    let bare = label.templated && !label.quoted;
    if bare || !label.text.is_empty() && label.text.bytes().enumerate().all(plain) {
        f.write_str(&label.text)
    } else {
        f.write_str(&quote(label.text.as_bytes()))
    }
}

fn write_list<T>(
    f: &mut Formatter<'_>,
    list: &[T],
    write: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    Ok(())
}
