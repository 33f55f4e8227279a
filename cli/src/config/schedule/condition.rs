//! Conditions that say which rows go. They are SQL of the user's and stay so; what is refused is what would take every
//! row, or break out of the brackets that it is put into. It is no parser of SQL.

/// A word of SQL, as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A name or a key word.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A number or a string.
    Constant(String),
    /// `:name`.
    Placeholder(String),
    /// Anything else, operators whole.
    Sign(&'static str),
}

const SIGNS: [&str; 24] = [
    "<=", ">=", "<>", "!=", "==", "||", "::", "->", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/", "%", ".", "[",
    "]", "~", "|",
];

/// Cuts SQL into words. Errors: why it cannot be used.
fn tokens(sql: &str) -> Result<Vec<Token>, String> {
    Ok(placed(sql)?.into_iter().map(|(_, token)| token).collect())
}

/// The words with the places where they begin.
fn placed(sql: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut tokens: Vec<(usize, Token)> = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let at = sql.len() - rest.len();
        let mut add = |token: Token| tokens.push((at, token));
        let taken = if first.is_whitespace() {
            first.len_utf8()
        } else if first == '\'' || first == '"' || first == '`' {
            let (text, length) = quoted(rest, first).ok_or_else(|| format!("a {first} is opened and never closed"))?;
            add(if first == '\'' {
                Token::Constant(text)
            } else {
                Token::Name(text)
            });
            length
        } else if first.is_ascii_digit() {
            let length = word_length(rest, |c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
            add(Token::Constant(rest[..length].to_owned()));
            length
        } else if first.is_alphabetic() || first == '_' {
            let length = word_length(rest, |c| c.is_alphanumeric() || c == '_' || c == '$');
            if rest[length..].starts_with('\'') {
                return Err(format!(
                    "strings are written '…', without `{}` in front",
                    &rest[..length]
                ));
            }
            add(Token::Word(rest[..length].to_owned()));
            length
        } else if rest.starts_with("--") || rest.starts_with("/*") {
            return Err("comments do not belong into it".to_owned());
        } else if first == ';' {
            return Err("it is one condition, without `;`".to_owned());
        } else if first == '$' || first == '?' || first == '@' {
            return Err(format!(
                "`{first}` stands for nothing: `:cutoff` is the only value that is put in"
            ));
        } else if first == ':' && !rest.starts_with("::") {
            let length = word_length(&rest[1..], |c| c.is_ascii_alphanumeric() || c == '_');
            add(Token::Placeholder(rest[1..=length].to_owned()));
            length + 1
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            add(Token::Sign(sign));
            sign.len()
        } else {
            return Err(format!("`{first}` does not belong into a condition"));
        };
        rest = &rest[taken..];
    }
    Ok(tokens)
}

fn word_length(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// What stands between quotes, doubled ones read as one; and how long that is with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            value.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            value.push(quote);
            characters.next();
        } else {
            return Some((value, at + 1));
        }
    }
    None
}

/// Words that are no names of columns.
const KEYWORDS: [&str; 34] = [
    "and", "or", "not", "is", "null", "true", "false", "in", "between", "like", "ilike", "glob", "exists", "select",
    "from", "where", "case", "when", "then", "else", "end", "cast", "as", "limit", "order", "by", "asc", "desc",
    "escape", "collate", "isnull", "notnull", "distinct", "interval",
];

/// Refuses conditions that are empty, true of everything, or not one bracketed expression. Errors: one sentence.
pub(super) fn check(condition: &str) -> Result<(), String> {
    let tokens = tokens(condition)?;
    if tokens.is_empty() {
        return Err("an empty condition would take every row".to_owned());
    }
    balanced(&tokens)?;
    if columns(&tokens).is_empty() {
        return Err(format!(
            "`{}` names no column, so that it is true of every row or of none",
            condition.trim()
        ));
    }
    always(&tokens)
}

