//! Cuts a text into tokens, each a kind and a place. What it remembers is what Prometheus' own lexer remembers: whether
//! a brace or bracket is open, and what was seen in the bracket; some texts are refused for that alone.

mod number;
mod token;

pub(crate) use token::{Keyword, Token, TokenKind};

use crate::{span::Span, variable::variable_at};

/// Classes of bytes, one bit each.
const ALPHA: u8 = 1;
const DIGIT: u8 = 2;
const SPACE: u8 = 4;
/// What ends the fast way through a string: quotes, escapes, line ends, and the first byte of U+FFFD.
const STRING_STOP: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => ALPHA,
            b'0'..=b'9' => DIGIT,
            b'\n' => SPACE | STRING_STOP,
            b' ' | b'\t' | b'\r' => SPACE,
            b'"' | b'\'' | b'`' | b'\\' | 0xef => STRING_STOP,
            _ => 0,
        };
        byte += 1;
    }
    classes
}

pub(crate) const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) span: Span,
    pub(crate) message: String,
}

/// The lexer of one text.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Whether Grafana's variables are known.
    variables: bool,
    /// How many parentheses are open.
    parens: u32,
    brace_open: bool,
    bracket_open: bool,
    /// Whether the bracket was opened and nothing but durations may come: until the first number.
    in_duration: bool,
    got_colon: bool,
    /// Whether a number came in any bracket so far. Prometheus never forgets it, and refuses `a[step():1m]` only before.
    got_duration: bool,
    /// Where comments are.
    pub(crate) comments: Vec<Span>,
    /// Why the last token is [`TokenKind::Error`].
    pub(crate) refusal: Option<Refusal>,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, variables: bool) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            variables,
            parens: 0,
            brace_open: false,
            bracket_open: false,
            in_duration: false,
            got_colon: false,
            got_duration: false,
            comments: Vec::new(),
            refusal: None,
        }
    }

    /// The next token. After the end there is only the end.
    pub(crate) fn next(&mut self) -> Token {
        self.skip_blanks();
        let start = self.at;
        let kind = if start == self.bytes.len() {
            self.end()
        } else if self.brace_open {
            self.in_braces()
        } else if self.in_duration {
            self.in_brackets()
        } else {
            self.in_expression()
        };
        Token {
            kind,
            span: Span::new(start as u32, self.at as u32),
        }
    }

    /// Steps over blanks and comments. In a bracket, comments come only after the first number.
    fn skip_blanks(&mut self) {
        loop {
            while self.peek().is_some_and(|byte| is(byte, SPACE)) {
                self.at += 1;
            }
            if self.peek() != Some(b'#') || self.in_duration && !self.brace_open {
                return;
            }
            let start = self.at;
            let line = self.bytes[start..]
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r'));
            self.at = line.map_or(self.bytes.len(), |length| start + length);
            self.comments.push(Span::new(start as u32, self.at as u32));
        }
    }

    fn end(&mut self) -> TokenKind {
        if self.brace_open {
            return self.refuse(self.at, "the brace is not closed".to_owned());
        }
        if self.parens != 0 {
            return self.refuse(self.at, "a parenthesis is not closed".to_owned());
        }
        if self.bracket_open {
            return self.refuse(self.at, "the bracket is not closed".to_owned());
        }
        TokenKind::End
    }

    fn in_expression(&mut self) -> TokenKind {
        let start = self.at;
        let byte = self.bytes[start];
        if is(byte, ALPHA) || byte == b':' {
            return if self.bracket_open {
                self.after_duration()
            } else {
                self.word()
            };
        }
        if is(byte, DIGIT) || byte == b'.' && self.digit_follows() {
            return self.number();
        }
        if let Some(kind) = self.template() {
            return kind;
        }
        self.at += 1;
        match byte {
            b'"' | b'\'' | b'`' => self.string(byte),
            b'{' => {
                self.brace_open = true;
                TokenKind::LeftBrace
            }
            b'[' if self.bracket_open => self.refuse(start, "a bracket inside of a bracket".to_owned()),
            b'[' => {
                self.bracket_open = true;
                self.in_duration = true;
                self.got_colon = false;
                TokenKind::LeftBracket
            }
            b']' if !self.bracket_open => self.refuse(start, "`]` closes nothing".to_owned()),
            b']' => {
                self.bracket_open = false;
                TokenKind::RightBracket
            }
            b'@' => TokenKind::At,
            b'=' if self.eat(b'=') => TokenKind::EqualEqual,
            b'=' => TokenKind::Equal,
            b'!' if self.eat(b'=') => TokenKind::NotEqual,
            b'<' if self.eat(b'=') => TokenKind::LessOrEqual,
            b'<' if self.eat(b'/') => TokenKind::TrimUpper,
            b'<' => TokenKind::Less,
            b'>' if self.eat(b'=') => TokenKind::GreaterOrEqual,
            b'>' if self.eat(b'/') => TokenKind::TrimLower,
            b'>' => TokenKind::Greater,
            _ => self.sign(byte, start),
        }
    }

    /// In a bracket, until the first number or variable.
    fn in_brackets(&mut self) -> TokenKind {
        let start = self.at;
        let byte = self.bytes[start];
        if is(byte, DIGIT) || byte == b'.' && self.digit_follows() {
            self.got_duration = true;
            self.in_duration = false;
            return self.number();
        }
        if matches!(byte | 0x20, b's' | b'r' | b'm') {
            return self.duration_word();
        }
        if let Some(kind) = self.template() {
            self.got_duration = true;
            self.in_duration = false;
            return kind;
        }
        self.at += 1;
        match byte {
            b']' => {
                self.bracket_open = false;
                self.in_duration = false;
                self.got_colon = false;
                TokenKind::RightBracket
            }
            b':' if !self.got_duration => self.refuse(start, "a colon before any duration".to_owned()),
            b':' => self.colon(start),
            _ => self.sign(byte, start),
        }
    }

    /// A word or colon in a bracket, after a number.
    fn after_duration(&mut self) -> TokenKind {
        let start = self.at;
        if self.bytes[start] == b':' {
            self.at += 1;
            return self.colon(start);
        }
        self.duration_word()
    }

    fn colon(&mut self, start: usize) -> TokenKind {
        if self.got_colon {
            return self.refuse(start, "a second colon in the bracket".to_owned());
        }
        self.got_colon = true;
        TokenKind::Colon
    }

    /// `step`, `range`, `min_of` or `max_of`: the only words in a bracket.
    fn duration_word(&mut self) -> TokenKind {
        let start = self.at;
        while self.peek().is_some_and(|byte| is(byte, ALPHA)) {
            self.at += 1;
        }
        let kind = token::keyword(&self.bytes[start..self.at]);
        if let Some(TokenKind::Keyword(Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf)) = kind {
            return kind.unwrap_or(TokenKind::End);
        }
        let word = &self.text[start..self.at];
        self.refuse(start, format!("`{word}` in a bracket, where durations are expected"))
    }

    /// A sign that means the same in brackets and outside.
    fn sign(&mut self, byte: u8, start: usize) -> TokenKind {
        match byte {
            b'(' => {
                self.parens += 1;
                TokenKind::LeftParen
            }
            b')' if self.parens == 0 => self.refuse(start, "`)` closes nothing".to_owned()),
            b')' => {
                self.parens -= 1;
                TokenKind::RightParen
            }
            b',' => TokenKind::Comma,
            b'+' => TokenKind::Add,
            b'-' => TokenKind::Sub,
            b'*' => TokenKind::Mul,
            b'/' => TokenKind::Div,
            b'%' => TokenKind::Mod,
            b'^' => TokenKind::Pow,
            _ => self.refuse_character(start),
        }
    }

    fn in_braces(&mut self) -> TokenKind {
        let start = self.at;
        let byte = self.bytes[start];
        if is(byte, ALPHA) {
            self.skip(ALPHA | DIGIT);
            return self.template_from(start).unwrap_or(TokenKind::Identifier);
        }
        if let Some(kind) = self.template() {
            return kind;
        }
        self.at += 1;
        match byte {
            b',' => TokenKind::Comma,
            b'"' | b'\'' | b'`' => self.string(byte),
            b'=' if self.eat(b'~') => TokenKind::EqualRegex,
            b'=' => TokenKind::Equal,
            b'!' if self.eat(b'~') => TokenKind::NotRegex,
            b'!' if self.eat(b'=') => TokenKind::NotEqual,
            b'}' => {
                self.brace_open = false;
                TokenKind::RightBrace
            }
            b'{' => self.refuse(start, "a brace inside of a brace".to_owned()),
            _ => self.refuse_character(start),
        }
    }

    /// A keyword or a name.
    fn word(&mut self) -> TokenKind {
        let start = self.at;
        self.skip(ALPHA | DIGIT);
        let mut kind = TokenKind::Identifier;
        while self.eat(b':') {
            kind = TokenKind::MetricIdentifier;
            self.skip(ALPHA | DIGIT);
        }
        if let Some(template) = self.template_from(start) {
            return template;
        }
        if kind == TokenKind::MetricIdentifier {
            return kind;
        }
        match token::keyword(&self.bytes[start..self.at]) {
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.parenthesis_follows() =>
            {
                kind
            }
            Some(keyword) => keyword,
            None => kind,
        }
    }

    /// A text in quotes; the first quote is behind. What escapes mean is looked at later.
    fn string(&mut self, quote: u8) -> TokenKind {
        let start = self.at - 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if !is(byte, STRING_STOP) {
                continue;
            }
            match byte {
                byte if byte == quote => return TokenKind::String,
                b'\\' if quote != b'`' => self.at = (self.at + 1).min(self.bytes.len()),
                b'\n' if quote != b'`' => break,
                0xef if self.bytes[self.at..].starts_with(&[0xbf, 0xbd]) => {
                    self.at += 2;
                    let at = self.at - 3;
                    return self.refuse(at, "U+FFFD in a string stands for what is no UTF-8".to_owned());
                }
                _ => {}
            }
        }
        self.refuse(start, "the string is not closed".to_owned())
    }

    /// A number or a duration.
    fn number(&mut self) -> TokenKind {
        let start = self.at;
        if self.variables {
            self.skip(ALPHA | DIGIT);
            if let Some(template) = self.template_from(start) {
                return template;
            }
            self.at = start;
        }
        let (kind, length) = number::scan(&self.bytes[start..]);
        self.at += length;
        if let Some(kind) = kind {
            return kind;
        }
        // What follows may be the rest of a character.
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        self.refuse(start, format!("`{text}` is neither a number nor a duration"))
    }

    /// A variable with what stands close to it, when one begins here.
    fn template(&mut self) -> Option<TokenKind> {
        self.template_from(self.at)
    }

    /// The same, when a word from `start` on is behind.
    fn template_from(&mut self, start: usize) -> Option<TokenKind> {
        if !self.variables || !matches!(self.peek(), Some(b'$' | b'[')) {
            return None;
        }
        let mut found = false;
        loop {
            match self.peek() {
                Some(b'$' | b'[') => match variable_at(self.text, self.at) {
                    Some(variable) => {
                        found = true;
                        self.at = variable.span.end as usize;
                    }
                    None => break,
                },
                Some(b':') if self.brace_open || self.bracket_open => break,
                Some(byte) if is(byte, ALPHA | DIGIT) || byte == b':' => self.at += 1,
                _ => break,
            }
        }
        if !found {
            // A bracket after a name.
            debug_assert!(start <= self.at);
            return None;
        }
        Some(TokenKind::Template)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn skip(&mut self, class: u8) {
        while self.peek().is_some_and(|byte| is(byte, class)) {
            self.at += 1;
        }
    }

    fn digit_follows(&self) -> bool {
        self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit)
    }

    fn parenthesis_follows(&self) -> bool {
        self.bytes[self.at..].iter().find(|byte| !is(**byte, SPACE)) == Some(&b'(')
    }

    fn refuse_character(&mut self, start: usize) -> TokenKind {
        let character = self.text[start..].chars().next().unwrap_or_default();
        self.at = start + character.len_utf8();
        let place = if self.brace_open {
            " between braces"
        } else if self.bracket_open {
            " between brackets"
        } else {
            ""
        };
        self.refuse(start, format!("unexpected character {character:?}{place}"))
    }

    fn refuse(&mut self, start: usize, message: String) -> TokenKind {
        let span = Span::new(start as u32, self.at as u32);
        self.refusal = Some(Refusal { span, message });
        TokenKind::Error
    }
}
