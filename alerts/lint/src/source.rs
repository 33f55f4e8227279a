//! A file's text, and where in it a byte stands. It reads no files.

use serde::Serialize;

/// The text of a file with the beginnings of its lines.
#[derive(Debug, Clone)]
pub struct SourceFile {
    name: String,
    text: String,
    lines: Box<[usize]>,
    /// How many characters begin before each block of bytes: a line may be as long as the file.
    counts: Box<[usize]>,
}

/// Bytes of a block.
const BLOCK: usize = 4096;

/// How many characters begin in these bytes of UTF-8.
fn begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// A place in a file: line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl SourceFile {
    /// The file `name`, which holds `text`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let blocks = text.as_bytes().chunks(BLOCK);
        let counts = blocks.scan(0, |count, block| {
            let before = *count;
            *count += begun(block);
            Some(before)
        });
        Self {
            name: name.into(),
            counts: counts.collect(),
            text,
            lines,
        }
    }

    /// The name that findings give.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the byte at `offset` stands; past the end means the end, inside of a character its beginning.
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        Position {
            line,
            column: self.before(offset) - self.before(start) + 1,
        }
    }

    /// How many characters begin before a byte.
    fn before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let counted = self.counts.get(block).copied();
        // The end of the last block is the begin of none.
        let (count, from) = counted.map_or_else(
            || {
                (
                    self.counts.last().copied().unwrap_or(0),
                    block.saturating_sub(1) * BLOCK,
                )
            },
            |count| (count, block * BLOCK),
        );
        count + begun(&self.text.as_bytes()[from..offset])
    }

    /// How many lines there are.
    pub fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// The byte at which line `number`, from 1, begins; of a line that is not there, the end of the text.
    pub fn line_start(&self, number: usize) -> usize {
        let index = number.saturating_sub(1);
        self.lines.get(index).copied().unwrap_or(self.text.len())
    }

    /// Line `number`, from 1, without its end; empty when there is none.
    pub fn line(&self, number: usize) -> &str {
        self.text[self.line_start(number)..self.line_start(number + 1)].trim_end_matches(['\n', '\r'])
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}