/// Brackets that close what they open, and nothing more.
fn balanced(tokens: &[Token]) -> Result<(), String> {
    let mut open = 0_usize;
    for token in tokens {
        match token {
            Token::Sign("(") => open += 1,
            Token::Sign(")") => {
                open = open.checked_sub(1).ok_or_else(|| "a `)` closes nothing".to_owned())?;
            }
            _ => {}
        }
    }
    if open > 0 {
        return Err("a `(` is never closed".to_owned());
    }
    Ok(())
}

/// Refuses parts that are true of everything: `OR TRUE`, `1 = 1`, `x = x`, `OR 1`.
fn always(tokens: &[Token]) -> Result<(), String> {
    let same = || "it holds a comparison that is true of every row, which leaves no condition".to_owned();
    let border = |token: Option<&Token>, words: &[&str]| match token {
        None | Some(Token::Sign("(" | ")")) => true,
        Some(Token::Word(word)) => words.contains(&word.to_ascii_lowercase().as_str()),
        Some(_) => false,
    };
    let begins = |token| border(token, &["and", "or", "not", "where", "on", "having", "when"]);
    let ends = |token| border(token, &["and", "or", "then", "limit", "order", "group", "union"]);
    let before = |at: usize| at.checked_sub(1).and_then(|at| tokens.get(at));
    let constant = |token: &Token| match token {
        Token::Constant(_) => true,
        Token::Word(word) => ["true", "false", "null"].contains(&word.to_ascii_lowercase().as_str()),
        _ => false,
    };
    for (at, token) in tokens.iter().enumerate() {
        // `x BETWEEN 1 AND 5`
        let upper = at
            .checked_sub(3)
            .and_then(|at| tokens.get(at))
            .is_some_and(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("between")));
        if constant(token) && begins(before(at)) && ends(tokens.get(at + 1)) && !argument(tokens, at) && !upper {
            return Err(same());
        }
        if let [
            left,
            Token::Sign("=" | "==" | ">=" | "<=" | "<>" | "!=" | "<" | ">"),
            right,
            ..,
        ] = &tokens[at..]
        {
            let alike = left == right && !matches!(left, Token::Sign(_));
            let whole = begins(before(at)) && ends(tokens.get(at + 3));
            if whole && (alike || (constant(left) && constant(right))) {
                return Err(same());
            }
        }
    }
    Ok(())
}

/// Whether a constant alone in brackets is the argument of a function: `f(1)`, `x IN (1)`.
fn argument(tokens: &[Token], at: usize) -> bool {
    let bracket = at.checked_sub(1).map(|at| &tokens[at]);
    let function = at.checked_sub(2).map(|at| &tokens[at]);
    matches!(bracket, Some(Token::Sign("(")))
        && match function {
            Some(Token::Word(word)) => !["and", "or", "not", "where"].contains(&word.to_ascii_lowercase().as_str()),
            Some(Token::Name(_)) => true,
            _ => false,
        }
}

/// Names that may be columns.
fn columns(tokens: &[Token]) -> Vec<String> {
    tokens
        .iter()
        .enumerate()
        .filter_map(|(at, token)| match token {
            Token::Name(name) => Some(name.clone()),
            Token::Word(word) if !KEYWORDS.contains(&word.to_ascii_lowercase().as_str()) => {
                // A name before a bracket is a function's.
                (tokens.get(at + 1) != Some(&Token::Sign("("))).then(|| word.clone())
            }
            _ => None,
        })
        .collect()
}

/// Names in a condition that may be columns; the table decides whether they are.
pub(crate) fn columns_of(condition: &str) -> Vec<String> {
    tokens(condition).map(|tokens| columns(&tokens)).unwrap_or_default()
}

