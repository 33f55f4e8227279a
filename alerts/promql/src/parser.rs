//! Makes a tree of tokens: by recursive descent, and by precedence where operators are. What is refused here cannot be
//! read; whether what was read fits together is decided in `check`.

mod duration;
mod leaf;
mod modifier;
mod selector;

use crate::{
    Dialect,
    ast::{Aggregation, Aggregator, Binary, Call, Callee, Expr, Grouping, Name, Paren, Sign, Unary},
    error::{ErrorKind, Feature, ParseError},
    function::{Function, is_of_metricsql},
    lexer::{Keyword, Lexer, Token, TokenKind},
    span::Span,
};

/// No query is longer, in bytes.
const LONGEST: usize = 4 << 20;
/// Parentheses, calls and signs inside of each other: each is a call of the parser in itself.
const DEEPEST: u32 = 100;
/// Nodes above each other, among them the operators of one long chain: whoever walks a tree calls itself so often.
const HIGHEST: u32 = 500;

type Parsed<T> = Result<T, ParseError>;

/// An expression, and how many nodes are above each other in it.
struct Grown {
    expr: Expr,
    height: u32,
}

struct Parser<'a> {
    text: &'a str,
    dialect: Dialect,
    lexer: Lexer<'a>,
    current: Token,
    /// Where the token before the current one ends.
    behind: u32,
    nesting: u32,
}

/// Reads a text whole: its tree, and where its comments are.
pub(crate) fn parse(text: &str, dialect: Dialect) -> Parsed<(Expr, Vec<Span>)> {
    if text.len() > LONGEST {
        let message = format!("the query is longer than {LONGEST} bytes");
        return Err(ParseError::new(text, Span::default(), ErrorKind::Limit, message));
    }
    let mut lexer = Lexer::new(text, dialect.variables);
    let current = lexer.next();
    let mut parser = Parser {
        text,
        dialect,
        lexer,
        current,
        behind: 0,
        nesting: 0,
    };
    if parser.current.kind == TokenKind::End {
        return parser.fail(
            parser.current.span,
            ErrorKind::Syntax,
            "there is no expression".to_owned(),
        );
    }
    let grown = parser.expression(0)?;
    if parser.current.kind != TokenKind::End {
        return parser.unexpected("an operator or the end");
    }
    Ok((grown.expr, parser.lexer.comments))
}

