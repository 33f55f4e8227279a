//! Variables as Grafana replaces them in a query's text: `$name`, `${name}`, `${name.field}`, `${name:format}`,
//! `[[name]]`, `[[name:format]]`.

use crate::span::Span;

/// A reference to a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Where it is in the text that was searched.
    pub span: Span,
    /// What it is called, such as `__rate_interval`.
    pub name: &'a str,
    /// The `field` of `${name.field}`.
    pub field: Option<&'a str>,
    /// The `regex` of `${name:regex}`.
    pub format: Option<&'a str>,
}

/// The variables in a text, from left to right. Names that begin with a digit are none: `$1` refers to a group of a
/// regular expression.
pub fn variables(text: &str) -> impl Iterator<Item = Variable<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let next = text
                .as_bytes()
                .get(at..)?
                .iter()
                .position(|byte| matches!(byte, b'$' | b'['))?;
            at += next;
            match variable_at(text, at) {
                Some(variable) => {
                    at = variable.span.end as usize;
                    return Some(variable);
                }
                None => at += 1,
            }
        }
    })
}

/// The variable that begins at the byte `at`.
pub(crate) fn variable_at(text: &str, at: usize) -> Option<Variable<'_>> {
    let rest = text.get(at..)?;
    let (opening, closing) = match rest.as_bytes() {
        [b'$', b'{', ..] => ("${", "}"),
        [b'[', b'[', ..] => ("[[", "]]"),
        [b'$', ..] => ("$", ""),
        _ => return None,
    };
    let inner = &rest[opening.len()..];
    let name = word(inner)?;
    let mut after = &inner[name.len()..];
    let (mut field, mut format) = (None, None);
    if opening == "${" {
        if let Some(dotted) = after.strip_prefix('.') {
            let end = dotted.find([':', '^', '}'])?;
            field = Some(dotted.get(..end).filter(|field| !field.is_empty())?);
            after = &dotted[end..];
        }
        if let Some(formatted) = after.strip_prefix(':') {
            let end = formatted.find('}')?;
            format = Some(formatted.get(..end).filter(|format| !format.is_empty())?);
            after = &formatted[end..];
        }
    } else if opening == "[["
        && let Some(formatted) = after.strip_prefix(':')
    {
        format = Some(word(formatted)?);
        after = &formatted[format?.len()..];
    }
    let after = after.strip_prefix(closing)?;
    let end = at + rest.len() - after.len();
    Some(Variable {
        span: Span::new(at as u32, end as u32),
        name,
        field,
        format,
    })
}

/// The letters, digits and underscores at the beginning of a text, when the first is no digit.
fn word(text: &str) -> Option<&str> {
    let length = text
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_'));
    let word = &text[..length.unwrap_or(text.len())];
    word.bytes()
        .next()
        .filter(|first| !first.is_ascii_digit())
        .map(|_| word)
}
