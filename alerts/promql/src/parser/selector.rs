//! Selectors: a name, and matchers between braces.

use super::{Parsed, Parser, leaf::quoted};
use crate::{
    ast::{Expr, LabelMatcher, MatchOp, Matcher, Modifiers, Name, Selector, StringLiteral},
    error::ErrorKind,
    lexer::TokenKind,
    regex,
    span::Span,
};

impl Parser<'_> {
    /// A selector whose name is behind, where it has one before the braces.
    pub(super) fn selector(&mut self, name: Option<Name>) -> Parsed<Expr> {
        let start = name.as_ref().map_or(self.current.span.start, |name| name.span.start);
        let (mut braces, mut matchers) = (None, Vec::new());
        if self.current.kind == TokenKind::LeftBrace {
            let opening = self.advance().span;
            matchers = self.matchers()?;
            braces = Some(opening.to(self.expect(TokenKind::RightBrace, "`,` or `}`")?));
        }
        Ok(Expr::Selector(Box::new(Selector {
            span: Span::new(start, self.behind),
            name,
            braces,
            matchers,
            range: None,
            modifiers: Modifiers::default(),
        })))
    }

    fn matchers(&mut self) -> Parsed<Vec<Matcher>> {
        let mut matchers = Vec::new();
        while self.current.kind != TokenKind::RightBrace {
            matchers.push(self.matcher()?);
            // A variable may bring its own comma.
            if !self.eat(TokenKind::Comma) && self.current.kind != TokenKind::Template {
                break;
            }
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let label = match self.current.kind {
            TokenKind::String => {
                let string = self.string()?;
                if self.match_op().is_none() {
                    return Ok(Matcher::Name(string));
                }
                quoted(string)
            }
            TokenKind::Identifier => {
                let span = self.advance().span;
                self.name_at(span)
            }
            TokenKind::Template => {
                let span = self.advance().span;
                let name = self.name_at(span);
                if self.match_op().is_none() {
                    return Ok(Matcher::Variable(name));
                }
                name
            }
            _ => return self.unexpected("a label or `}`"),
        };
        let Some(op) = self.match_op() else {
            return self.unexpected("`=`, `!=`, `=~` or `!~`");
        };
        self.advance();
        let value = match self.current.kind {
            TokenKind::Template => self.unquoted(),
            _ => self.string()?,
        };
        let matches_empty = !value.templated && self.matches_empty(op, &value)?;
        Ok(Matcher::Label(LabelMatcher {
            span: label.span.to(value.span),
            label,
            op,
            value,
            matches_empty,
        }))
    }

    /// A variable that brings its own quotes.
    fn unquoted(&mut self) -> StringLiteral {
        let span = self.advance().span;
        StringLiteral {
            span,
            value: span.of(self.text).into(),
            broken: None,
            quoted: false,
            templated: true,
        }
    }

    /// Whether a series without the label is selected.
    fn matches_empty(&self, op: MatchOp, value: &StringLiteral) -> Parsed<bool> {
        let special = |byte: &u8| br"\.+*?()|[]{}^$".contains(byte);
        let matches = match &value.broken {
            _ if !op.is_regex() => Ok(value.value.is_empty()),
            // Without anything special, no expression is made of it, and nobody minds what bytes it has.
            Some(bytes) if !bytes.iter().any(special) => Ok(false),
            Some(_) => Err("it is no UTF-8"),
            None => regex::matches_empty(&value.value),
        };
        let matches = match matches {
            Ok(matches) => matches,
            Err(why) => {
                let literal = value.span.of(self.text);
                let message = format!("{literal} is no regular expression: {why}");
                return self.fail(value.span, ErrorKind::Syntax, message);
            }
        };
        Ok(matches != op.is_negative())
    }

    fn match_op(&self) -> Option<MatchOp> {
        Some(match self.current.kind {
            TokenKind::Equal => MatchOp::Equal,
            TokenKind::NotEqual => MatchOp::NotEqual,
            TokenKind::EqualRegex => MatchOp::Regex,
            TokenKind::NotRegex => MatchOp::NotRegex,
            _ => return None,
        })
    }
}