/// What stands behind colons.
pub(crate) fn placeholders(sql: &str) -> Vec<String> {
    let mut names: Vec<String> = tokens(sql)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|token| match token {
            Token::Placeholder(name) => Some(name),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// SQL with values in the places of `:name`; those that are not given stay.
pub(crate) fn filled(sql: &str, values: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(sql.len() + 32);
    let mut from = 0;
    for (at, token) in placed(sql).unwrap_or_default() {
        let Token::Placeholder(name) = token else { continue };
        let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        text.push_str(&sql[from..at]);
        text.push_str(value);
        from = at + 1 + name.len();
    }
    text.push_str(&sql[from..]);
    text
}

/// Refuses statements other than a DELETE or UPDATE with a condition and `:batch`. Errors: one sentence.
pub(super) fn check_statement(sql: &str) -> Result<(), String> {
    let tokens = tokens(sql)?;
    balanced(&tokens)?;
    let is = |token: &Token, word: &str| matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word));
    let deletes = tokens
        .first()
        .is_some_and(|token| is(token, "delete") || is(token, "update") || is(token, "with"));
    if !deletes {
        return Err("the statement is no DELETE and no UPDATE".to_owned());
    }
    let Some(at) = tokens.iter().position(|token| is(token, "where")) else {
        return Err("the statement has no WHERE: every row would go".to_owned());
    };
    if !tokens.contains(&Token::Placeholder("batch".to_owned())) {
        return Err("the statement takes no batches: write `LIMIT :batch` in the SELECT of its rows".to_owned());
    }
    if columns(&tokens[at + 1..]).is_empty() {
        return Err("its WHERE names no column".to_owned());
    }
    always(&tokens)
}

#[cfg(test)]
mod slice;

#[cfg(test)]
mod tests {
    use super::{check, check_statement, columns_of, filled, placeholders};

    #[test]
    fn conditions_that_choose_rows_are_taken() {
        for good in [
            "created_at < :cutoff",
            "state = 2 AND settled_at < :cutoff",
            "status IN ('cancelled', 'failed') AND \"updated at\" < :cutoff",
            "expires < now() - interval '7 days'",
            "coalesce(seen, 0) = 0",
            "NOT done AND x = 1",
            "kind IN (1)",
            "age BETWEEN 1 AND 5 AND done",
            "note = 'it''s; -- true'",
            "payload->>'state' = 'dead'",
            "(a OR b) AND created_at::date < '2020-01-01'",
            "id NOT IN (SELECT order_id FROM orders WHERE open = 1)",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn conditions_that_choose_nothing_are_refused() {
        for bad in [
            "",
            "  \n",
            "true",
            "TRUE",
            "(true)",
            "1",
            "1=1",
            "1 = 1",
            "(1) = (1)",
            "'a' = 'a'",
            "2 > 1",
            "not false",
            "created_at < :cutoff OR true",
            "created_at < :cutoff OR 1=1",
            "created_at < :cutoff or (1)",
            "x = x",
            "x = 1 OR \"y\" = \"y\"",
            "true) OR (x = 1",
            "x = 1) OR (1",
            "x = 1; DROP TABLE orders",
            "x = 1 -- and more",
            "x = 1 /* more",
            "x = 'open",
            "x = $1",
            "x = E'\\' OR true OR y = '",
            "x = ?",
            "random() < 0.5",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn statements_need_a_condition_and_batches() {
        let good = "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE done AND at < :cutoff LIMIT :batch)";
        assert_eq!(check_statement(good), Ok(()));
        assert_eq!(placeholders(good), ["batch", "cutoff"]);
        for bad in [
            "DELETE FROM t",
            "DELETE FROM t WHERE done",
            "DELETE FROM t WHERE true LIMIT :batch",
            "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE 1=1 LIMIT :batch)",
            "DROP TABLE t",
            "SELECT 1 WHERE a LIMIT :batch",
            "DELETE FROM t WHERE done LIMIT :batch; DELETE FROM u",
        ] {
            assert!(check_statement(bad).is_err(), "{bad}");
        }
        assert_eq!(
            filled(
                "a < :cutoff AND b = ':cutoff' AND c::text > :cutoff",
                &[("cutoff", "7".to_owned())]
            ),
            "a < 7 AND b = ':cutoff' AND c::text > 7"
        );
        assert_eq!(columns_of("lower(a) = 'x' AND \"b c\" IS NULL"), ["a", "b c"]);
    }
}
