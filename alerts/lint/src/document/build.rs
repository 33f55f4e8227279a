//! The tree from the parser's events, with limits on what a file may unfold to.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ScalarStyle};

use super::{Documents, Node, Style, Unreadable, Value};

/// What a file may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Maps and lists inside of each other.
    pub depth: usize,
    /// Values, those that aliases stand for counted as often as they are used.
    pub values: usize,
}

/// Limits that every file of rules or boards keeps by far.
pub const LIMITS: Limits = Limits {
    bytes: 32 << 20,
    depth: 64,
    values: 2_000_000,
};

/// Reads all documents of `text`.
pub fn read(text: &str, limits: Limits) -> Result<Documents, Unreadable> {
    if text.len() > limits.bytes {
        let what = format!(
            "the file has {} MB; {} MB are read at most",
            text.len() >> 20,
            limits.bytes >> 20
        );
        return Err(Unreadable { what, at: 0 });
    }
    let mut text = Cow::Borrowed(text);
    let mut rereads = REREADS / text.len().max(1);
    loop {
        match documents(&text, limits) {
            Err(Refused::Unindented(unreadable)) => match joined(&text, unreadable.at) {
                Some(whole) if rereads > 0 => text = Cow::Owned(whole),
                _ => return Err(unreadable),
            },
            Err(Refused::Unreadable(unreadable)) => return Err(unreadable),
            Ok(documents) => return Ok(documents),
        }
        rereads -= 1;
    }
}

/// How many bytes are read again for lines of quoted text that are not indented.
const REREADS: usize = 32 << 20;

/// Why a text is refused.
enum Refused {
    /// A line of quoted text is not indented. Go's parser takes it, and so Prometheus does.
    Unindented(Unreadable),
    /// For anything else.
    Unreadable(Unreadable),
}

impl From<Unreadable> for Refused {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

fn documents(text: &str, limits: Limits) -> Result<Documents, Refused> {
    let mut builder = Builder::new(text, limits);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
            // The parser's sentence ends with the place, which is told apart from it.
            let whole = error.to_string();
            let what = whole.split(" at char ").next().unwrap_or(&whole).to_owned();
            let unreadable = Unreadable { what, at };
            match error.kind() {
                ErrorKind::InvalidQuotedScalarIndent => Refused::Unindented(unreadable),
                _ => Refused::Unreadable(unreadable),
            }
        })?;
        builder.event(event, span.byte_range().unwrap_or(0..0))?;
    }
    Ok(Documents {
        documents: builder.documents,
        comments: builder.comments,
    })
}

/// The text with the line of `at` behind the one before, every byte where it was: a line's end in quoted text is a blank.
fn joined(text: &str, at: usize) -> Option<String> {
    let end = text.get(..at)?.rfind('\n')?;
    let start = if text[..end].ends_with('\r') { end - 1 } else { end };
    let mut whole = text.to_owned();
    whole.replace_range(start..=end, &" ".repeat(end - start + 1));
    Some(whole)
}

/// A map or list that is not closed yet.
struct Open {
    start: usize,
    end: usize,
    anchor: usize,
    children: Vec<Node>,
    is_map: bool,
}

