//! Names, numbers and strings: the leaves of the tree.

use crate::{
    span::Span,
    variable::{Variable, variables},
};

/// The name of a metric or a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Where it is, with its quotes.
    pub span: Span,
    /// The name, without quotes and escapes; variables stand in it as they were written.
    pub text: Box<str>,
    /// Whether it was written in quotes.
    pub quoted: bool,
    /// Whether there are variables of Grafana in it, so that nobody knows the name.
    pub templated: bool,
}

/// A number as it was written: without its sign, which is a node of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// Where it is.
    pub span: Span,
    /// Its value; of a duration, in seconds.
    pub value: f64,
    /// Whether it was written as a duration, such as `1h30m`.
    pub duration: bool,
}

/// A text in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringLiteral {
    /// Where it is, with its quotes.
    pub span: Span,
    /// What the quotes and escapes stand for. Bytes that are no UTF-8 are U+FFFD here.
    pub value: Box<str>,
    /// The bytes, where escapes such as `\xff` make them no UTF-8.
    pub broken: Option<Box<[u8]>>,
    /// Whether it is in quotes. Only a variable that brings its own is not.
    pub quoted: bool,
    /// Whether there are variables of Grafana in it.
    pub templated: bool,
}

/// What is called: something known, or whatever a variable of Grafana stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Callee<T> {
    /// Something known.
    Known(T),
    /// A variable in the place of the name.
    Variable(Name),
}

impl Name {
    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable<'_>> {
        variables(if self.templated { &self.text } else { "" })
    }
}

impl StringLiteral {
    /// The bytes that it stands for.
    pub fn bytes(&self) -> &[u8] {
        self.broken.as_deref().unwrap_or(self.value.as_bytes())
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable<'_>> {
        variables(if self.templated { &self.value } else { "" })
    }
}

impl<T> Callee<T> {
    /// What is called, where that is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Variable(_) => None,
        }
    }
}
