//! Names, labels, numbers and strings.

use super::{Parsed, Parser};
use crate::{
    ast::{Name, Number, Sign, StringLiteral},
    error::ErrorKind,
    lexer::TokenKind,
    literal,
    span::Span,
    variable::variables,
};

impl Parser<'_> {
    /// The name at a place that is behind.
    pub(super) fn name_at(&self, span: Span) -> Name {
        let text = span.of(self.text);
        Name {
            span,
            text: text.into(),
            quoted: false,
            templated: self.is_templated(text),
        }
    }

    /// A number or duration, without sign.
    pub(super) fn number(&mut self) -> Parsed<Number> {
        let token = self.current;
        let text = token.span.of(self.text);
        let duration = token.kind == TokenKind::Duration;
        let value = match token.kind {
            TokenKind::Number => literal::number(text),
            TokenKind::Duration => literal::duration(text),
            _ => return self.unexpected("a number or a duration"),
        };
        let value = match value {
            Ok(value) => value,
            Err(message) => return self.fail(token.span, ErrorKind::Syntax, format!("`{text}` {message}")),
        };
        self.advance();
        Ok(Number {
            span: token.span,
            value,
            duration,
        })
    }

    /// A sign, where one is.
    pub(super) fn sign(&mut self) -> Option<Sign> {
        let sign = match self.current.kind {
            TokenKind::Add => Sign::Plus,
            TokenKind::Sub => Sign::Minus,
            _ => return None,
        };
        self.advance();
        Some(sign)
    }

    pub(super) fn string(&mut self) -> Parsed<StringLiteral> {
        let span = self.expect(TokenKind::String, "a text in quotes")?;
        let literal = span.of(self.text);
        let (value, broken): (Box<str>, Option<Box<[u8]>>) = if literal.contains('\\') {
            match literal::unescape(literal) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(value) => (value.into(), None),
                    Err(error) => {
                        let bytes = error.into_bytes();
                        (String::from_utf8_lossy(&bytes).into(), Some(bytes.into()))
                    }
                },
                Err(bad) => {
                    let at = span.start + bad.at as u32;
                    let message = format!("{} in the string {literal}", bad.message);
                    return self.fail(Span::new(at, at + 1), ErrorKind::Syntax, message);
                }
            }
        } else {
            (literal[1..literal.len() - 1].into(), None)
        };
        let templated = self.is_templated(&value);
        Ok(StringLiteral {
            span,
            value,
            broken,
            quoted: true,
            templated,
        })
    }

    /// Labels in parentheses, which may be none.
    pub(super) fn labels(&mut self) -> Parsed<Vec<Name>> {
        self.expect(TokenKind::LeftParen, "`(` and labels")?;
        let mut labels = Vec::new();
        while self.current.kind != TokenKind::RightParen {
            labels.push(self.label()?);
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.expect(TokenKind::RightParen, "`,` or `)`")?;
        Ok(labels)
    }

    fn label(&mut self) -> Parsed<Name> {
        if self.current.kind == TokenKind::String {
            let string = self.string()?;
            if string.value.is_empty() || string.broken.is_some() {
                let message = format!("{} can be no label", string.span.of(self.text));
                return self.fail(string.span, ErrorKind::Meaning, message);
            }
            return Ok(quoted(string));
        }
        if !self.current.kind.names_label() {
            return self.unexpected("a label");
        }
        let span = self.advance().span;
        Ok(self.name_at(span))
    }

    /// Whether there are variables in a text of this dialect.
    pub(super) fn is_templated(&self, text: &str) -> bool {
        self.dialect.variables && variables(text).next().is_some()
    }
}

/// A text in quotes as a name.
pub(super) fn quoted(string: StringLiteral) -> Name {
    Name {
        span: string.span,
        text: string.value,
        quoted: true,
        templated: string.templated,
    }
}
