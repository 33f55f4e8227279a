//! Whether a text is a regular expression as Go has them, and whether it matches nothing at all. It matches no text: for
//! a value of a label, what is asked is whether Prometheus would refuse the query.

mod class;
mod escape;

/// Copies and repetitions, multiplied along the way into nested ones.
const MOST_REPEATS: u32 = 1000;
/// Go compiles nothing larger, in instructions.
const LARGEST: u64 = (128 << 20) / 40;
/// Go nests nothing deeper.
const DEEPEST: u32 = 1000;

/// Why a regular expression is refused, in Go's own words for it.
pub(crate) type Refusal = &'static str;

/// What is known of an expression or a part of it.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Whether it matches the empty text.
    nullable: bool,
    /// The product of the repetitions along the way down.
    repeats: u32,
    /// How many instructions it becomes, about.
    size: u64,
    height: u32,
    /// Whether it is a plain character, of which many in a row nest no deeper.
    literal: bool,
}

/// An open parenthesis, or the whole expression.
#[derive(Debug, Default)]
struct Group {
    captures: bool,
    /// Alternatives that are behind.
    alternatives: Option<Part>,
    /// What is behind in the present alternative, without the last part.
    sequence: Option<Part>,
    /// The last part, to which a `*` applies.
    last: Option<Part>,
}

impl Part {
    const EMPTY: Self = Self {
        nullable: true,
        repeats: 1,
        size: 1,
        height: 1,
        literal: false,
    };
    const CHARACTER: Self = Self {
        nullable: false,
        literal: true,
        ..Self::EMPTY
    };
    const CLASS: Self = Self {
        nullable: false,
        ..Self::EMPTY
    };
    /// `\b`: there is no word in the empty text.
    const WORD_BOUNDARY: Self = Self::CLASS;

    fn then(self, next: Self) -> Self {
        let literal = self.literal && next.literal;
        Self {
            nullable: self.nullable && next.nullable,
            repeats: self.repeats.max(next.repeats),
            size: self.size + next.size,
            height: if literal { 1 } else { self.height.max(next.height + 1) },
            literal,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            nullable: self.nullable || other.nullable,
            repeats: self.repeats.max(other.repeats),
            size: self.size + other.size + 1,
            height: self.height.max(other.height + 1),
            literal: false,
        }
    }

    fn captured(self) -> Self {
        Self {
            size: self.size + 2,
            height: self.height + 1,
            literal: false,
            ..self
        }
    }

    /// Repeated from `least` to `most` times; `None` is without bound.
    fn repeated(self, least: u32, most: Option<u32>) -> Self {
        let size = match most {
            None if least == 0 => self.size + 2,
            None => self.size * u64::from(least) + 1,
            Some(most) => self.size * u64::from(most) + u64::from(most - least),
        };
        Self {
            nullable: self.nullable || least == 0,
            repeats: match most {
                Some(0) => 1,
                _ => self.repeats.saturating_mul(most.unwrap_or(least).max(1)),
            },
            size: size.max(1),
            height: self.height + 1,
            literal: false,
        }
    }

    fn checked(self) -> Result<Self, Refusal> {
        if self.height > DEEPEST {
            return Err("the expression is nested too deeply");
        }
        if self.size > LARGEST {
            return Err("the expression is too large");
        }
        Ok(self)
    }
}

impl Group {
    fn push(&mut self, part: Part) {
        if let Some(last) = self.last.replace(part) {
            self.sequence = Some(self.sequence.map_or(last, |sequence| sequence.then(last)));
        }
    }

    /// The present alternative as one part.
    fn end_alternative(&mut self) -> Part {
        match (self.sequence.take(), self.last.take()) {
            (Some(sequence), Some(last)) => sequence.then(last),
            (_, last) => last.unwrap_or(Part::EMPTY),
        }
    }

    fn bar(&mut self) {
        let alternative = self.end_alternative();
        self.alternatives = Some(self.alternatives.map_or(alternative, |before| before.or(alternative)));
    }

    fn close(mut self) -> Part {
        self.bar();
        let all = self.alternatives.unwrap_or(Part::EMPTY);
        if self.captures { all.captured() } else { all }
    }
}

/// Whether the regular expression `text` matches the empty text.
///
/// # Errors
/// What is wrong with it, where Go has no such expression.
pub(crate) fn matches_empty(text: &str) -> Result<bool, Refusal> {
    // Most are words with bars between them.
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'|'))
    {
        return Ok(text.split('|').any(str::is_empty));
    }
    let mut groups = vec![Group::default()];
    let mut rest = text;
    let mut after_repeat = false;
    while let Some(character) = rest.chars().next() {
        // There is always one: the outermost is never closed.
        let Some(group) = groups.last_mut() else { break };
        let mut repeats = false;
        let next = &rest[character.len_utf8()..];
        rest = match character {
            '(' => open(rest, &mut groups)?,
            ')' => {
                let closed = groups.pop().filter(|_| !groups.is_empty());
                let part = closed.ok_or("`)` closes nothing")?.close().checked()?;
                if let Some(outer) = groups.last_mut() {
                    outer.push(part);
                }
                next
            }
            '|' => {
                group.bar();
                next
            }
            '^' | '$' => {
                group.push(Part::EMPTY);
                next
            }
            '.' => {
                group.push(Part::CLASS);
                next
            }
            '[' => {
                group.push(Part::CLASS);
                class::bracketed(next)?
            }
            '*' | '+' | '?' => {
                repeats = true;
                let least = u32::from(character == '+');
                let most = (character == '?').then_some(1);
                group.repeat(least, most, after_repeat)?;
                next.strip_prefix('?').unwrap_or(next)
            }
            '{' if let Some((least, most, after)) = braces(next) => {
                repeats = true;
                group.repeat_counted(least, most, after_repeat)?;
                after.strip_prefix('?').unwrap_or(after)
            }
            '\\' => escape::outside(next, |part| group.push(part))?,
            _ => {
                group.push(Part::CHARACTER);
                next
            }
        };
        after_repeat = repeats;
    }
    match groups.pop() {
        Some(whole) if groups.is_empty() => Ok(whole.close().checked()?.nullable),
        _ => Err("a parenthesis is not closed"),
    }
}

