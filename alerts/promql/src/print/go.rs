//! Numbers, durations and texts as Go and Prometheus write them.

use std::fmt::Write as _;

/// A number without exponent: `0.001`, `+Inf`.
pub fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

/// A number with an exponent where it would be long: `1e+21`.
pub(super) fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return number(value);
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..21).contains(&exponent) {
        return number(value);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Nanoseconds in the largest units that fit: `1h30m`, `90d`. What is shorter than a millisecond is dropped.
pub fn duration(nanoseconds: i64) -> String {
    const UNITS: [(&str, u64, bool); 7] = [
        // Years and weeks only where nothing remains: 90d is easier to read than 12w6d.
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ];
    let whole = nanoseconds / 1_000_000;
    let mut rest = whole.unsigned_abs();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = if whole < 0 { "-".to_owned() } else { String::new() };
    for (unit, length, exactly) in UNITS {
        let count = rest / length;
        if count > 0 && !(exactly && !rest.is_multiple_of(length)) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{count}{unit}");
            rest %= length;
        }
    }
    text
}

/// A text in double quotes, with escapes for what cannot be printed and for bytes that are no UTF-8.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                ' '..='~' => text.push(character),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                character if is_printable(character) => text.push(character),
                character => {
                    let code = u32::from(character);
                    let _ = match code {
                        0..0x80 => write!(text, "\\x{code:02x}"),
                        0x80..0x1_0000 => write!(text, "\\u{code:04x}"),
                        _ => write!(text, "\\U{code:08x}"),
                    };
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// Whether a character that is not ASCII shows: a letter, mark, number, sign or symbol.
fn is_printable(character: char) -> bool {
    // Behind another character, the standard library escapes what does not show and nothing else.
    let mut buffer = [b'a'; 5];
    let length = character.encode_utf8(&mut buffer[1..]).len();
    let pair = std::str::from_utf8(&buffer[..=length]).unwrap_or_default();
    !character.is_ascii() && pair.escape_debug().nth(1) == Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, plain, short) in [
            (5.0, "5", "5"),
            (-0.5, "-0.5", "-0.5"),
            (1e21, "1000000000000000000000", "1e+21"),
            (1e-5, "0.00001", "1e-05"),
            (f64::INFINITY, "+Inf", "+Inf"),
        ] {
            assert_eq!((number(value).as_str(), shortest(value).as_str()), (plain, short));
        }
        assert_eq!(number(f64::NAN), "NaN");
    }

    #[test]
    fn durations_have_their_largest_units() {
        for (milliseconds, text) in [
            (0, "0s"),
            (5_400_000, "1h30m"),
            (90 * 86_400_000, "90d"),
            (14 * 86_400_000, "2w"),
            (365 * 86_400_000, "1y"),
            (-1, "-1ms"),
        ] {
            assert_eq!(duration(milliseconds * 1_000_000), text);
        }
    }

    #[test]
    fn what_does_not_show_is_escaped() {
        for (bytes, text) in [
            (&b"a\"\\\n\x01\x7f"[..], r#""a\"\\\n\x01\x7f""#),
            ("é\u{301}\u{a0}\u{200b}😀".as_bytes(), "\"é\u{301}\\u00a0\\u200b😀\""),
            (b"\xff\x80a", r#""\xff\x80a""#),
        ] {
            assert_eq!(quote(bytes), text);
        }
    }
}
