//! Text in a picture: a small part of Markdown - headings, lists, paragraphs, code - and nothing that could load or run
//! anything.

use super::{Chart, nothing};
use crate::area::Area;
use crate::canvas::{Canvas, Type};
use crate::text::wrap;
use crate::theme::Colour;

/// A text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Words {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq)]
struct Line {
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Head,
    Item,
    Plain,
    Gap,
}

/// More lines are not read.
const MOST: usize = 200;
/// Nor more letters of one: looking for the end of each mark takes a look at all that follows.
const LONGEST: usize = 2000;

impl Words {
    /// Text as it is, one paragraph a line.
    pub fn plain(text: &str) -> Self {
        let lines = text.lines().take(MOST).map(|line| Line {
            kind: if line.trim().is_empty() { Kind::Gap } else { Kind::Plain },
            text: line.trim().chars().take(LONGEST).collect(),
        });
        Self { lines: lines.collect() }
    }

    /// Markdown. Marks of emphasis and the addresses of links are left away, tags of HTML too.
    pub fn markdown(text: &str) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let mut joined = false;
        for raw in text.lines().take(MOST) {
            let end = raw.char_indices().nth(LONGEST).map_or(raw.len(), |(at, _)| at);
            let trimmed = raw[..end].trim();
            let (kind, rest) = if let Some(head) = trimmed.strip_prefix('#') {
                (Kind::Head, head.trim_start_matches('#').trim())
            } else if let Some(item) = trimmed.strip_prefix("- ").or_else(|| trimmed.strip_prefix("* ")) {
                (Kind::Item, item)
            } else if trimmed.is_empty() {
                (Kind::Gap, "")
            } else if trimmed.starts_with("```") {
                joined = false;
                continue;
            } else {
                (Kind::Plain, trimmed)
            };
            let text = without_marks(rest);
            match lines.last_mut() {
                // Lines of a paragraph are one.
                Some(last) if joined && kind == Kind::Plain => {
                    last.text.push(' ');
                    last.text.push_str(&text);
                }
                _ => lines.push(Line { kind, text }),
            }
            joined = matches!(kind, Kind::Plain | Kind::Item);
        }
        Self { lines }
    }
}

/// The text of a line of Markdown.
fn without_marks(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['[', '<', '*', '`', '_', '!']) {
        text.push_str(&rest[..at]);
        let from = &rest[at..];
        let link = || {
            let (name, after) = from.strip_prefix('[')?.split_once("](")?;
            let (_, after) = after.split_once(')')?;
            (!name.contains('[')).then_some((name, after))
        };
        let tag = || {
            let (inner, after) = from.strip_prefix('<')?.split_once('>')?;
            let named = inner
                .trim_start_matches('/')
                .starts_with(|c: char| c.is_ascii_alphabetic() || c == '!');
            (named && !inner.contains('<')).then_some(after)
        };
        if let Some((name, after)) = link() {
            text.push_str(name.trim_matches(['*', '`']));
            rest = after;
        } else if let Some(after) = tag() {
            rest = after;
        } else {
            let c = from.chars().next().unwrap_or_default();
            // A mark inside of a word is none.
            let inside = text.ends_with(|c: char| c.is_alphanumeric())
                && from[c.len_utf8()..].starts_with(|c: char| c.is_alphanumeric());
            if !matches!(c, '*' | '`' | '_') || inside {
                text.push(c);
            }
            rest = &from[c.len_utf8()..];
        }
    }
    text.push_str(rest);
    text.trim().to_owned()
}

impl Chart for Words {
    fn describe(&self) -> String {
        let text: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        text.join(" ").trim().chars().take(400).collect()
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        if self.lines.iter().all(|line| line.text.is_empty()) {
            return nothing(canvas, area, "no text");
        }
        let mut y = area.y;
        for line in &self.lines {
            let (size, left, colour) = match line.kind {
                Kind::Head => (15.0, 0.0, Colour::Ink),
                Kind::Item => (12.5, 14.0, Colour::Ink),
                Kind::Plain => (12.5, 0.0, Colour::Ink),
                Kind::Gap => {
                    y += 8.0;
                    continue;
                }
            };
            let high = size * 1.4;
            let free = ((area.bottom() - y) / high).floor().max(0.0) as usize;
            if free == 0 {
                break;
            }
            for (index, words) in wrap(&line.text, size, area.width - left, free).iter().enumerate() {
                if line.kind == Kind::Item && index == 0 {
                    canvas.dot((area.x + 5.0, y + high * 0.6), 2.0, Colour::Soft, "");
                }
                let mut kind = Type::new(size, colour).room(area.width - left);
                if line.kind == Kind::Head {
                    kind = kind.bold();
                }
                canvas.text((area.x + left, y + size * 1.1), kind, words);
                y += high;
            }
        }
    }
}
