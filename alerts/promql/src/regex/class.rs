//! Classes of characters: `[a-z]`, `[[:alpha:]]`, `\p{Greek}`.

use super::{Refusal, escape};

const INVALID: Refusal = "invalid range or class of characters";

/// The names between `[:` and `:]`.
const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Unicode's categories and scripts, as Go names them.
const UNICODE: &str = "
    Any C Cc Cf Cn Co Cs L LC Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs
    Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo
    Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common
    Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs
    Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul
    Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi
    Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki
    Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean
    Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi
    Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong
    Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian
    Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi
    Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo
    Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana
    Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square
";

/// Reads the class whose `[` is behind, and returns the rest.
pub(super) fn bracketed(text: &str) -> Result<&str, Refusal> {
    let mut rest = text.strip_prefix('^').unwrap_or(text);
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !first) {
            return Ok(after);
        }
        first = false;
        if let Some((name, after)) = rest.strip_prefix("[:").and_then(|named| named.split_once(":]")) {
            if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return Err(INVALID);
            }
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix(r"\p").or(rest.strip_prefix(r"\P")) {
            rest = named(after)?;
            continue;
        }
        if let [b'\\', b'd' | b'D' | b's' | b'S' | b'w' | b'W', ..] = rest.as_bytes() {
            rest = &rest[2..];
            continue;
        }
        let (low, after) = character(rest)?;
        rest = after;
        if let Some(range) = rest
            .strip_prefix('-')
            .filter(|range| !range.is_empty() && !range.starts_with(']'))
        {
            let (high, after) = character(range)?;
            if high < low {
                return Err(INVALID);
            }
            rest = after;
        }
    }
}

/// One character in a class, and the rest.
fn character(text: &str) -> Result<(char, &str), Refusal> {
    if let Some(escaped) = text.strip_prefix('\\') {
        return escape::character(escaped);
    }
    let mut characters = text.chars();
    let first = characters.next().ok_or("a bracket is not closed")?;
    Ok((first, characters.as_str()))
}

/// Reads a Unicode class whose `\p` is behind, and returns the rest.
pub(super) fn named(text: &str) -> Result<&str, Refusal> {
    let (name, rest) = if let Some(braced) = text.strip_prefix('{') {
        braced.split_once('}').ok_or(INVALID)?
    } else {
        text.split_at(text.chars().next().ok_or(INVALID)?.len_utf8())
    };
    let name = name.strip_prefix('^').unwrap_or(name);
    let known = UNICODE.split_ascii_whitespace().any(|known| known == name);
    known.then_some(rest).ok_or(INVALID)
}
