//! Durations: numbers, variables, and what is computed of them.

use super::{POWER, Parsed, Parser};
use crate::{
    ast::{Duration, DurationOp, Sign},
    error::ErrorKind,
    lexer::{Keyword, TokenKind},
    literal,
};

impl Parser<'_> {
    /// What stands in brackets: greater than zero, as far as one can see.
    pub(super) fn range_duration(&mut self) -> Parsed<Duration> {
        let duration = self.duration(0)?;
        if duration.folded().is_some_and(|(seconds, _)| seconds <= 0.0) {
            let message = "a range or step must be longer than nothing".to_owned();
            return self.fail(duration.span(), ErrorKind::Meaning, message);
        }
        Ok(duration)
    }

    /// What stands after `offset`: it ends after one number, call, or sign with either, since operators behind it belong
    /// to the expression. Only after parentheses without a sign, and after two signs, they belong to the offset.
    pub(super) fn offset_duration(&mut self) -> Parsed<Duration> {
        let start = self.current.span;
        if self.current.kind == TokenKind::LeftParen {
            return self.duration(0);
        }
        let Some(sign) = self.sign() else {
            return self.duration_operand();
        };
        let twice = matches!(self.current.kind, TokenKind::Add | TokenKind::Sub);
        let operand = if twice {
            self.duration(POWER)?
        } else {
            self.duration_operand()?
        };
        let signed = Duration::Signed {
            span: start.to(operand.span()),
            sign,
            duration: Box::new(operand),
        };
        if twice { self.computed(signed, 0) } else { Ok(signed) }
    }

    fn duration(&mut self, weakest: u8) -> Parsed<Duration> {
        self.nest()?;
        let left = self.duration_operand()?;
        let duration = self.computed(left, weakest)?;
        self.nesting -= 1;
        Ok(duration)
    }

    /// Operators behind a duration that bind at least as strongly as `weakest`.
    fn computed(&mut self, mut left: Duration, weakest: u8) -> Parsed<Duration> {
        let mut operators = 0;
        while let Some((op, precedence)) = duration_op(self.current.kind).filter(|(_, binds)| *binds >= weakest) {
            operators += 1;
            if operators > super::DEEPEST {
                let message = format!("more than {} operators one upon the other", super::DEEPEST);
                return self.fail(left.span(), ErrorKind::Limit, message);
            }
            let op_span = self.advance().span;
            let right = self.duration(if precedence == POWER { POWER } else { precedence + 1 })?;
            let divides = matches!(op, DurationOp::Div | DurationOp::Mod);
            if divides && right.folded().is_some_and(|(seconds, _)| seconds == 0.0) {
                return self.fail(op_span, ErrorKind::Meaning, "a division by zero".to_owned());
            }
            left = Duration::Computed {
                span: left.span().to(right.span()),
                op,
                left: Box::new(left),
                right: Box::new(right),
            };
        }
        Ok(left)
    }

    fn duration_operand(&mut self) -> Parsed<Duration> {
        let start = self.current.span;
        match self.current.kind {
            TokenKind::Number | TokenKind::Duration => {
                let number = self.number()?;
                if literal::is_out_of_range(number.value) {
                    let message = format!("`{}` is no duration: out of range", number.span.of(self.text));
                    return self.fail(number.span, ErrorKind::Meaning, message);
                }
                Ok(Duration::Literal(number))
            }
            TokenKind::Template => {
                self.advance();
                Ok(Duration::Variable(self.name_at(start)))
            }
            TokenKind::Add | TokenKind::Sub => {
                let sign = self.sign().unwrap_or(Sign::Plus);
                let duration = self.duration(POWER)?;
                Ok(Duration::Signed {
                    span: start.to(duration.span()),
                    sign,
                    duration: Box::new(duration),
                })
            }
            TokenKind::LeftParen => {
                self.advance();
                let duration = self.duration(0)?;
                let end = self.expect(TokenKind::RightParen, "an operator or `)`")?;
                Ok(Duration::Paren {
                    span: start.to(end),
                    duration: Box::new(duration),
                })
            }
            TokenKind::Keyword(keyword @ (Keyword::Step | Keyword::Range)) => {
                self.advance();
                self.expect(TokenKind::LeftParen, "`()`")?;
                let span = start.to(self.expect(TokenKind::RightParen, "`)`")?);
                Ok(match keyword {
                    Keyword::Step => Duration::Step(span),
                    _ => Duration::Range(span),
                })
            }
            TokenKind::Keyword(keyword @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.advance();
                self.expect(TokenKind::LeftParen, "`(` and two durations")?;
                let left = self.duration(0)?;
                self.expect(TokenKind::Comma, "`,` and a second duration")?;
                let right = self.duration(0)?;
                let end = self.expect(TokenKind::RightParen, "an operator or `)`")?;
                Ok(Duration::Computed {
                    span: start.to(end),
                    op: if keyword == Keyword::MinOf {
                        DurationOp::MinOf
                    } else {
                        DurationOp::MaxOf
                    },
                    left: Box::new(left),
                    right: Box::new(right),
                })
            }
            _ => self.unexpected("a duration"),
        }
    }
}

fn duration_op(kind: TokenKind) -> Option<(DurationOp, u8)> {
    let op = match kind {
        TokenKind::Add => DurationOp::Add,
        TokenKind::Sub => DurationOp::Sub,
        TokenKind::Mul => DurationOp::Mul,
        TokenKind::Div => DurationOp::Div,
        TokenKind::Mod => DurationOp::Mod,
        TokenKind::Pow => DurationOp::Pow,
        _ => return None,
    };
    op.precedence().map(|precedence| (op, precedence))
}
