//! The kinds of tokens, and which words are keywords.

use crate::{
    ast::{Aggregator, BinaryOp},
    span::Span,
};

/// A token and its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    End,
    Error,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    At,
    /// `=`, between braces.
    Equal,
    EqualRegex,
    NotRegex,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    EqualEqual,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    TrimUpper,
    TrimLower,
    Atan2,
    And,
    Or,
    Unless,
    Number,
    Duration,
    String,
    Identifier,
    /// With colons in it.
    MetricIdentifier,
    Aggregator(Aggregator),
    Keyword(Keyword),
    /// One or more variables of Grafana, and letters and digits close to them.
    Template,
}

/// A word with a meaning that is neither operator nor aggregator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    Anchored,
    Smoothed,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

impl TokenKind {
    /// The operator that it is between two expressions.
    pub(crate) const fn binary_op(self) -> Option<BinaryOp> {
        Some(match self {
            Self::Add => BinaryOp::Add,
            Self::Sub => BinaryOp::Sub,
            Self::Mul => BinaryOp::Mul,
            Self::Div => BinaryOp::Div,
            Self::Mod => BinaryOp::Mod,
            Self::Pow => BinaryOp::Pow,
            Self::Atan2 => BinaryOp::Atan2,
            Self::EqualEqual => BinaryOp::Equal,
            Self::NotEqual => BinaryOp::NotEqual,
            Self::Less => BinaryOp::Less,
            Self::Greater => BinaryOp::Greater,
            Self::LessOrEqual => BinaryOp::LessOrEqual,
            Self::GreaterOrEqual => BinaryOp::GreaterOrEqual,
            Self::TrimUpper => BinaryOp::TrimUpper,
            Self::TrimLower => BinaryOp::TrimLower,
            Self::And => BinaryOp::And,
            Self::Or => BinaryOp::Or,
            Self::Unless => BinaryOp::Unless,
            _ => return None,
        })
    }

    /// Whether it can be the name of a metric where an expression is expected.
    pub(crate) const fn names_metric(self) -> bool {
        match self {
            Self::Identifier
            | Self::MetricIdentifier
            | Self::Aggregator(_)
            | Self::And
            | Self::Or
            | Self::Unless
            | Self::Template => true,
            Self::Keyword(keyword) => !matches!(
                keyword,
                Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
            ),
            _ => false,
        }
    }

    /// Whether it can be a label in a list of labels.
    pub(crate) const fn names_label(self) -> bool {
        match self {
            Self::Keyword(keyword) => !matches!(keyword, Keyword::Without),
            Self::Atan2 => true,
            other => other.names_metric(),
        }
    }
}

/// What a word means, in any case of letters; `None` where it is a name.
pub(crate) fn keyword(word: &[u8]) -> Option<TokenKind> {
    const LONGEST: usize = 12;
    if !(2..=LONGEST).contains(&word.len()) {
        return None;
    }
    let mut lower = [0; LONGEST];
    for (lower, byte) in lower.iter_mut().zip(word) {
        // Right for letters; digits are digits already, and an underscore is followed up below.
        *lower = byte | 0x20;
    }
    // `_` with that bit is 0x7f; nothing else is.
    let lower = &mut lower[..word.len()];
    for byte in lower.iter_mut().filter(|byte| **byte == 0x7f) {
        *byte = b'_';
    }
    Some(match &*lower {
        b"and" => TokenKind::And,
        b"or" => TokenKind::Or,
        b"unless" => TokenKind::Unless,
        b"atan2" => TokenKind::Atan2,
        b"inf" | b"nan" => TokenKind::Number,
        b"sum" => TokenKind::Aggregator(Aggregator::Sum),
        b"avg" => TokenKind::Aggregator(Aggregator::Avg),
        b"count" => TokenKind::Aggregator(Aggregator::Count),
        b"min" => TokenKind::Aggregator(Aggregator::Min),
        b"max" => TokenKind::Aggregator(Aggregator::Max),
        b"group" => TokenKind::Aggregator(Aggregator::Group),
        b"stddev" => TokenKind::Aggregator(Aggregator::Stddev),
        b"stdvar" => TokenKind::Aggregator(Aggregator::Stdvar),
        b"topk" => TokenKind::Aggregator(Aggregator::Topk),
        b"bottomk" => TokenKind::Aggregator(Aggregator::Bottomk),
        b"count_values" => TokenKind::Aggregator(Aggregator::CountValues),
        b"quantile" => TokenKind::Aggregator(Aggregator::Quantile),
        b"limitk" => TokenKind::Aggregator(Aggregator::Limitk),
        b"limit_ratio" => TokenKind::Aggregator(Aggregator::LimitRatio),
        b"offset" => TokenKind::Keyword(Keyword::Offset),
        b"anchored" => TokenKind::Keyword(Keyword::Anchored),
        b"smoothed" => TokenKind::Keyword(Keyword::Smoothed),
        b"by" => TokenKind::Keyword(Keyword::By),
        b"without" => TokenKind::Keyword(Keyword::Without),
        b"on" => TokenKind::Keyword(Keyword::On),
        b"ignoring" => TokenKind::Keyword(Keyword::Ignoring),
        b"group_left" => TokenKind::Keyword(Keyword::GroupLeft),
        b"group_right" => TokenKind::Keyword(Keyword::GroupRight),
        b"fill" => TokenKind::Keyword(Keyword::Fill),
        b"fill_left" => TokenKind::Keyword(Keyword::FillLeft),
        b"fill_right" => TokenKind::Keyword(Keyword::FillRight),
        b"bool" => TokenKind::Keyword(Keyword::Bool),
        b"start" => TokenKind::Keyword(Keyword::Start),
        b"end" => TokenKind::Keyword(Keyword::End),
        b"step" => TokenKind::Keyword(Keyword::Step),
        b"range" => TokenKind::Keyword(Keyword::Range),
        b"min_of" => TokenKind::Keyword(Keyword::MinOf),
        b"max_of" => TokenKind::Keyword(Keyword::MaxOf),
        _ => return None,
    })
}
