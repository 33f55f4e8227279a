//! File names in trees: any bytes, written the way Go's `strconv.Quote` writes them, which is what restic stores.
//!
//! Reading takes everything that Go's `strconv.Unquote` takes, so that names written by restic come back byte by byte.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The quoted form of a name, without the quotes.
pub(crate) fn quote(name: &OsStr) -> String {
    let mut quoted = String::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x0b' => quoted.push_str("\\v"),
                '\0'..='\x1f' | '\x7f' => push(&mut quoted, format_args!("\\x{:02x}", u32::from(character))),
                // Go escapes what it cannot print; the replacement character would be taken for a decoding error.
                '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{fffd}' | '\u{feff}' => {
                    push(&mut quoted, format_args!("\\u{:04x}", u32::from(character)));
                }
                other => quoted.push(other),
            }
        }
        for byte in chunk.invalid() {
            push(&mut quoted, format_args!("\\x{byte:02x}"));
        }
    }
    quoted
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(piece);
}

/// The name that a quoted form stands for; `None` where Go would refuse it.
pub(crate) fn unquote(quoted: &str) -> Option<OsString> {
    if !quoted.contains(['\\', '"', '\n']) {
        return Some(quoted.into());
    }
    let mut name = Vec::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' | '\n' => return None,
            '\\' => unescape(&mut rest, &mut name)?,
            other => name.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(OsString::from_vec(name))
}

/// What follows a backslash.
fn unescape(rest: &mut std::str::Chars<'_>, name: &mut Vec<u8>) -> Option<()> {
    let kind = rest.next()?;
    let mut number = |first: u32, digits: usize, radix: u32| {
        (0..digits).try_fold(first, |value, _| {
            value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)
        })
    };
    match kind {
        'a' => name.push(0x07),
        'b' => name.push(0x08),
        'f' => name.push(0x0c),
        'n' => name.push(b'\n'),
        'r' => name.push(b'\r'),
        't' => name.push(b'\t'),
        'v' => name.push(0x0b),
        '\\' => name.push(b'\\'),
        '"' => name.push(b'"'),
        'x' => name.push(u8::try_from(number(0, 2, 16)?).ok()?),
        '0'..='7' => name.push(u8::try_from(number(kind.to_digit(8)?, 2, 8)?).ok()?),
        'u' | 'U' => {
            let character = char::from_u32(number(0, if kind == 'u' { 4 } else { 8 }, 16)?)?;
            name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_written_as_go_writes_them() {
        for (name, quoted) in [
            (&b"plain.txt"[..], "plain.txt"),
            (b"two\nlines", "two\\nlines"),
            (b"latin-\xe9", "latin-\\xe9"),
            ("gr\u{fc}n \u{1f600}".as_bytes(), "gr\u{fc}n \u{1f600}"),
            (b"a\"b\\c", "a\\\"b\\\\c"),
            (b"\x01\x7f\x07", "\\x01\\x7f\\a"),
        ] {
            assert_eq!(quote(OsStr::from_bytes(name)), quoted);
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in [
            "\\",
            "\\q",
            "\\x4",
            "\\xzz",
            "\\ud800",
            "\\U00110000",
            "\\400",
            "a\"b",
            "a\nb",
        ] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
        assert_eq!(unquote("\\101\\u00e9\\U0001f600"), Some("A\u{e9}\u{1f600}".into()));
    }

    proptest! {
        #[test]
        fn every_name_survives(name in proptest::collection::vec(any::<u8>(), 0..64)) {
            let name = OsString::from_vec(name);
            prop_assert_eq!(unquote(&quote(&name)), Some(name));
        }
    }
}
