//! Where in the file the bytes of a scalar's text stand: quotes, escapes, folds and indentation lie between them.

use std::ops::Range;

use super::Style;

/// From a byte of a scalar's text to the byte of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets {
    /// Stretches of text that stand in the file as they are, or single characters that do not, by where they begin in
    /// the text.
    stretches: Vec<Stretch>,
    /// The bytes of the scalar.
    span: Range<usize>,
    /// Whether the stretches cover the text; else all that is known is the span.
    exact: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// Where it begins in the text.
    text: usize,
    /// Where it begins in the file.
    file: usize,
    /// How many bytes more than in the text it has in the file.
    more: usize,
}

impl Offsets {
    /// All text stands somewhere in `span`.
    pub fn whole(span: Range<usize>) -> Self {
        Self {
            stretches: Vec::new(),
            span,
            exact: false,
        }
    }

    /// Follows `text` through the bytes `span` of `source`.
    pub(super) fn new(text: &str, style: Style, span: Range<usize>, source: &str) -> Self {
        let Some(written) = source.get(span.clone()) else {
            return Self::whole(span);
        };
        if style == Style::Plain && written == text {
            return Self {
                stretches: vec![Stretch {
                    text: 0,
                    file: span.start,
                    more: 0,
                }],
                span,
                exact: true,
            };
        }
        let mut walk = Walk {
            written: written.as_bytes(),
            at: usize::from(matches!(style, Style::SingleQuoted | Style::DoubleQuoted)),
            style,
        };
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut expected = usize::MAX;
        for (index, character) in text.char_indices() {
            let Some((at, length)) = walk.step(character) else {
                // Line breaks at the end are not in the span.
                if text[index..].trim().is_empty() {
                    break;
                }
                return Self::whole(span);
            };
            if at != expected || length != character.len_utf8() {
                stretches.push(Stretch {
                    text: index,
                    file: span.start + at,
                    more: length.saturating_sub(character.len_utf8()),
                });
            }
            // What is written with other bytes begins a new stretch behind it.
            expected = if length == character.len_utf8() {
                at + length
            } else {
                usize::MAX
            };
        }
        Self {
            exact: !stretches.is_empty(),
            stretches,
            span,
        }
    }

    /// The first byte of the scalar: its quote, its block's header, or its text.
    pub fn start(&self) -> usize {
        self.span.start
    }

    /// Whether places inside of the text are known.
    pub fn exact(&self) -> bool {
        self.exact
    }

    /// The byte of the file at which byte `at` of the text stands.
    pub fn locate(&self, at: usize) -> usize {
        self.stretch(at).map_or(self.span.start, |stretch| {
            (stretch.file + (at - stretch.text)).min(self.span.end)
        })
    }

    /// The bytes of the file in which a part of the text stands; the whole scalar where that is not known.
    pub fn range(&self, part: Range<usize>) -> Range<usize> {
        if !self.exact {
            return self.span.clone();
        }
        let start = self.locate(part.start);
        if part.is_empty() {
            return start..start;
        }
        // From its last byte, not from the one behind: that may stand on the next line.
        let last = part.end - 1;
        let end = self.locate(last) + 1 + self.stretch(last).map_or(0, |stretch| stretch.more);
        start..end.clamp(start, self.span.end)
    }

    /// Whether a part of the text stands in the file as it is, so that it can be replaced there.
    pub fn is_verbatim(&self, part: &Range<usize>) -> bool {
        self.exact && (part.is_empty() || self.stretch(part.start) == self.stretch(part.end - 1))
    }

    fn stretch(&self, at: usize) -> Option<&Stretch> {
        let index = self.stretches.partition_point(|stretch| stretch.text <= at);
        self.stretches.get(index.checked_sub(1)?)
    }
}

/// A place in what is written.
struct Walk<'a> {
    written: &'a [u8],
    at: usize,
    style: Style,
}

impl Walk<'_> {
    /// Where `character` is written, and with how many bytes; goes behind it.
    fn step(&mut self, character: char) -> Option<(usize, usize)> {
        if character.is_ascii_whitespace() && self.blank(character) {
            return Some((self.at - 1, 1));
        }
        if character.is_ascii_whitespace() && self.style != Style::DoubleQuoted {
            return self.fold();
        }
        self.skip_blank();
        let here = self.at;
        let rest = self.written.get(here..)?;
        let length = match (self.style, rest.first()?) {
            (Style::SingleQuoted, b'\'') => 2,
            (Style::DoubleQuoted, b'\\') => {
                // A line break that is escaped stands for nothing.
                if matches!(rest.get(1), Some(b'\n' | b'\r')) {
                    self.at += 2;
                    return self.step(character);
                }
                match rest.get(1)? {
                    b'x' => 4,
                    b'u' => 6,
                    b'U' => 10,
                    _ => 2,
                }
            }
            _ => {
                let mut buffer = [0; 4];
                let encoded = character.encode_utf8(&mut buffer).as_bytes();
                if !rest.starts_with(encoded) {
                    return if character.is_ascii_whitespace() {
                        self.fold()
                    } else {
                        None
                    };
                }
                encoded.len()
            }
        };
        self.at += length;
        Some((here, length))
    }

    /// A blank that is written as itself.
    fn blank(&mut self, character: char) -> bool {
        let is_it = self
            .written
            .get(self.at)
            .is_some_and(|&byte| char::from(byte) == character);
        // Blanks before a line's end are folded away with it.
        let folded = character == ' '
            && !matches!(self.style, Style::Literal)
            && self.written[self.at..]
                .iter()
                .find(|byte| !matches!(byte, b' ' | b'\t'))
                .is_some_and(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = is_it && !folded;
        if taken {
            self.at += 1;
        }
        taken
    }

    /// A blank that stands for a line's end.
    fn fold(&mut self) -> Option<(usize, usize)> {
        while matches!(self.written.get(self.at), Some(b' ' | b'\t' | b'\r')) {
            self.at += 1;
        }
        let here = self.at;
        if self.written.get(here) == Some(&b'\n') {
            self.at += 1;
            return Some((here, 1));
        }
        // The line's end was taken by the blank before.
        (here < self.written.len()).then_some((here.saturating_sub(1), 0))
    }

    /// Indentation, the lines' ends that are folded away, and a block's header.
    fn skip_blank(&mut self) {
        if self.at == 0 && matches!(self.written.first(), Some(b'|' | b'>')) {
            let end = self.written.iter().position(|&byte| byte == b'\n');
            self.at = end.map_or(self.written.len(), |end| end + 1);
        }
        while self.written.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }
}
