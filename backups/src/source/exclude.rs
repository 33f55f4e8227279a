//! Which paths a source leaves out: glob patterns over paths relative to the directory that is saved.
//!
//! - `*` fits any bytes but `/`, `?` one of them, `[a-z]` one of a set, `[!a-z]` one of the others, `\` takes the next
//!   character as it is.
//! - `**` as a whole part fits any number of parts, also none: `**/cache/**` is whatever lies under a directory `cache`
//!   (the directory itself stays, empty), `**/cache` the directory with everything.
//! - A pattern without `/` fits a name at any depth: `*.tmp`. One with `/` fits from the top: `build/*.o`. A leading `/`
//!   ties a name to the top, a trailing `/` fits directories only.
//! - What lies under something left out is left out.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
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

impl Excludes {
    /// Compiles patterns.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let given: Vec<String> = patterns
            .into_iter()
            .map(|pattern| pattern.as_ref().to_owned())
            .collect();
        let compile = |pattern: &String| {
            Pattern::compile(pattern).map_err(|problem| PatternError {
                pattern: pattern.clone(),
                problem,
            })
        };
        Ok(Self {
            patterns: given.iter().map(compile).collect::<Result<_, _>>()?,
            given,
        })
    }

    /// The patterns as given.
    pub fn patterns(&self) -> &[String] {
        &self.given
    }

    /// Whether the item at this path, relative to what is saved, is left out. Directories are asked for before what they
    /// hold, so only the path itself is looked at.
    pub fn matches(&self, path: &Path, is_directory: bool) -> bool {
        let parts: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
        self.patterns
            .iter()
            .any(|pattern| pattern.matches(&parts, is_directory))
    }
}

#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<Part>,
    directories_only: bool,
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
    fn compile(pattern: &str) -> Result<Self, &'static str> {
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
        })
    }

    fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        (is_directory || !self.directories_only) && parts_match(&self.parts, path)
    }
}

/// A trailing `**` wants at least one part: the directory above it stays.
fn parts_match(parts: &[Part], path: &[&[u8]]) -> bool {
    match parts {
        [] => path.is_empty(),
        [Part::Any] => !path.is_empty(),
        [Part::Any, rest @ ..] => (0..=path.len()).any(|skipped| parts_match(rest, &path[skipped..])),
        [Part::Name(tokens), rest @ ..] => match path {
            [name, below @ ..] => name_matches(tokens, name) && parts_match(rest, below),
            [] => false,
        },
    }
}

/// Backtracks only to the last `*`: linear in practice, quadratic at worst.
fn name_matches(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut last_star = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Many) => {
                last_star = Some((token, at));
                token += 1;
            }
            Some(single) if fits(single, name[at]) => {
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

fn fits(token: &Token, byte: u8) -> bool {
    match token {
        Token::Byte(expected) => *expected == byte,
        Token::One => true,
        Token::Many => false,
        Token::Set { ranges, negated } => ranges.iter().any(|&(low, high)| (low..=high).contains(&byte)) != *negated,
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
