//! The statements of a script that `pg_dumpall --globals-only` wrote, and those that a dump has for its database's
//! settings. What a dump says is foreign: only the statements that are known are taken, and nothing in them can be a
//! command to `psql`.

use std::collections::BTreeSet;
use std::ops::Range;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// As it was written, without the semicolon.
    pub(crate) text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    place: Range<usize>,
    kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TokenKind {
    /// A keyword, or a name as it is.
    Word(String),
    /// A name in quotes.
    Name(String),
    /// Anything else.
    Other,
}

/// What cannot be in such a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the script holds what no script of that kind holds, at byte {0}")]
pub(crate) struct Odd(usize);

/// Takes a script apart.
pub(crate) fn statements(script: &str) -> Result<Vec<Statement>, Odd> {
    let bytes = script.as_bytes();
    let mut statements = Vec::new();
    let (mut at, mut start) = (0, 0);
    let mut tokens: Vec<Token> = Vec::new();
    while at < bytes.len() {
        let (from, byte) = (at, bytes[at]);
        let kind = match byte {
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = line_end(bytes, at);
                continue;
            }
            // Newer versions fence their scripts in with this; what is between is not psql's either way.
            b'\\' if tokens.is_empty() && is_fence(&script[at..]) => {
                at = line_end(bytes, at);
                continue;
            }
            b'\\' | b'$' | b'`' | 0 => return Err(Odd(at)),
            b';' => {
                if let Some(first) = tokens.first() {
                    start = first.place.start;
                }
                if !tokens.is_empty() {
                    for token in &mut tokens {
                        token.place = token.place.start - start..token.place.end - start;
                    }
                    statements.push(Statement {
                        text: script[start..at].to_owned(),
                        tokens: std::mem::take(&mut tokens),
                    });
                }
                at += 1;
                continue;
            }
            b'"' => {
                at = closed(bytes, at, false)?;
                TokenKind::Name(script[from + 1..at - 1].replace("\"\"", "\""))
            }
            b'\'' => {
                at = closed(bytes, at, false)?;
                TokenKind::Other
            }
            b'E' | b'e' if bytes.get(at + 1) == Some(&b'\'') => {
                at = closed(bytes, at + 1, true)?;
                TokenKind::Other
            }
            byte if is_word(byte) => {
                at = bytes[at..]
                    .iter()
                    .position(|byte| !is_word(*byte))
                    .map_or(bytes.len(), |length| at + length);
                TokenKind::Word(script[from..at].to_owned())
            }
            byte => {
                at += 1;
                if byte.is_ascii_whitespace() {
                    continue;
                }
                TokenKind::Other
            }
        };
        tokens.push(Token { place: from..at, kind });
    }
    if tokens.is_empty() {
        Ok(statements)
    } else {
        Err(Odd(bytes.len()))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_fence(text: &str) -> bool {
    ["\\restrict ", "\\unrestrict "]
        .iter()
        .any(|fence| text.starts_with(fence))
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |length| from + length)
}

/// Behind the quote that closes the one at `from`.
fn closed(bytes: &[u8], from: usize, escapes: bool) -> Result<usize, Odd> {
    let quote = bytes[from];
    let mut at = from + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if escapes => at += 2,
            byte if *byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if *byte == quote => return Ok(at + 1),
            _ => at += 1,
        }
    }
    Err(Odd(from))
}

impl Statement {
    fn is(&self, at: usize, keyword: &str) -> bool {
        matches!(self.tokens.get(at).map(|token| &token.kind), Some(TokenKind::Word(word)) if word == keyword)
    }

    fn begins(&self, keywords: &[&str]) -> bool {
        keywords.iter().enumerate().all(|(at, keyword)| self.is(at, keyword))
    }

    fn name(&self, at: usize) -> Option<&str> {
        match &self.tokens.get(at)?.kind {
            TokenKind::Word(name) | TokenKind::Name(name) => Some(name),
            TokenKind::Other => None,
        }
    }

    /// The same with another name at a place, if there is one.
    fn with_name(&self, at: usize, name: &str) -> Option<String> {
        let place = self.tokens.get(at)?.place.clone();
        let (before, after) = (&self.text[..place.start], &self.text[place.end..]);
        Some(format!("{before}{}{after}", super::quoted(name)))
    }
}

