//! Which paths are meant: glob patterns over paths relative to the directory that is saved (or to the snapshot's root).
//!
//! - `*` fits any bytes but `/`, `?` one of them, `[a-z]` one of a set, `[!a-z]` one of the others, `\` takes the next
//!   character as it is.
//! - `**` as a whole part fits any number of parts, also none: `**/cache/**` is whatever lies under a directory `cache`
//!   (the directory itself stays, empty), `**/cache` the directory with everything.
//! - A pattern without `/` fits a name at any depth: `*.tmp`. One with `/` fits from the top: `build/*.o`. A leading `/`
//!   ties a name to the top, a trailing `/` fits directories only.
//! - What lies under something left out is left out.
//! - Patterns that ignore case do so for the letters of ASCII.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a source leaves out.
pub type Excludes = Patterns;

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    given: Vec<String>,
}

/// A pattern that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {problem}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Patterns {
    /// Compiles patterns.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        Self::default().and(patterns, false)
    }

    /// These, and more that do not tell small letters from large ones.
    pub fn and_ignoring_case<S: AsRef<str>>(self, patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        self.and(patterns, true)
    }

    fn and<S: AsRef<str>>(
        mut self,
        patterns: impl IntoIterator<Item = S>,
        ignore_case: bool,
    ) -> Result<Self, PatternError> {
        for pattern in patterns {
            let given = pattern.as_ref();
            let compiled = Pattern::compile(given, ignore_case).map_err(|problem| PatternError {
                pattern: given.to_owned(),
                problem,
            })?;
            self.patterns.push(compiled);
            self.given.push(given.to_owned());
        }
        Ok(self)
    }

    /// Whether a path is written as a pattern: it has a character that means more than itself.
    pub fn is_pattern(path: &Path) -> bool {
        path.as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| matches!(byte, b'*' | b'?' | b'['))
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns as given.
    pub fn patterns(&self) -> &[String] {
        &self.given
    }

    /// Whether the item at this path, relative to what is saved, is left out. Directories are asked for before what they
    /// hold, so only the path itself is looked at.
    pub fn matches(&self, path: &Path, is_directory: bool) -> bool {
        !self.is_empty() && self.matching(path, is_directory).next().is_some()
    }

    /// The places of the patterns that fit, among those given.
    pub fn matching(&self, path: &Path, is_directory: bool) -> impl Iterator<Item = usize> {
        let parts: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
        let patterns = self.patterns.iter().enumerate();
        patterns
            .filter(move |(_, pattern)| pattern.matches(&parts, is_directory))
            .map(|(at, _)| at)
    }
}

