//! What may follow a backslash.

use super::{Part, Refusal, class};

const INVALID: Refusal = "invalid escape";

/// Outside of brackets: reads what follows the backslash, hands on what it stands for, and returns the rest.
pub(super) fn outside(text: &str, mut push: impl FnMut(Part)) -> Result<&str, Refusal> {
    let rest = |length: usize| Ok(&text[length..]);
    match text.as_bytes().first() {
        Some(b'A' | b'z' | b'B') => {
            push(Part::EMPTY);
            rest(1)
        }
        Some(b'b') => {
            push(Part::WORD_BOUNDARY);
            rest(1)
        }
        Some(b'Q') => {
            let (literal, after) = text[1..].split_once(r"\E").unwrap_or((&text[1..], ""));
            literal.chars().for_each(|_| push(Part::CHARACTER));
            Ok(after)
        }
        Some(b'p' | b'P') => {
            push(Part::CLASS);
            class::named(&text[1..])
        }
        Some(b'd' | b'D' | b's' | b'S' | b'w' | b'W') => {
            push(Part::CLASS);
            rest(1)
        }
        _ => {
            push(Part::CHARACTER);
            character(text).map(|(_, rest)| rest)
        }
    }
}

/// A single character: what it is, and the rest.
pub(super) fn character(text: &str) -> Result<(char, &str), Refusal> {
    let mut characters = text.chars();
    let character = characters.next().ok_or("a backslash at the end")?;
    let rest = characters.as_str();
    let plain = |character| Ok((character, rest));
    match character {
        '1'..='7' if !rest.starts_with(|digit| matches!(digit, '0'..='7')) => Err(INVALID),
        '0'..='7' => {
            let more = rest
                .bytes()
                .take(2)
                .take_while(|byte| matches!(byte, b'0'..=b'7'))
                .count();
            let value = u32::from_str_radix(&text[..=more], 8).ok().and_then(char::from_u32);
            value.map(|value| (value, &rest[more..])).ok_or(INVALID)
        }
        'x' if rest.starts_with('{') => {
            let (digits, after) = rest[1..].split_once('}').ok_or(INVALID)?;
            scalar(digits.trim_start_matches('0'), !digits.is_empty()).map(|value| (value, after))
        }
        'x' => {
            let digits = rest.get(..2).ok_or(INVALID)?;
            scalar(digits, true).map(|value| (value, &rest[2..]))
        }
        'a' => plain('\x07'),
        'f' => plain('\x0c'),
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'v' => plain('\x0b'),
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => plain(other),
        _ => Err(INVALID),
    }
}

/// A character by its number in hexadecimal. Go takes surrogates too; they match nothing, but stand for something in a
/// range, where their neighbour below all else does as well.
fn scalar(digits: &str, any: bool) -> Result<char, Refusal> {
    let hexadecimal = any && digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = match digits {
        "" => Some(0),
        digits => u32::from_str_radix(digits, 16).ok(),
    };
    let value = value
        .filter(|value| hexadecimal && *value <= 0x0010_ffff)
        .ok_or(INVALID)?;
    Ok(char::from_u32(value).unwrap_or('\u{d7ff}'))
}