struct Builder<'a> {
    text: &'a str,
    limits: Limits,
    values: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    documents: Vec<Node>,
    comments: Vec<Range<usize>>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, limits: Limits) -> Self {
        Self {
            text,
            limits,
            values: 0,
            open: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            comments: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), Unreadable> {
        match event {
            Event::Comment(..) => self.comments.push(span),
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, _) => {
                let text = if span.is_empty() {
                    String::new()
                } else {
                    text.into_owned()
                };
                let span = if span.is_empty() {
                    self.left_out(span)
                } else {
                    self.trimmed(span)
                };
                let style = style_of(style);
                self.count(1, span.start)?;
                let value = Value::Scalar { text, style };
                self.place(Node { span, value }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => self.begin(span, anchor, false)?,
            Event::MappingStart(_, anchor, _) => self.begin(span, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => self.end(span)?,
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (node, size) = known.ok_or_else(|| Unreadable {
                    what: "the alias stands inside of what it is an alias of".to_owned(),
                    at: span.start,
                })?;
                self.count(size, span.start)?;
                self.place(node, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, span: Range<usize>, anchor: usize, is_map: bool) -> Result<(), Unreadable> {
        self.count(1, span.start)?;
        if self.open.len() >= self.limits.depth {
            let what = format!("maps and lists are nested more than {} deep", self.limits.depth);
            return Err(Unreadable { what, at: span.start });
        }
        self.open.push(Open {
            start: span.start,
            end: span.end,
            anchor,
            children: Vec::new(),
            is_map,
        });
        Ok(())
    }

    fn end(&mut self, span: Range<usize>) -> Result<(), Unreadable> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        // A block ends with its last value, a flow collection with its bracket.
        let end = if span.is_empty() { open.end } else { span.end };
        let value = if open.is_map {
            Value::Map(entries(open.children)?)
        } else {
            Value::List(open.children)
        };
        let span = open.start..end;
        self.place(Node { span, value }, open.anchor)
    }

    /// Puts a whole node where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Unreadable> {
        if anchor > 0 {
            let size = size(&node);
            // What an anchor keeps is a copy.
            self.count(size, node.span.start)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(open) => {
                open.end = open.end.max(node.span.end);
                open.children.push(node);
            }
        }
        Ok(())
    }

    fn count(&mut self, values: usize, at: usize) -> Result<(), Unreadable> {
        self.values += values;
        if self.values > self.limits.values {
            let what = format!("the file unfolds to more than {} values", self.limits.values);
            return Err(Unreadable { what, at });
        }
        Ok(())
    }

    /// Where a value is that is left out: behind the colon, so that it ends what it is the last of.
    fn left_out(&self, span: Range<usize>) -> Range<usize> {
        let of_map = self
            .open
            .last()
            .filter(|open| open.is_map && open.children.len() % 2 == 1);
        let key = of_map.and_then(|open| open.children.last());
        let behind = key.and_then(|key| {
            let rest = self.text.get(key.span.end..)?;
            let after = rest.trim_start().strip_prefix(':')?;
            Some(self.text.len() - after.len())
        });
        // The key may be an alias, and stand elsewhere.
        behind.filter(|at| *at >= span.start).map_or(span, |at| at..at)
    }

    fn trimmed(&self, span: Range<usize>) -> Range<usize> {
        let text = self.text.get(span.clone()).unwrap_or_default();
        span.start..span.start + text.trim_end().len()
    }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
        ScalarStyle::Plain => Style::Plain,
    }
}

/// How many values a node holds, itself among them. Depth is limited, so the recursion is.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        // Long text is as much as many short values.
        Value::Scalar { text, .. } => text.len() / 64,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| size(key) + size(value)).sum(),
    }
}

/// Keys and values in turn as a map: no key twice, merge keys (`<<`) unfolded behind the map's own.
fn entries(children: Vec<Node>) -> Result<Vec<(Node, Node)>, Unreadable> {
    let mut out: Vec<(Node, Node)> = Vec::with_capacity(children.len() / 2);
    let mut merged: Vec<Node> = Vec::new();
    let mut children = children.into_iter();
    let mut seen: HashSet<String> = HashSet::new();
    while let (Some(key), Some(value)) = (children.next(), children.next()) {
        let is_merge = matches!(&key.value, Value::Scalar { text, style: Style::Plain } if text == "<<");
        if is_merge {
            match value.value {
                Value::List(items) => merged.extend(items),
                _ => merged.push(value),
            }
            continue;
        }
        let Some(name) = key.text() else {
            let what = format!("{} is used as a key", key.kind());
            return Err(Unreadable {
                what,
                at: key.span.start,
            });
        };
        if !seen.insert(name.to_owned()) {
            let what = format!("the key `{name}` is there twice");
            return Err(Unreadable {
                what,
                at: key.span.start,
            });
        }
        out.push((key, value));
    }
    for node in merged {
        let at = node.span.start;
        let Value::Map(entries) = node.value else {
            let what = "a merge key takes a map or a list of maps".to_owned();
            return Err(Unreadable { what, at });
        };
        for (key, value) in entries {
            if seen.insert(key.text().unwrap_or_default().to_owned()) {
                out.push((key, value));
            }
        }
    }
    Ok(out)
}
