//! Prints a query over several lines as Prometheus does: what is longer than a line is opened up, one level of blanks
//! for each. Comments, which Prometheus drops, stand on lines of their own before what they were written at.

use std::fmt::{self, Display, Write};

use super::{AggregationHead, CallName, OperatorHead, Suffix};
use crate::{Query, ast::Expr, span::Span};

/// What is longer than this is opened up, in bytes.
const LINE: usize = 100;

/// Prints a query over several lines.
pub(crate) fn pretty(query: &Query) -> String {
    let mut printer = Printer {
        out: String::new(),
        text: &query.text,
        comments: &query.comments,
    };
    // Writing to a string cannot fail.
    let _ = printer.expr(&query.expr, 0);
    for comment in printer.comments {
        let _ = write!(printer.out, "\n{}", comment.of(&query.text).trim_end());
    }
    printer.out
}

struct Printer<'a> {
    out: String,
    text: &'a str,
    /// Those that are not printed yet.
    comments: &'a [Span],
}

impl Printer<'_> {
    /// Prints an expression from the beginning of a line on.
    fn expr(&mut self, expr: &Expr, level: usize) -> fmt::Result {
        let opens = self.is_long(expr);
        match expr {
            Expr::Paren(paren) if opens => {
                self.line(level, "(")?;
                self.inner(&paren.expr, level)?;
                self.close(expr, level)
            }
            Expr::Call(call) if opens && !call.arguments.is_empty() => {
                self.line(level, format_args!("{}(", CallName(call)))?;
                for (index, argument) in call.arguments.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    self.inner(argument, level)?;
                }
                self.close(expr, level)
            }
            Expr::Aggregation(aggregation) if opens => {
                self.line(level, format_args!("{}(", AggregationHead(aggregation)))?;
                if let Some(parameter) = &aggregation.parameter {
                    self.inner(parameter, level)?;
                    self.out.push(',');
                }
                self.inner(&aggregation.expr, level)?;
                self.close(expr, level)
            }
            Expr::Binary(binary) if opens => {
                self.expr(&binary.left, level + 1)?;
                self.out.push('\n');
                self.comments_before(binary.op_span.start, level)?;
                self.line(level, OperatorHead(binary))?;
                self.inner(&binary.right, level)
            }
            Expr::Subquery(subquery) if opens => {
                self.expr(&subquery.expr, level)?;
                write!(self.out, "{}", Suffix(subquery))
            }
            // Prometheus forgets the blanks before it, and so does this.
            Expr::Subquery(_) => self.line(0, expr),
            Expr::Unary(unary) if expr.folded().is_none() => {
                self.comments_before(unary.span.end, level)?;
                self.line(level, unary.sign)?;
                let at = self.out.len();
                self.expr(&unary.expr, level)?;
                let blanks = self.out[at..].len() - self.out[at..].trim_start().len();
                self.out.replace_range(at..at + blanks, "");
                Ok(())
            }
            _ => {
                self.comments_before(expr.span().end, level)?;
                self.line(level, expr)
            }
        }
    }

    /// Prints what is inside of another expression on its own line.
    fn inner(&mut self, expr: &Expr, level: usize) -> fmt::Result {
        self.out.push('\n');
        self.expr(expr, level + 1)
    }

    fn close(&mut self, expr: &Expr, level: usize) -> fmt::Result {
        self.out.push('\n');
        self.comments_before(expr.span().end, level + 1)?;
        self.line(level, ")")
    }

    fn line(&mut self, level: usize, what: impl Display) -> fmt::Result {
        write!(self.out, "{:1$}{what}", "", 2 * level)
    }

    /// Prints the comments that begin before a place, each on a line.
    fn comments_before(&mut self, end: u32, level: usize) -> fmt::Result {
        while let Some((comment, rest)) = self.comments.split_first().filter(|(comment, _)| comment.start < end) {
            self.line(level, comment.of(self.text).trim_end())?;
            self.out.push('\n');
            self.comments = rest;
        }
        Ok(())
    }

    /// Whether an expression does not fit on a line, or holds a comment.
    fn is_long(&self, expr: &Expr) -> bool {
        let span = expr.span();
        let comment = self.comments.first().is_some_and(|comment| comment.start < span.end);
        comment || write!(Limited { left: LINE }, "{expr}").is_err()
    }
}

/// Counts, and gives up where it is too much.
struct Limited {
    left: usize,
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
