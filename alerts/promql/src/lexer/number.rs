//! Where a number or a duration ends. What is cut out here need not be one: `0x` and `5hs` are found out later.

use super::{ALPHA, DIGIT, TokenKind, is};

/// What begins with the digit or dot at the beginning of `bytes`, and how long it is; nothing where it is broken.
pub(super) fn scan(bytes: &[u8]) -> (Option<TokenKind>, usize) {
    // Most numbers are a few digits.
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if bytes[0] != b'0' && !bytes.get(digits).is_some_and(|byte| is(*byte, ALPHA) || *byte == b'.') {
        return (Some(TokenKind::Number), digits);
    }
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.number() {
        return (Some(TokenKind::Number), cursor.at);
    }
    // What was taken as a number stays behind, however it ended.
    let found = cursor.duration().then_some(TokenKind::Duration);
    (found, cursor.at)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Prometheus takes more for a number here than becomes one, and takes `e` for an exponent in hexadecimal ones too.
    fn number(&mut self) -> bool {
        let hex = self.take(b"0") && self.take(b"xX");
        if hex {
            self.take(b"_");
        }
        let is_digit = |byte: u8| byte.is_ascii_digit() || hex && byte.is_ascii_hexdigit();
        self.take(b".");
        if self.peek().is_some_and(is_digit) {
            self.at += 1;
        }
        let (mut dotted, mut raised) = (false, false);
        while let Some(byte) = self.peek() {
            match byte {
                b'.' => {
                    self.at += 1;
                    if dotted || self.take(b"_.") || hex {
                        return false;
                    }
                    dotted = true;
                }
                b'e' | b'E' => {
                    self.at += 1;
                    if raised {
                        return false;
                    }
                    raised = true;
                    self.take(b"+-");
                    if self.take(b"._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                b'_' => {
                    self.at += 1;
                    if self.take(b"._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                byte if is_digit(byte) => {
                    while self.peek().is_some_and(is_digit) {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
        self.ends()
    }

    fn duration(&mut self) -> bool {
        if !self.take(b"smhdwy") {
            return false;
        }
        self.take(b"s");
        while self.take(b"0123456789") {
            while self.take(b"0123456789") {}
            if !self.take(b"smhdw") {
                return false;
            }
            self.take(b"s");
        }
        self.ends()
    }

    fn ends(&self) -> bool {
        !self.peek().is_some_and(|byte| is(byte, ALPHA | DIGIT))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, any: &[u8]) -> bool {
        let taken = self.peek().is_some_and(|byte| any.contains(&byte));
        self.at += usize::from(taken);
        taken
    }
}