#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<Part>,
    directories_only: bool,
    ignore_case: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`
    Any,
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Many,
    Set { ranges: Vec<(u8, u8)>, negated: bool },
}

impl Pattern {
    fn compile(pattern: &str, ignore_case: bool) -> Result<Self, &'static str> {
        let (pattern, directories_only) = pattern.strip_suffix('/').map_or((pattern, false), |rest| (rest, true));
        let (pattern, anchored) = pattern.strip_prefix('/').map_or((pattern, false), |rest| (rest, true));
        if pattern.is_empty() {
            return Err("is empty");
        }
        let mut parts = Vec::new();
        if !anchored && !pattern.contains('/') {
            parts.push(Part::Any);
        }
        for part in pattern.split('/') {
            match part {
                "" | "." | ".." => return Err("has an empty part, `.` or `..`"),
                "**" => parts.push(Part::Any),
                name => parts.push(Part::Name(tokens(name)?)),
            }
        }
        Ok(Self {
            parts,
            directories_only,
            ignore_case,
        })
    }

    fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        (is_directory || !self.directories_only) && parts_match(&self.parts, path, self.ignore_case)
    }
}

/// Backtracks only to the last `**`, as [`name_matches`] does to the last `*`: with many of them in a pattern there would
/// be no end otherwise.
fn parts_match(parts: &[Part], mut path: &[&[u8]], ignore_case: bool) -> bool {
    // A trailing `**` wants at least one part: the directory above it stays.
    if parts.last() == Some(&Part::Any) {
        let Some((_, above)) = path.split_last() else {
            return false;
        };
        path = above;
    }
    let (mut part, mut at, mut last_any) = (0, 0, None);
    while at < path.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                last_any = Some((part, at));
                part += 1;
            }
            Some(Part::Name(tokens)) if name_matches(tokens, path[at], ignore_case) => {
                part += 1;
                at += 1;
            }
            _ => match last_any {
                Some((any, from)) => {
                    last_any = Some((any, from + 1));
                    (part, at) = (any + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|part| *part == Part::Any)
}

/// Backtracks only to the last `*`: linear in practice, quadratic at worst.
fn name_matches(tokens: &[Token], name: &[u8], ignore_case: bool) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut last_star = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Many) => {
                last_star = Some((token, at));
                token += 1;
            }
            Some(single) if fits(single, name[at], ignore_case) => {
                token += 1;
                at += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    (token, at) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(|token| *token == Token::Many)
}

fn fits(token: &Token, byte: u8, ignore_case: bool) -> bool {
    let within = |byte: u8, ranges: &[(u8, u8)]| ranges.iter().any(|&(low, high)| (low..=high).contains(&byte));
    match token {
        Token::Byte(expected) if ignore_case => expected.eq_ignore_ascii_case(&byte),
        Token::Byte(expected) => *expected == byte,
        Token::One => true,
        Token::Many => false,
        Token::Set { ranges, negated } if ignore_case => {
            (within(byte.to_ascii_lowercase(), ranges) || within(byte.to_ascii_uppercase(), ranges)) != *negated
        }
        Token::Set { ranges, negated } => within(byte, ranges) != *negated,
    }
}

fn tokens(name: &str) -> Result<Vec<Token>, &'static str> {
    let mut bytes = name.bytes().peekable();
    let mut tokens = Vec::new();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'?' => Token::One,
            b'*' if tokens.last() == Some(&Token::Many) => return Err("has `**` beside other characters"),
            b'*' => Token::Many,
            b'\\' => Token::Byte(bytes.next().ok_or("ends with a backslash")?),
            b'[' => {
                let negated = bytes.next_if(|&next| next == b'!' || next == b'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let low = match bytes.next().ok_or("has a `[` without `]`")? {
                        b']' if !ranges.is_empty() => break,
                        b'\\' => bytes.next().ok_or("ends with a backslash")?,
                        low => low,
                    };
                    let mut ahead = bytes.clone();
                    let is_range = ahead.next() == Some(b'-') && ahead.next().is_some_and(|high| high != b']');
                    let high = if is_range { bytes.nth(1).unwrap_or(low) } else { low };
                    ranges.push((low, high));
                }
                Token::Set { ranges, negated }
            }
            other => Token::Byte(other),
        });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let is_directory = path.ends_with('/');
        Excludes::new([pattern]).unwrap().matches(Path::new(path), is_directory)
    }

    #[test]
    fn patterns_fit_what_the_documentation_says() {
        for (pattern, path, expected) in [
            ("*.tmp", "a.tmp", true),
            ("*.tmp", "deep/er/a.tmp", true),
            ("*.tmp", "a.tmpx", false),
            ("*.tmp", ".tmp", true),
            ("**/cache/**", "cache/x", true),
            ("**/cache/**", "a/b/cache/c/d", true),
            ("**/cache/**", "a/cache/", false),
            ("**/cache", "a/cache/", true),
            ("cache", "a/cache/", true),
            ("cache/", "a/cache", false),
            ("cache/", "a/cache/", true),
            ("/cache", "cache", true),
            ("/cache", "a/cache", false),
            ("build/*.o", "build/x.o", true),
            ("build/*.o", "a/build/x.o", false),
            ("build/*.o", "build/a/x.o", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("file?", "file1", true),
            ("file?", "file", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("**", "anything/at/all", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn case_is_ignored_on_request() {
        for (pattern, path, expected) in [
            ("*.TMP", "a.tmp", true),
            ("cache/", "a/CACHE/", true),
            ("[a-c]x", "BX", true),
            ("[!a-c]x", "Bx", false),
            ("Größe", "GRößE", true),
            ("a", "b", false),
        ] {
            let patterns = Patterns::default().and_ignoring_case([pattern]).unwrap();
            assert_eq!(
                patterns.matches(Path::new(path), path.ends_with('/')),
                expected,
                "{pattern} on {path}"
            );
        }
        assert!(!matches("*.TMP", "a.tmp"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in ["", "/", "a//b", "../x", "a[b", "x\\", "a**"] {
            let error = Excludes::new([bad]).unwrap_err();
            assert_eq!(error.pattern, bad);
        }
    }

    #[test]
    fn a_hostile_pattern_does_not_take_for_ever() {
        let pattern = format!("{}b", "a*".repeat(100));
        assert!(!matches(&pattern, &"a".repeat(200)));
    }

    #[test]
    fn many_stars_cost_no_more_than_they_must() {
        // Tried one after the other, the ways to share these parts out would not end.
        let pattern = "**/a/".repeat(30) + "b";
        let path = "a/".repeat(200) + "c";
        assert!(!matches(&pattern, &path));
        assert!(matches(&pattern, &("a/".repeat(200) + "b")));
        assert!(matches("**/a/**/a/**", "a/x/a/y") && !matches("**/a/**/a/**", "a/x/a"));
    }

    proptest! {
        #[test]
        fn an_escaped_name_fits_itself_only(name in "[a-z*?\\[\\]!-]{1,12}", other in "[a-z*?]{1,12}") {
            let escaped: String = name.chars().flat_map(|character| ['\\', character]).collect();
            prop_assert!(matches(&escaped, &name));
            prop_assert_eq!(matches(&escaped, &other), name == other);
        }

        #[test]
        fn a_star_fits_every_name(name in "[^/\0]{1,20}") {
            prop_assume!(name != "." && name != "..");
            prop_assert!(matches("*", &name));
            prop_assert!(matches("**", &name));
        }
    }
}
