//! Text as JSON strings. Whatever a user writes stays inside of its line and leaves a terminal unharmed: control
//! characters (also DEL and C1), line separators and bidirectional overrides are escaped.

use std::fmt::Write as _;

/// Appends `text` as a JSON string.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text);
    out.push('"');
}

/// Whether a byte may begin something that is escaped.
const SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0x7f] = true;
    // U+0080 to U+00BF, and U+2000 to U+2FFF.
    table[0xc2] = true;
    table[0xe2] = true;
    table
};

/// Whether `text` has nothing to escape, and no colon, without which it has no URL. A quick look: it says no to some that
/// have neither.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.bytes().any(|byte| SUSPECT[byte as usize] || byte == b':')
}

/// Appends `text` as the inside of a JSON string.
pub(crate) fn escape(out: &mut String, text: &str) {
    let bytes = text.as_bytes();
    let mut written = 0;
    let mut next = 0;
    while let Some(found) = bytes[next..].iter().position(|byte| SUSPECT[*byte as usize]) {
        let at = next + found;
        // The first byte of a character is never inside of another one.
        let Some(character) = text[at..].chars().next() else {
            break;
        };
        next = at + character.len_utf8();
        if !is_unsafe(character) {
            continue;
        }
        out.push_str(&text[written..at]);
        written = next;
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{:04x}", other as u32);
            }
        }
    }
    out.push_str(&text[written..]);
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '"' | '\\' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    //! Any text comes back as it was, and nothing in between can be mistaken.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_survives_and_stays_on_its_line(text in "(\\PC|[\u{0}-\u{a0}\"\\\\]|[\u{2020}-\u{2070}]|é|ア){0,40}") {
            let mut json = String::new();
            string(&mut json, &text);
            prop_assert!(!is_plain(&text) || json == format!("\"{text}\""), "{}", json);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            prop_assert!(!json[1..json.len() - 1].chars().any(|c| is_unsafe(c) && c != '"' && c != '\\'), "{}", json);
        }
    }
}
