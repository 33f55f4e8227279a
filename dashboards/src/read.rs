//! A board as somebody else wrote it: any schema version, classic or in an envelope, exported or saved by hand. It is
//! read for what checks ask about, each piece with its place in the file; what is not understood is left alone.

pub mod board;
mod classic;
pub mod json;
mod resource;
pub mod source;
pub mod variable;

use std::ops::Range;

use lint::SourceFile;

pub use board::{Annotation, Board, Form, Grid, Link, Panel, Target};
pub use json::{Node, Value};
pub use source::{DataSource, Language};
pub use variable::{Query, Variable};

/// A file that was read as JSON.
#[derive(Debug)]
pub struct Document {
    /// The file.
    pub file: SourceFile,
    /// What it holds.
    pub root: Node,
}

/// Why a file cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON.
    #[error("this is not JSON: {what}")]
    NotJson {
        /// What is wrong.
        what: &'static str,
        /// Where.
        span: Range<usize>,
    },
    /// It is larger than any board.
    #[error("the file has more than {} bytes", json::LARGEST)]
    TooLarge,
    /// It is JSON, but no board.
    #[error("this is not a board: it has neither `panels` nor `rows` nor `elements`")]
    NotABoard,
}

impl Document {
    /// Reads a file as JSON.
    ///
    /// # Errors
    /// When it is no JSON, nested deeper than [`json::DEEPEST`] or larger than [`json::LARGEST`].
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Result<Self, (SourceFile, Unreadable)> {
        let file = SourceFile::new(name, text);
        match json::parse(file.text()) {
            Ok(root) => Ok(Self { file, root }),
            Err(unreadable) => Err((file, unreadable)),
        }
    }

    /// The board that it holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn board(&self) -> Result<Board<'_>, Unreadable> {
        board::of(self).ok_or(Unreadable::NotABoard)
    }

    /// The bytes of the file that a part of a text comes from; `range` counts bytes of the text without its escapes.
    pub fn inside(&self, text: &Node, range: Range<usize>) -> Range<usize> {
        json::inside(self.file.text(), text, range)
    }
}
