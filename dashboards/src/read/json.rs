//! JSON as a tree with the place of everything in the file. Size and depth are limited; a tree of a board has some
//! thousands of nodes. It takes what browsers take and nothing else.

use std::borrow::Cow;
use std::ops::Range;

use super::Unreadable;

/// Bytes of the largest file that is read.
pub const LARGEST: usize = 64 << 20;
/// How deep lists and objects may be in each other; boards are less than twenty deep.
pub const DEEPEST: usize = 128;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its bytes in the file, of a text with its quotes.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text, without its escapes.
    Text(Box<str>),
    /// A list.
    List(Vec<Node>),
    /// An object: its fields in the order of the file, as often as they were written.
    Object(Vec<Field>),
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: Box<str>,
    /// Where the name is, with its quotes.
    pub span: Range<usize>,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A field of an object. Of several with that name the last one counts, as in browsers.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let found = self.fields().iter().rev().find(|field| &*field.name == name);
        found
            .map(|field| &field.value)
            .filter(|value| value.value != Value::Null)
    }

    /// A field of a field and so on.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The fields of an object; none of anything else.
    pub fn fields(&self) -> &[Field] {
        match &self.value {
            Value::Object(fields) => fields,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number.
    pub fn number(&self) -> Option<f64> {
        match self.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Whether it is `true`.
    pub fn is_true(&self) -> bool {
        self.value == Value::Bool(true)
    }

    /// The text of a field.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.get(name)?.text()
    }

    /// The field as a text with its place, when it is one.
    pub fn text_node(&self, name: &str) -> Option<&Self> {
        self.get(name).filter(|node| node.text().is_some())
    }
}

/// Reads a whole file.
pub fn parse(text: &str) -> Result<Node, Unreadable> {
    if text.len() > LARGEST {
        return Err(Unreadable::TooLarge);
    }
    let at = text.len() - text.strip_prefix('\u{feff}').unwrap_or(text).len();
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        at,
    };
    reader.skip();
    let root = reader.value(0)?;
    reader.skip();
    if reader.at < text.len() {
        return Err(reader.wrong("something follows its end", 1));
    }
    Ok(root)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &'static str, length: usize) -> Unreadable {
        // What is wrong may be one byte of a character.
        let start = self.text.floor_char_boundary(self.at);
        let end = self.text.ceil_char_boundary(self.at + length);
        Unreadable::NotJson { what, span: start..end }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node, Unreadable> {
        if depth > DEEPEST {
            return Err(self.wrong("it is nested too deep", 1));
        }
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(_) => return Err(self.wrong("a value is expected here", 1)),
            None => return Err(self.wrong("it ends in the middle", 0)),
        };
        Ok(Node {
            span: start..self.at,
            value,
        })
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, Unreadable> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong("a value is expected here", 1));
        }
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value, Unreadable> {
        self.at += 1;
        let mut fields = Vec::new();
        self.skip();
        if self.take(b'}') {
            return Ok(Value::Object(fields));
        }
        loop {
            self.skip();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong("the name of a field is expected here", 1));
            }
            let name = self.string()?;
            let span = start..self.at;
            self.skip();
            if !self.take(b':') {
                return Err(self.wrong("a colon is expected here", 1));
            }
            self.skip();
            let value = self.value(depth + 1)?;
            fields.push(Field { name, span, value });
            self.skip();
            if self.take(b'}') {
                return Ok(Value::Object(fields));
            }
            if !self.take(b',') {
                return Err(self.wrong("a comma or the end of the object is expected here", 1));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Unreadable> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            self.skip();
            items.push(self.value(depth + 1)?);
            self.skip();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.wrong("a comma or the end of the list is expected here", 1));
            }
        }
    }

    fn number(&mut self) -> Result<Value, Unreadable> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let zero_first = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let plain =
            digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('.') && !digits.contains(".e");
        match text.parse::<f64>() {
            Ok(number) if plain && !zero_first => Ok(Value::Number(number)),
            _ => {
                let length = self.at - start;
                self.at = start;
                Err(self.wrong("this is not a number", length))
            }
        }
    }

    fn string(&mut self) -> Result<Box<str>, Unreadable> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(b'\\') => match unescape(&self.text[self.at..]) {
                    Some((_, length)) => self.at += length,
                    None => return Err(self.wrong("this is not an escape", 2)),
                },
                Some(byte) if byte < 0x20 => return Err(self.wrong("a control character stands in a text", 1)),
                Some(_) => self.at += 1,
                None => {
                    self.at = start;
                    return Err(self.wrong("this text has no end", 1));
                }
            }
        }
        Ok(decode(&self.text[start + 1..self.at - 1]).into())
    }
}

/// The character of the escape at the beginning of `raw`, and its length there. Half of a pair stands for nothing.
fn unescape(raw: &str) -> Option<(char, usize)> {
    let bytes = raw.as_bytes();
    let simple = match bytes.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let high = hex(bytes.get(2..6)?)?;
            let low = bytes.get(6..12).filter(|rest| rest.starts_with(b"\\u"));
            let low = low
                .and_then(|rest| hex(&rest[2..]))
                .filter(|low| (0xdc00..0xe000).contains(low));
            return match (high, low) {
                (0xd800..=0xdbff, Some(low)) => {
                    let point = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    Some((char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), 12))
                }
                _ => Some((char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 6)),
            };
        }
        _ => return None,
    };
    Some((simple, 2))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    pieces(raw, |_, piece| out.push_str(piece));
    Cow::Owned(out)
}

/// Calls for every piece of a text with the bytes that it was written with.
fn pieces(raw: &str, mut each: impl FnMut(Range<usize>, &str)) {
    let mut at = 0;
    while at < raw.len() {
        let plain = raw[at..].find('\\').map_or(raw.len(), |found| at + found);
        if plain > at {
            each(at..plain, &raw[at..plain]);
            at = plain;
        } else if let Some((character, length)) = unescape(&raw[at..]) {
            each(at..at + length, character.encode_utf8(&mut [0; 4]));
            at += length;
        } else {
            return;
        }
    }
}

/// The bytes of the file that a part of a text comes from.
pub fn inside(file: &str, text: &Node, range: Range<usize>) -> Range<usize> {
    let start = text.span.start + 1;
    let Some(raw) = file.get(start..text.span.end.saturating_sub(1)) else {
        return text.span.clone();
    };
    let (mut decoded, mut from, mut to) = (0, None, None);
    pieces(raw, |span, piece| {
        let end = decoded + piece.len();
        // Inside of a plain piece bytes are bytes; an escape is one whole.
        let place = |offset: usize, whole: usize| {
            if span.len() == piece.len() {
                span.start + (offset - decoded)
            } else {
                whole
            }
        };
        if from.is_none() && range.start < end {
            from = Some(place(range.start.max(decoded), span.start));
        }
        if range.end > decoded && range.end <= end {
            to = Some(place(range.end, span.end));
        }
        decoded = end;
    });
    let from = start + from.unwrap_or(raw.len());
    let to = start + to.unwrap_or(if range.end == 0 { 0 } else { raw.len() });
    from..to.max(from)
}