impl Group {
    fn repeat_counted(&mut self, least: u32, most: Option<u32>, after_repeat: bool) -> Result<(), Refusal> {
        if least > MOST_REPEATS || most.is_some_and(|most| most > MOST_REPEATS || most < least) {
            return Err("invalid number of repetitions");
        }
        self.repeat(least, most, after_repeat)?;
        let repeats = self.last.map_or(1, |last| last.repeats);
        if (least >= 2 || most.is_some_and(|most| most >= 2)) && repeats > MOST_REPEATS {
            return Err("too many repetitions inside of repetitions");
        }
        Ok(())
    }

    fn repeat(&mut self, least: u32, most: Option<u32>, after_repeat: bool) -> Result<(), Refusal> {
        if after_repeat {
            return Err("a repetition of a repetition");
        }
        let last = self.last.take().ok_or("nothing that could be repeated")?;
        self.last = Some(last.repeated(least, most).checked()?);
        Ok(())
    }
}

/// `(`, with a name or flags.
fn open<'a>(text: &'a str, groups: &mut Vec<Group>) -> Result<&'a str, Refusal> {
    let group = |captures| Group {
        captures,
        ..Group::default()
    };
    let Some(special) = text.strip_prefix("(?") else {
        groups.push(group(true));
        return Ok(&text[1..]);
    };
    // What is shorter than a name could be is no name.
    let named = special.strip_prefix("P<").filter(|name| !name.is_empty());
    if let Some(named) = named.or(special.strip_prefix('<').filter(|name| !name.is_empty())) {
        let (name, rest) = named.split_once('>').ok_or("a group's name is not closed")?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("invalid name of a group");
        }
        groups.push(group(true));
        return Ok(rest);
    }
    let (mut negative, mut any) = (false, false);
    for (at, character) in special.char_indices() {
        match character {
            'i' | 'm' | 's' | 'U' => any = true,
            '-' if !negative => (negative, any) = (true, false),
            ':' | ')' if any || !negative => {
                if character == ':' {
                    groups.push(group(false));
                }
                return Ok(&special[at + 1..]);
            }
            _ => break,
        }
    }
    Err("no flags that a group could have")
}

/// `5}`, `5,}` or `5,7}`: the bounds and what follows. Anything else is a plain brace.
fn braces(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (least, rest) = count(text)?;
    let (most, rest) = match rest.strip_prefix(',') {
        None => (Some(least), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => count(rest).map(|(most, rest)| (Some(most), rest))?,
    };
    Some((least, most, rest.strip_prefix('}')?))
}

/// A number without leading zeros; what is too large for any bound stays too large.
fn count(text: &str) -> Option<(u32, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

#[cfg(test)]
mod tests {
    use super::matches_empty;

    #[test]
    fn what_go_has_is_taken_and_the_empty_text_is_matched_or_not() {
        for (text, empty) in [
            ("", true),
            ("api|", true),
            ("api|web", false),
            (".*", true),
            (".+", false),
            ("(a|b*)c?", true),
            ("^$", true),
            (r"\b", false),
            (r"\B", true),
            ("(?i)api", false),
            ("(?P<name>a)?", true),
            ("(?<name>a){0,3}", true),
            ("a{,3}", false),
            ("a{2}{", false),
            ("[]a]", false),
            ("[^[:alpha:]-]", false),
            (r"[\d\pL\p{Greek}\x{1F600}]", false),
            (r"\Q*+?\E", false),
            ("a*(?i)*", true),
            ("(a{30}){30}", false),
            ("x{0}", true),
        ] {
            assert_eq!(matches_empty(text), Ok(empty), "{text}");
        }
    }

    #[test]
    fn what_go_does_not_have_is_refused() {
        let deep = "(".repeat(1001) + &")".repeat(1001);
        for text in [
            "(",
            ")",
            "a**",
            "*",
            "a|*",
            "(*)",
            "(?",
            "(?P<>a)",
            "(?P<a",
            "(?=a)",
            "(?!a)",
            "(?-)",
            "[",
            "[]",
            "[a",
            "[b-a]",
            "[[:foo:]]",
            r"\",
            r"\y",
            r"\1",
            r"\C",
            r"\pX",
            r"\p{Nope}",
            r"\x{110000}",
            r"\xg0",
            "a{1001}",
            "a{3,2}",
            "(a{40}){40}",
            "a{2}{3}",
            r"[\b]",
            &deep,
        ] {
            assert!(matches_empty(text).is_err(), "{text}");
        }
    }
}
