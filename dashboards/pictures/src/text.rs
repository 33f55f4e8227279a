//! How wide text is, without a font: what follows from it is where lines break and what is cut short. It escapes text for
//! XML and HTML.

use std::borrow::Cow;

/// Widths of the printable characters of ASCII in hundredths of the font's size: the wider of Noto Sans and DejaVu Sans,
/// which are among the widest that a browser chooses. In a narrower font there is room to spare.
const ASCII: [u8; 95] = [
    32, 41, 46, 84, 64, 96, 78, 28, 40, 40, 56, 84, 32, 37, 32, 38, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84,
    84, 84, 54, 100, 69, 69, 70, 78, 64, 58, 78, 76, 34, 30, 66, 56, 91, 76, 79, 61, 79, 70, 64, 62, 74, 69, 99, 69,
    62, 69, 40, 38, 40, 84, 50, 59, 62, 64, 55, 64, 62, 36, 64, 64, 28, 28, 58, 28, 98, 64, 62, 64, 64, 42, 53, 40, 64,
    60, 82, 60, 60, 53, 64, 56, 64, 84,
];

/// The font families of every picture, widest first where a machine has several.
pub const FAMILY: &str = "'Noto Sans',system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif";

fn letter(c: char) -> f64 {
    let hundredths = match c {
        ' '..='~' => ASCII[c as usize - 0x20],
        // Thin: middle dot, no-break space, high digits.
        '\u{a0}' | '·' | '°' | '²' | '³' => 50,
        // Marks that stand over the letter before them.
        '\u{300}'..='\u{36f}' => 0,
        '−' | '±' | '≤' | '≥' | '×' => 84,
        // Letters of Europe; capitals and a few others are wide.
        '\u{a1}'..='\u{24f}' => 80,
        // Greek and Cyrillic.
        '\u{370}'..='\u{52f}' => 100,
        // Whole squares: other scripts and pictures.
        _ => 110,
    };
    f64::from(hundredths) / 100.0
}

/// How wide a text is at most.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().map(letter).sum::<f64>() * size
}

/// As much of a text as there is room for, with an ellipsis where it is cut.
pub fn fit(text: &str, size: f64, room: f64) -> Cow<'_, str> {
    let mut used = 0.0;
    let ellipsis = letter('…') * size;
    let mut cut = 0;
    for (at, c) in text.char_indices() {
        used += letter(c) * size;
        if used + ellipsis <= room {
            cut = at + c.len_utf8();
        }
        if used > room {
            return if ellipsis <= room {
                format!("{}…", text[..cut].trim_end()).into()
            } else {
                Cow::Borrowed("")
            };
        }
    }
    Cow::Borrowed(text)
}

/// A text in lines of a width, at most so many; the last one is cut where there is more.
pub fn wrap(text: &str, size: f64, room: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let full = lines.len() == most;
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" ", size) + width(word, size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            Some(line) if full => {
                *line = fit(&format!("{line} {word}"), size, room).into_owned();
                break;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    for line in &mut lines {
        if let Cow::Owned(short) = fit(line, size, room) {
            *line = short;
        }
    }
    lines
}

/// Text that may stand between tags and in attributes, of XML and of HTML.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' => safe.push(c),
            // Not allowed, or turning around or hiding what stands after them.
            c if c.is_control() => safe.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}
