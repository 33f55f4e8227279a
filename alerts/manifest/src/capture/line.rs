//! One line of a capture: a name, labels, a value. What lines mean together is said above.

/// A sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of its series.
    pub name: String,
    /// Labels as they stand there.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// A name at the beginning of `text`, in quotes or not, and what follows it.
pub(super) fn name(text: &str) -> Result<(String, &str), String> {
    if text.starts_with('"') {
        let named = quoted(text)?;
        return if named.0.is_empty() {
            Err("a name is empty".to_owned())
        } else {
            Ok(named)
        };
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(text.len());
    if end == 0 {
        return Err("a name is missing".to_owned());
    }
    Ok((text[..end].to_owned(), &text[end..]))
}

/// Reads one line of a capture, `name{label="value"} 1 1700000000 # {exemplar="…"} 1`.
///
/// # Errors
/// What is wrong with it.
pub fn sample(text: &str) -> Result<Sample, String> {
    let text = text.trim_start();
    let (mut series, mut rest) = if text.starts_with('{') {
        (String::new(), text)
    } else {
        name(text)?
    };
    rest = rest.trim_start();
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.trim_start();
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = label(rest)?;
            match after.trim_start().strip_prefix('=') {
                Some(after) => {
                    let (value, after) = quoted(after.trim_start())?;
                    labels.push((label, value));
                    rest = after;
                }
                // A metric's name in quotes stands first among the labels.
                None if series.is_empty() => {
                    series = label;
                    rest = after;
                }
                None => return Err(format!("the label `{label}` has no value")),
            }
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after.trim_start(),
                None if rest.starts_with('}') => {}
                None => return Err("a comma or `}` is missing between labels".to_owned()),
            }
        }
    }
    if series.is_empty() {
        return Err("a sample has no name".to_owned());
    }
    let value = rest.split_whitespace().next().unwrap_or_default();
    let value = value
        .parse()
        .map_err(|_| format!("`{value}` is no value of `{series}`"))?;
    Ok(Sample {
        name: series,
        labels,
        value,
    })
}

fn label(text: &str) -> Result<(String, &str), String> {
    if text.starts_with('"') {
        return quoted(text);
    }
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '=' | ',' | '}'));
    match end {
        Some(end) if end > 0 => Ok((text[..end].to_owned(), &text[end..])),
        _ => Err("a label has no name or no end".to_owned()),
    }
}

/// Text in double quotes with `\\`, `\"` and `\n`, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    if characters.next().is_none_or(|(_, first)| first != '"') {
        return Err("a quote is missing".to_owned());
    }
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, other)) => out.push(other),
                None => break,
            },
            other => out.push(other),
        }
    }
    Err("a text in quotes has no end".to_owned())
}