impl Parser<'_> {
    /// An expression whose operators bind at least as strongly as `weakest`.
    fn expression(&mut self, weakest: u8) -> Parsed<Grown> {
        self.nest()?;
        let mut left = self.operand()?;
        while let Some(op) = self.current.kind.binary_op() {
            let precedence = op.precedence();
            if precedence < weakest {
                break;
            }
            let op_span = self.advance().span;
            let returns_bool = self.eat_keyword(Keyword::Bool);
            let matching = self.matching()?;
            let fill = self.fill()?;
            let right = self.expression(if op.precedence() == POWER {
                POWER
            } else {
                precedence + 1
            })?;
            let height = left.height.max(right.height);
            let span = left.expr.span().to(right.expr.span());
            let binary = Box::new(Binary {
                span,
                left: left.expr,
                op,
                op_span,
                returns_bool,
                matching,
                fill,
                right: right.expr,
            });
            left = self.grown(Expr::Binary(binary), height)?;
        }
        self.nesting -= 1;
        Ok(left)
    }

    /// What stands between operators, with what follows it closely.
    fn operand(&mut self) -> Parsed<Grown> {
        let Token { kind, span } = self.current;
        let operand = match kind {
            TokenKind::Number | TokenKind::Duration => Grown::leaf(Expr::Number(self.number()?)),
            TokenKind::String => Grown::leaf(Expr::String(self.string()?)),
            TokenKind::LeftBrace => Grown::leaf(self.selector(None)?),
            TokenKind::LeftParen => {
                self.advance();
                let inner = self.expression(0)?;
                let span = span.to(self.expect(TokenKind::RightParen, "an operator or `)`")?);
                let expr = Expr::Paren(Box::new(Paren { span, expr: inner.expr }));
                self.grown(expr, inner.height)?
            }
            TokenKind::Add | TokenKind::Sub => {
                let sign = self.sign().unwrap_or(Sign::Plus);
                // Only `^` binds more strongly than a sign, and whatever follows the operand closely did so already.
                let inner = self.expression(POWER)?;
                let span = span.to(inner.expr.span());
                let expr = inner.expr;
                let unary = Expr::Unary(Box::new(Unary { span, sign, expr }));
                return self.grown(unary, inner.height);
            }
            TokenKind::Aggregator(aggregator) => {
                self.advance();
                if self.aggregates() {
                    self.aggregation(Callee::Known(aggregator), span)?
                } else {
                    let name = self.name_at(span);
                    Grown::leaf(self.selector(Some(name))?)
                }
            }
            kind if kind.names_metric() => {
                self.advance();
                self.named(kind, span)?
            }
            _ => return self.unexpected("an expression"),
        };
        self.suffixes(operand)
    }

    /// What begins with a name: a call, a selector, or a variable for either.
    fn named(&mut self, kind: TokenKind, span: Span) -> Parsed<Grown> {
        let follows = self.current.kind;
        if kind == TokenKind::Template {
            let name = self.name_at(span);
            return match follows {
                TokenKind::LeftBrace => Ok(Grown::leaf(self.selector(Some(name))?)),
                _ if self.aggregates() => self.call_of_variable(name),
                _ => Ok(Grown::leaf(Expr::Variable(name))),
            };
        }
        let callable = matches!(
            kind,
            TokenKind::Identifier
                | TokenKind::Keyword(
                    Keyword::Start | Keyword::End | Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf
                )
        );
        if follows == TokenKind::LeftParen && callable {
            return self.call(span);
        }
        let name = self.name_at(span);
        Ok(Grown::leaf(self.selector(Some(name))?))
    }

    fn call(&mut self, name_span: Span) -> Parsed<Grown> {
        let name = name_span.of(self.text);
        let Some(function) = Function::named(name) else {
            let elsewhere = if is_of_metricsql(name) {
                "; MetricsQL, the language of VictoriaMetrics, has it"
            } else {
                ""
            };
            let what = format!("there is no function `{name}`{elsewhere}");
            return self.fail(name_span, ErrorKind::Meaning, what);
        };
        if function.experimental && !self.dialect.experimental_functions {
            return self.lacks(
                name_span,
                Feature::ExperimentalFunctions,
                &format!("the function `{name}`"),
            );
        }
        let (arguments, height) = self.arguments()?;
        let call = Call {
            span: Span::new(name_span.start, self.behind),
            name_span,
            function: Callee::Known(function),
            arguments,
        };
        self.grown(Expr::Call(Box::new(call)), height)
    }

    /// A variable in the place of a function or an aggregator: with `by` or `without` it is an aggregator.
    fn call_of_variable(&mut self, name: Name) -> Parsed<Grown> {
        let name_span = name.span;
        if self.current.kind != TokenKind::LeftParen {
            return self.aggregation(Callee::Variable(name), name_span);
        }
        let (arguments, height) = self.arguments()?;
        if self.grouping_follows() {
            let grouping = self.grouping()?;
            return self.aggregated(Callee::Variable(name), name_span, grouping, (arguments, height));
        }
        let call = Call {
            span: Span::new(name_span.start, self.behind),
            name_span,
            function: Callee::Variable(name),
            arguments,
        };
        self.grown(Expr::Call(Box::new(call)), height)
    }

    fn aggregation(&mut self, op: Callee<Aggregator>, op_span: Span) -> Parsed<Grown> {
        let before = self.grouping()?;
        let arguments = self.arguments()?;
        let grouping = if before.is_some() { before } else { self.grouping()? };
        self.aggregated(op, op_span, grouping, arguments)
    }

    fn aggregated(
        &mut self,
        op: Callee<Aggregator>,
        op_span: Span,
        grouping: Option<Grouping>,
        (arguments, height): (Vec<Expr>, u32),
    ) -> Parsed<Grown> {
        let span = Span::new(op_span.start, self.behind);
        let takes = match &op {
            Callee::Known(aggregator) if aggregator.is_experimental() && !self.dialect.experimental_functions => {
                let what = format!("the aggregation `{aggregator}`");
                return self.lacks(op_span, Feature::ExperimentalFunctions, &what);
            }
            Callee::Known(aggregator) => 1 + usize::from(aggregator.has_parameter()),
            Callee::Variable(_) => arguments.len().clamp(1, 2),
        };
        let given = arguments.len();
        let mut arguments = arguments.into_iter();
        let parameter = (takes == 2).then(|| arguments.next()).flatten();
        let Some(expr) = arguments.next().filter(|_| given == takes) else {
            let message = format!("`{}` takes {takes} arguments, not {given}", op_span.of(self.text));
            return self.fail(span, ErrorKind::Meaning, message);
        };
        let aggregation = Aggregation {
            span,
            op_span,
            op,
            grouping,
            parameter,
            expr,
        };
        self.grown(Expr::Aggregation(Box::new(aggregation)), height)
    }

    /// Arguments in parentheses, and the height of the highest.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, u32)> {
        self.expect(TokenKind::LeftParen, "`(`")?;
        let (mut arguments, mut height) = (Vec::new(), 0);
        if self.eat(TokenKind::RightParen) {
            return Ok((arguments, height));
        }
        loop {
            let argument = self.expression(0)?;
            height = height.max(argument.height);
            arguments.push(argument.expr);
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.expect(TokenKind::RightParen, "an operator, `,` or `)`")?;
        Ok((arguments, height))
    }

    /// Whether what follows makes an aggregation of an aggregator's name.
    fn aggregates(&self) -> bool {
        self.current.kind == TokenKind::LeftParen || self.grouping_follows()
    }

    fn nest(&mut self) -> Parsed<()> {
        self.nesting += 1;
        if self.nesting > DEEPEST {
            let message = format!("nested more than {DEEPEST} deep");
            return self.fail(self.current.span, ErrorKind::Limit, message);
        }
        Ok(())
    }

    fn grown(&self, expr: Expr, below: u32) -> Parsed<Grown> {
        let height = below + 1;
        if height > HIGHEST {
            let message = format!("more than {HIGHEST} operators one upon the other");
            return self.fail(expr.span(), ErrorKind::Limit, message);
        }
        Ok(Grown { expr, height })
    }

    fn advance(&mut self) -> Token {
        let token = self.current;
        self.behind = token.span.end;
        self.current = self.lexer.next();
        token
    }

    fn eat(&mut self, kind: TokenKind) -> bool {
        let is_it = self.current.kind == kind;
        if is_it {
            self.advance();
        }
        is_it
    }

    fn eat_keyword(&mut self, keyword: Keyword) -> Option<Span> {
        (self.current.kind == TokenKind::Keyword(keyword)).then(|| self.advance().span)
    }

    fn expect(&mut self, kind: TokenKind, words: &str) -> Parsed<Span> {
        if self.current.kind == kind {
            return Ok(self.advance().span);
        }
        self.unexpected(words)
    }

    /// Refuses the current token.
    #[cold]
    fn unexpected<T>(&self, expected: &str) -> Parsed<T> {
        let span = self.current.span;
        if let Some(refusal) = &self.lexer.refusal {
            return self.fail(refusal.span, ErrorKind::Syntax, refusal.message.clone());
        }
        let message = match self.current.kind {
            TokenKind::End => format!("the query ends where {expected} is expected"),
            _ => format!("unexpected `{}`, expected {expected}", span.of(self.text)),
        };
        self.fail(span, ErrorKind::Syntax, message)
    }

    #[cold]
    fn lacks<T>(&self, span: Span, feature: Feature, what: &str) -> Parsed<T> {
        let message = format!("{what} needs Prometheus with --enable-feature={}", feature.flag());
        self.fail(span, ErrorKind::Feature(feature), message)
    }

    #[cold]
    fn fail<T>(&self, span: Span, kind: ErrorKind, message: String) -> Parsed<T> {
        Err(ParseError::new(self.text, span, kind, message))
    }
}

/// The precedence of `^`, which binds to the right, and of what a sign stands before.
const POWER: u8 = crate::ast::BinaryOp::Pow.precedence();

impl Grown {
    const fn leaf(expr: Expr) -> Self {
        Self { expr, height: 1 }
    }
}
