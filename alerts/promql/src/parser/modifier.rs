//! What follows an expression closely, or stands beside an operator: ranges, offsets, grouping, matching.

use super::{Grown, Parsed, Parser};
use crate::{
    ast::{
        At, Expr, Fill, FillValue, Group, Grouping, Instant, Matching, Modifiers, Name, Number, Offset, Operand, Range,
        RangeEdge, Selector, Side, Sign, Subquery,
    },
    error::{ErrorKind, Feature},
    lexer::{Keyword, TokenKind},
    literal,
    span::Span,
};

impl Parser<'_> {
    /// Brackets and modifiers behind an operand.
    pub(super) fn suffixes(&mut self, operand: Grown) -> Parsed<Grown> {
        let mut grown = operand;
        loop {
            match self.current.kind {
                TokenKind::LeftBracket => grown = self.bracket(grown)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(&mut grown.expr)?,
                TokenKind::At => self.at(&mut grown.expr)?,
                TokenKind::Keyword(Keyword::Anchored) => self.edge(&mut grown.expr, RangeEdge::Anchored)?,
                TokenKind::Keyword(Keyword::Smoothed) => self.edge(&mut grown.expr, RangeEdge::Smoothed)?,
                _ => return Ok(grown),
            }
        }
    }

    /// `[5m]` or `[1h:5m]`.
    fn bracket(&mut self, inner: Grown) -> Parsed<Grown> {
        let start = self.advance().span;
        let duration = self.range_duration()?;
        if self.eat(TokenKind::Colon) {
            let closes = self.current.kind == TokenKind::RightBracket;
            let step = if closes { None } else { Some(self.range_duration()?) };
            let bracket = start.to(self.expect(TokenKind::RightBracket, "a duration or `]`")?);
            let subquery = Subquery {
                span: inner.expr.span().to(bracket),
                expr: inner.expr,
                range: duration,
                step,
                bracket,
                modifiers: Modifiers::default(),
            };
            return self.grown(Expr::Subquery(Box::new(subquery)), inner.height);
        }
        let span = start.to(self.expect(TokenKind::RightBracket, "an operator, `:` or `]`")?);
        let mut expr = inner.expr;
        selects(&mut expr);
        let message = match &expr {
            Expr::Selector(selector) if selector.range.is_some() => "a range after a range",
            Expr::Selector(selector) if selector.modifiers.is_offset() => "an offset comes after the range",
            Expr::Selector(selector) if selector.modifiers.at.is_some() => "`@` comes after the range",
            Expr::Selector(_) => "",
            _ => "a range follows a selector only; for anything else it is a subquery, such as `[5m:]`",
        };
        match &mut expr {
            Expr::Selector(selector) if message.is_empty() => {
                selector.range = Some(Range { span, duration });
                selector.span = selector.span.to(span);
            }
            _ => return self.fail(span, ErrorKind::Meaning, message.to_owned()),
        }
        Ok(Grown { expr, ..inner })
    }

    fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        let start = self.advance().span;
        let duration = self.offset_duration()?;
        let span = start.to(duration.span());
        let Some((modifiers, whole)) = modifiers(expr) else {
            return self.misplaced(span, "`offset`");
        };
        if modifiers.is_offset() {
            return self.fail(span, ErrorKind::Meaning, "a second offset".to_owned());
        }
        modifiers.offset = Some(Offset { span, duration });
        *whole = whole.to(span);
        Ok(())
    }

    fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        let start = self.advance().span;
        let instant = match self.current.kind {
            TokenKind::Keyword(keyword @ (Keyword::Start | Keyword::End)) => {
                self.advance();
                self.expect(TokenKind::LeftParen, "`()`")?;
                self.expect(TokenKind::RightParen, "`)`")?;
                if keyword == Keyword::Start {
                    Instant::Start
                } else {
                    Instant::End
                }
            }
            _ => match self.signed("a timestamp, `start()` or `end()`")? {
                Operand::Variable(name) => Instant::Variable(name),
                Operand::Number(number) => Instant::Milliseconds(self.timestamp(number)?),
            },
        };
        let span = Span::new(start.start, self.behind);
        let Some((modifiers, whole)) = modifiers(expr) else {
            return self.misplaced(span, "`@`");
        };
        if modifiers.at.is_some() {
            return self.fail(span, ErrorKind::Meaning, "a second `@`".to_owned());
        }
        modifiers.at = Some(At { span, instant });
        *whole = whole.to(span);
        Ok(())
    }

    fn timestamp(&self, number: Number) -> Parsed<i64> {
        const BOUND: f64 = 9_223_372_036_854_775_808.0;
        if number.value.abs() < BOUND {
            return Ok(literal::to_i64((number.value * 1000.0).round()));
        }
        let message = format!("`{}` is no point in time", number.span.of(self.text));
        self.fail(number.span, ErrorKind::Meaning, message)
    }

    fn edge(&mut self, expr: &mut Expr, edge: RangeEdge) -> Parsed<()> {
        let span = self.advance().span;
        let word = edge.text();
        if !self.dialect.extended_range_selectors {
            return self.lacks(span, Feature::ExtendedRangeSelectors, &format!("`{word}`"));
        }
        selects(expr);
        let Expr::Selector(selector) = expr else {
            return self.fail(span, ErrorKind::Meaning, format!("`{word}` follows a selector only"));
        };
        if selector.modifiers.edge.is_some_and(|(other, _)| other != edge) {
            return self.fail(span, ErrorKind::Meaning, "`anchored` and `smoothed` at once".to_owned());
        }
        selector.modifiers.edge = Some((edge, span));
        selector.span = selector.span.to(span);
        Ok(())
    }

    fn misplaced(&self, span: Span, what: &str) -> Parsed<()> {
        self.fail(
            span,
            ErrorKind::Meaning,
            format!("{what} follows a selector or a subquery only"),
        )
    }

    /// A number with or without a sign, or a variable.
    fn signed(&mut self, expected: &str) -> Parsed<Operand> {
        let start = self.current.span;
        let sign = self.sign();
        match self.current.kind {
            TokenKind::Template => {
                let span = self.advance().span;
                Ok(Operand::Variable(self.name_at(span)))
            }
            TokenKind::Number | TokenKind::Duration => {
                let number = self.number()?;
                Ok(Operand::Number(Number {
                    span: start.to(number.span),
                    value: sign.unwrap_or(Sign::Plus).apply(number.value),
                    ..number
                }))
            }
            _ => self.unexpected(expected),
        }
    }

    /// Whether `by` or `without` follows.
    pub(super) fn grouping_follows(&self) -> bool {
        matches!(self.current.kind, TokenKind::Keyword(Keyword::By | Keyword::Without))
    }

    /// `by (…)` or `without (…)`, where it follows.
    pub(super) fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let start = self.advance();
        let labels = self.labels()?;
        Ok(Some(Grouping {
            span: Span::new(start.span.start, self.behind),
            without: start.kind == TokenKind::Keyword(Keyword::Without),
            labels,
        }))
    }

    /// `on (…)` or `ignoring (…)`, and a group modifier.
    pub(super) fn matching(&mut self) -> Parsed<Option<Matching>> {
        let on = match self.current.kind {
            TokenKind::Keyword(Keyword::On) => true,
            TokenKind::Keyword(Keyword::Ignoring) => false,
            _ => return Ok(None),
        };
        let start = self.advance().span;
        let labels = self.labels()?;
        let many = match self.current.kind {
            TokenKind::Keyword(Keyword::GroupLeft) => Some(Side::Left),
            TokenKind::Keyword(Keyword::GroupRight) => Some(Side::Right),
            _ => None,
        };
        let group = match many {
            None => None,
            Some(many) => {
                let start = self.advance().span;
                let lists = self.current.kind == TokenKind::LeftParen;
                let include = if lists { self.labels()? } else { Vec::new() };
                let span = Span::new(start.start, self.behind);
                Some(Group { span, many, include })
            }
        };
        let span = Span::new(start.start, self.behind);
        Ok(Some(Matching {
            span,
            on,
            labels,
            group,
        }))
    }

    /// `fill (…)`, or one or both of `fill_left (…)` and `fill_right (…)`.
    pub(super) fn fill(&mut self) -> Parsed<Fill> {
        let mut fill = Fill::default();
        while let TokenKind::Keyword(keyword @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) =
            self.current.kind
        {
            let again = match keyword {
                Keyword::FillLeft => fill.left.is_some(),
                Keyword::FillRight => fill.right.is_some(),
                _ => !fill.is_empty(),
            };
            if again {
                return self.unexpected("an expression");
            }
            let start = self.advance().span;
            if !self.dialect.fill_modifiers {
                return self.lacks(start, Feature::FillModifiers, &format!("`{}`", start.of(self.text)));
            }
            self.expect(TokenKind::LeftParen, "`(` and a number")?;
            let value = self.signed("a number")?;
            let span = start.to(self.expect(TokenKind::RightParen, "`)`")?);
            let value = FillValue { span, value };
            if keyword != Keyword::FillRight {
                fill.left = Some(value.clone());
            }
            if keyword != Keyword::FillLeft {
                fill.right = Some(value);
            }
        }
        Ok(fill)
    }
}

impl Modifiers {
    /// Whether there is an offset that shifts. Prometheus takes any number of those that do not.
    fn is_offset(&self) -> bool {
        let shifts = |offset: &Offset| offset.duration.nanoseconds() != Some(0);
        self.offset.as_ref().is_some_and(shifts)
    }
}

/// What can be modified of an expression, and its place. A variable that is modified stands for a metric.
fn modifiers(expr: &mut Expr) -> Option<(&mut Modifiers, &mut Span)> {
    selects(expr);
    match expr {
        Expr::Selector(selector) => Some((&mut selector.modifiers, &mut selector.span)),
        Expr::Subquery(subquery) => Some((&mut subquery.modifiers, &mut subquery.span)),
        _ => None,
    }
}

/// Makes a selector of a variable: what follows it says that it stands for a metric.
fn selects(expr: &mut Expr) {
    if let Expr::Variable(name) = expr {
        let name: Name = name.clone();
        *expr = Expr::Selector(Box::new(Selector {
            span: name.span,
            name: Some(name),
            braces: None,
            matchers: Vec::new(),
            range: None,
            modifiers: Modifiers::default(),
        }));
    }
}