/// The statements that make the roles of a script which are not among `existing`, and the names of those.
pub(crate) fn roles(script: &str, existing: &BTreeSet<String>) -> Result<(Vec<String>, Vec<String>), Odd> {
    let (mut taken, mut made) = (Vec::new(), Vec::new());
    for statement in statements(script)? {
        let role = if statement.begins(&["CREATE", "ROLE"]) || statement.begins(&["ALTER", "ROLE"]) {
            statement.name(2)
        } else if statement.begins(&["COMMENT", "ON", "ROLE"]) {
            statement.name(3)
        } else if statement.is(0, "GRANT") && statement.is(2, "TO") {
            // A member that was there before keeps what it has.
            statement.name(3)
        } else {
            None
        };
        let Some(role) = role.filter(|role| !existing.contains(*role)) else {
            continue;
        };
        if statement.begins(&["CREATE", "ROLE"]) {
            made.push(role.to_owned());
        }
        taken.push(statement.text);
    }
    Ok((taken, made))
}

/// The settings of a database, as they are for a database of another name.
pub(crate) fn settings(script: &str, name: &str) -> Result<Vec<String>, Odd> {
    let statements = statements(script)?;
    let settings = statements.iter().filter_map(|statement| {
        if statement.begins(&["ALTER", "DATABASE"]) && statement.is(3, "SET") {
            statement.with_name(2, name)
        } else if statement.begins(&["ALTER", "ROLE"]) && statement.is(3, "IN") && statement.is(4, "DATABASE") {
            statement.with_name(5, name)
        } else {
            None
        }
    });
    Ok(settings.collect())
}

/// What follows `TEMPLATE = template0` where a database is made: encoding and locale. Without a tablespace.
pub(crate) fn creation(definition: &str) -> Option<String> {
    let statements = statements(definition).ok()?;
    let statement = statements
        .first()
        .filter(|statement| statement.begins(&["CREATE", "DATABASE"]))?;
    let at = (3..statement.tokens.len()).find(|at| statement.is(*at, "template0"))?;
    let from = statement.tokens[at].place.end;
    let until = (at..statement.tokens.len())
        .find(|at| statement.is(*at, "TABLESPACE"))
        .map_or(statement.text.len(), |at| statement.tokens[at].place.start);
    Some(statement.text[from..until].trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOBALS: &str = "--\n-- PostgreSQL database cluster dump\n--\n\\restrict abc\n\
        SET default_transaction_read_only = off;\n\n--\n-- Roles\n--\n\n\
        CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b''c=$d:e';\n\
        CREATE ROLE \"o\"\"dd; role\";\nALTER ROLE \"o\"\"dd; role\" SET search_path TO 'a', E'b\\';c';\n\
        CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\nCOMMENT ON ROLE app IS 'it\\s';\n\
        GRANT pg_monitor TO app GRANTED BY postgres;\nGRANT app TO postgres;\n\
        CREATE TABLESPACE fast OWNER postgres LOCATION '/fast';\nGRANT ALL ON TABLESPACE fast TO app;\n\\unrestrict abc\n";

    #[test]
    fn roles_that_are_there_are_left_alone() {
        let existing = BTreeSet::from(["postgres".to_owned()]);
        let (taken, made) = roles(GLOBALS, &existing).expect("a script");
        assert_eq!(made, ["app", "o\"dd; role"]);
        assert_eq!(
            taken,
            [
                "CREATE ROLE app",
                "ALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b''c=$d:e'",
                "CREATE ROLE \"o\"\"dd; role\"",
                "ALTER ROLE \"o\"\"dd; role\" SET search_path TO 'a', E'b\\';c'",
                "COMMENT ON ROLE app IS 'it\\s'",
                "GRANT pg_monitor TO app GRANTED BY postgres",
            ]
        );
    }

    #[test]
    fn nothing_in_a_script_is_a_command_to_psql() {
        for odd in [
            "\\! rm -rf /\n",
            "CREATE ROLE a \\! id\n;",
            "\\restrictx\n",
            "CREATE ROLE a\n\\restrict x\n;",
            "SELECT $$;$$;",
            "SELECT 'open",
            "SELECT 1",
            "SELECT `id`;",
        ] {
            assert!(statements(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn settings_are_those_of_the_new_name() {
        let script = "ALTER DATABASE shop SET search_path TO 'sales';\nALTER ROLE app IN DATABASE \"shop\" SET work_mem TO '1MB';\n\
            ALTER DATABASE shop OWNER TO x;\nUPDATE pg_catalog.pg_database SET datistemplate = true;";
        assert_eq!(
            settings(script, "new").expect("a script"),
            [
                "ALTER DATABASE \"new\" SET search_path TO 'sales'",
                "ALTER ROLE app IN DATABASE \"new\" SET work_mem TO '1MB'"
            ]
        );
        let definition = "CREATE DATABASE \"my TABLESPACE\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C' TABLESPACE = fast;\n\n\n";
        assert_eq!(
            creation(definition).as_deref(),
            Some("ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C'")
        );
        assert_eq!(creation("DROP DATABASE x;"), None);
    }
}
