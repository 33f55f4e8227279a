//! What numbers, durations and strings stand for.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Units in the order in which they may follow each other.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400 * SECOND),
    ("w", 7 * 86_400 * SECOND),
    ("d", 86_400 * SECOND),
    ("h", 3600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", SECOND / 1000),
];
const TOO_LONG: &str = "duration out of range: more than 292 years";

/// The value of a number as Go reads it: `017` is octal, `0x1F` hexadecimal, `1_000` a thousand.
pub(crate) fn number(text: &str) -> Result<f64, &'static str> {
    const NONE: &str = "is no number";
    if text.len() < 16 && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().map(|value| value as f64).map_err(|_| NONE);
    }
    if text.contains('_') && !underscores_fit(text) {
        return Err(NONE);
    }
    let plain = text.replace('_', "");
    if let Some(integer) = integer(&plain) {
        return Ok(integer as f64);
    }
    if plain.eq_ignore_ascii_case("inf") {
        return Ok(f64::INFINITY);
    }
    let value: f64 = plain.parse().map_err(|_| NONE)?;
    if value.is_infinite() {
        return Err("is too large for a number");
    }
    Ok(value)
}

fn integer(text: &str) -> Option<i64> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let is_digit = |character: char| character.is_digit(base);
    digits
        .chars()
        .all(is_digit)
        .then(|| i64::from_str_radix(digits, base).ok())?
}

/// Underscores stand between digits, or between the base and the first digit.
fn underscores_fit(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let is_digit =
        |byte: &u8| byte.is_ascii_digit() || hex && (byte.is_ascii_hexdigit() || byte.eq_ignore_ascii_case(&b'x'));
    let fits = |at: usize| at > 0 && is_digit(&bytes[at - 1]) && bytes.get(at + 1).is_some_and(is_digit);
    (0..bytes.len()).filter(|at| bytes[*at] == b'_').all(fits)
}

/// The seconds of a duration such as `1h30m`.
pub(crate) fn duration(text: &str) -> Result<f64, &'static str> {
    const NONE: &str = "is no duration: units are y, w, d, h, m, s, ms, in this order, each once";
    let (mut rest, mut units, mut total) = (text, &UNITS[..], 0_u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, after) = rest.split_at(digits);
        let count: u64 = count.parse().map_err(|_| NONE)?;
        let length = after
            .bytes()
            .position(|byte| byte.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        let place = units.iter().position(|(name, _)| *name == unit).ok_or(NONE)?;
        let length = count
            .checked_mul(units[place].1)
            .and_then(|length| total.checked_add(length));
        total = length.filter(|total| i64::try_from(*total).is_ok()).ok_or(TOO_LONG)?;
        units = &units[place + 1..];
        rest = after;
    }
    Ok((total / SECOND) as f64 + (total % SECOND) as f64 / SECOND as f64)
}

/// Seconds as nanoseconds, as Go converts them on the machines that Prometheus runs on: what does not fit becomes the
/// least number.
pub(crate) fn nanoseconds(seconds: f64) -> i64 {
    to_i64((seconds * SECOND as f64).round())
}

/// A whole number as Go converts it, with what does not fit as the least number.
pub(crate) fn to_i64(value: f64) -> i64 {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if (-BOUND..BOUND).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// Whether so many seconds are no duration any more.
pub(crate) fn is_out_of_range(seconds: f64) -> bool {
    const LONGEST: f64 = 9_223_372_036.854_776;
    !seconds.is_nan() && !(-LONGEST..=LONGEST).contains(&seconds)
}

/// What is wrong with an escape, and where in the literal.
#[derive(Debug)]
pub(crate) struct BadEscape {
    pub(crate) at: usize,
    pub(crate) message: &'static str,
}

/// The bytes that a literal with escapes stands for. `literal` has its quotes, which are the same on both sides.
pub(crate) fn unescape(literal: &str) -> Result<Vec<u8>, BadEscape> {
    let quote = literal.as_bytes()[0];
    let inner = &literal[1..literal.len() - 1];
    if quote == b'`' {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let bad = |message| BadEscape {
            at: literal.len() - 1 - rest.len() + at,
            message,
        };
        let first = escape.as_bytes().first().copied().unwrap_or_default();
        let plain = match first {
            b'a' => Some(0x07),
            b'b' => Some(0x08),
            b'f' => Some(0x0c),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'v' => Some(0x0b),
            b'\\' => Some(b'\\'),
            byte if byte == quote => Some(quote),
            _ => None,
        };
        if let Some(byte) = plain {
            bytes.push(byte);
            rest = &escape[1..];
            continue;
        }
        let (skip, length, base) = match first {
            b'0'..=b'7' => (0, 3, 8),
            b'x' => (1, 2, 16),
            b'u' => (1, 4, 16),
            b'U' => (1, 8, 16),
            _ => return Err(bad("unknown escape")),
        };
        let digits = escape
            .get(skip..skip + length)
            .filter(|digits| digits.chars().all(|digit| digit.is_digit(base)));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, base).ok());
        let value = value.ok_or_else(|| bad("an escape lacks digits"))?;
        if skip == 0 || length == 2 {
            bytes.push(u8::try_from(value).map_err(|_| bad("an octal escape above \\377"))?);
        } else {
            let character = char::from_u32(value).ok_or_else(|| bad("an escape of what is no character"))?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        rest = &escape[skip + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        for (text, value) in [
            ("0", 0.0),
            ("17", 17.0),
            ("017", 15.0),
            ("018", 18.0),
            ("0x_1F", 31.0),
            ("1_000.5", 1000.5),
            ("1e5_0", 1e50),
            (".5", 0.5),
            ("5.", 5.0),
            ("9223372036854775807", 9.223_372_036_854_776e18),
            ("1e-400", 0.0),
            ("iNf", f64::INFINITY),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan());
        for text in ["1e400", "0x", "0xffffffffffffffffff", "1__0", "1_", "1e", "5hs"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_their_units_in_order() {
        for (text, seconds) in [("1h30m", 5400.0), ("0s", 0.0), ("1y2w3d4h5m6s7ms", 33_019_506.007)] {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        for text in ["5", "m", "1m1h", "1m1m", "5hs", "1.5m", "293y", "18446744073709551616s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        for (literal, bytes) in [
            (r#""a\tb""#, &b"a\tb"[..]),
            (r"'\''", b"'"),
            (r"`\n`", b"\\n"),
            (r#""\x41\101\u0041\U00000041""#, b"AAAA"),
            (r#""\xff\377""#, &[0xff, 0xff]),
            (r#""é\u00e9""#, "éé".as_bytes()),
        ] {
            assert_eq!(unescape(literal).unwrap(), bytes, "{literal}");
        }
        for literal in [
            r#""\'""#,
            r"'\d'",
            r#""\x4""#,
            r#""\400""#,
            r#""\ud800""#,
            r#""\U00110000""#,
            r#""\é""#,
        ] {
            assert_eq!(unescape(literal).unwrap_err().at, 1, "{literal}");
        }
    }
}
