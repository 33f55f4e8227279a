//! Whether what was read fits together: types, numbers of arguments, labels. What Prometheus checks before it evaluates,
//! and no more. Where a variable decides about a type, every type fits.

use std::fmt;

use crate::{
    ast::{Aggregation, Aggregator, Binary, Call, Callee, Cardinality, Expr, Matcher, Selector},
    error::{ErrorKind, ParseError},
    span::Span,
    value::ValueType,
};

type Type = Option<ValueType>;
type Checked<T> = Result<T, ParseError>;

/// Refuses a tree that fits together with nothing.
pub(crate) fn check(text: &str, expr: &Expr) -> Checked<()> {
    Checker { text }.expr(expr).map(drop)
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn expr(&self, expr: &Expr) -> Checked<Type> {
        match expr {
            Expr::Number(_) => Ok(Some(ValueType::Scalar)),
            Expr::String(_) => Ok(Some(ValueType::String)),
            Expr::Variable(_) => Ok(None),
            Expr::Selector(selector) => {
                self.selector(selector, false)?;
                Ok(expr.value_type())
            }
            Expr::Paren(paren) => self.expr(&paren.expr),
            Expr::Call(call) => self.call(call),
            Expr::Aggregation(aggregation) => self.aggregation(aggregation),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => {
                let inner = self.expr(&unary.expr)?;
                if let Some(other @ (ValueType::Matrix | ValueType::String)) = inner {
                    let message = format!("a sign stands before a scalar or an instant vector, not before a {other}");
                    return self.fail(unary.span, message);
                }
                Ok(inner)
            }
            Expr::Subquery(subquery) => {
                let inner = self.expr(&subquery.expr)?;
                self.expect(subquery.span, inner, ValueType::Vector, &"a subquery")?;
                Ok(Some(ValueType::Matrix))
            }
        }
    }

    fn selector(&self, selector: &Selector, may_match_all: bool) -> Checked<()> {
        if let Some(name) = &selector.name {
            let again = selector.matchers.iter().filter_map(Matcher::view);
            if let Some(again) = again.into_iter().find(|view| view.label == "__name__") {
                let message = format!("the metric is called `{}` and `{}` at once", name.text, again.value);
                return self.fail(selector.span, message);
            }
            return Ok(());
        }
        let narrows = |matcher: &Matcher| matcher.view().is_none_or(|view| !view.matches_empty);
        if may_match_all || selector.matchers.iter().any(narrows) {
            return Ok(());
        }
        let message = "the selector would select all series: at least one matcher must not match an empty value";
        self.fail(selector.span, message.to_owned())
    }

    fn call(&self, call: &Call) -> Checked<Type> {
        let Callee::Known(function) = &call.function else {
            for argument in &call.arguments {
                self.expr(argument)?;
            }
            return Ok(None);
        };
        let given = call.arguments.len();
        let (least, most) = (function.least(), function.most());
        if given < least || most.is_some_and(|most| given > most) {
            let bounds = match most {
                Some(most) if most == least => format!("{least}"),
                Some(most) => format!("{least} to {most}"),
                None => format!("at least {least}"),
            };
            let message = format!("`{}` takes {bounds} arguments, not {given}", function.name);
            return self.fail(call.span, message);
        }
        for (index, argument) in call.arguments.iter().enumerate() {
            let is = match argument {
                Expr::Selector(selector) if function.name == "info" && index == 1 => {
                    if selector.name.is_some() {
                        let message = "`info` takes matchers without the name of a metric".to_owned();
                        return self.fail(selector.span, message);
                    }
                    self.selector(selector, true)?;
                    argument.value_type()
                }
                Expr::Variable(_) => None,
                _ if function.name == "info" && index == 1 => {
                    let message = "`info` takes matchers in braces as its second argument".to_owned();
                    return self.fail(argument.span(), message);
                }
                _ => self.expr(argument)?,
            };
            if let Some(wanted) = function.argument(index) {
                self.expect(argument.span(), is, wanted, &format_args!("`{}`", function.name))?;
            }
        }
        Ok(Some(function.returns))
    }

    fn aggregation(&self, aggregation: &Aggregation) -> Checked<Type> {
        let is = self.expr(&aggregation.expr)?;
        self.expect(aggregation.expr.span(), is, ValueType::Vector, &"an aggregation")?;
        if let Some(parameter) = &aggregation.parameter {
            let is = self.expr(parameter)?;
            let wanted = match aggregation.aggregator() {
                None => is,
                Some(Aggregator::CountValues) => Some(ValueType::String),
                Some(_) => Some(ValueType::Scalar),
            };
            if let Some(wanted) = wanted {
                self.expect(parameter.span(), is, wanted, &"the parameter of an aggregation")?;
            }
        }
        Ok(Some(ValueType::Vector))
    }

    fn binary(&self, binary: &Binary) -> Checked<Type> {
        let left = self.expr(&binary.left)?;
        let right = self.expr(&binary.right)?;
        let Binary { span, op, op_span, .. } = *binary;
        if let Some(span) = binary.returns_bool.filter(|_| !op.is_comparison()) {
            return self.fail(span, format!("`bool` belongs to comparisons, and `{op}` is none"));
        }
        let both = (left, right);
        let scalars = both == (Some(ValueType::Scalar), Some(ValueType::Scalar));
        if scalars && op.is_comparison() && binary.returns_bool.is_none() {
            return self.fail(op_span, format!("between two scalars it must be `{op} bool`"));
        }
        if let Some(matching) = binary.matching.as_ref().filter(|matching| matching.on) {
            let group = matching.group.iter().flat_map(|group| &group.include);
            for include in group {
                if matching.labels.iter().any(|label| label.text == include.text) {
                    let message = format!("`{}` is in `on` and in the group modifier at once", include.text);
                    return self.fail(include.span, message);
                }
            }
        }
        for (side, is) in [(&binary.left, left), (&binary.right, right)] {
            if let Some(other @ (ValueType::Matrix | ValueType::String)) = is {
                let message = format!("`{op}` stands between scalars and instant vectors, and this is a {other}");
                return self.fail(side.span(), message);
            }
        }
        if left == Some(ValueType::Scalar) || right == Some(ValueType::Scalar) {
            if let Some(matching) = binary.matching.as_ref().filter(|matching| !matching.labels.is_empty()) {
                let message = "only instant vectors have labels that could match".to_owned();
                return self.fail(matching.span, message);
            }
            if !binary.fill.is_empty() {
                return self.fail(
                    span,
                    "only instant vectors lack series that could be filled in".to_owned(),
                );
            }
            if op.is_set() {
                return self.fail(op_span, format!("`{op}` stands between instant vectors only"));
            }
        } else if op.is_set() {
            if binary.cardinality() != Cardinality::ManyToMany {
                return self.fail(span, format!("`{op}` cannot be grouped"));
            }
            if !binary.fill.is_empty() {
                return self.fail(span, format!("`{op}` has nothing to fill in"));
            }
        }
        // Known of both: what a side of unknown type makes of it is unknown.
        Ok(match both {
            (Some(ValueType::Vector), _) | (_, Some(ValueType::Vector)) => Some(ValueType::Vector),
            _ if scalars => Some(ValueType::Scalar),
            _ => None,
        })
    }

    fn expect(&self, span: Span, is: Type, wanted: ValueType, place: &dyn fmt::Display) -> Checked<()> {
        match is {
            Some(is) if is != wanted => self.fail(span, format!("{place} takes a {wanted}, and this is a {is}")),
            _ => Ok(()),
        }
    }

    #[cold]
    fn fail<T>(&self, span: Span, message: String) -> Checked<T> {
        Err(ParseError::new(self.text, span, ErrorKind::Meaning, message))
    }
}
