//! Where a long PromQL expression is broken into lines: at its loosest operator, then inside of its brackets. Only white
//! space is added; what it means is not looked at.

/// No line is longer than this where that can be had.
const WIDTH: usize = 100;
/// Brackets inside of brackets; what is deeper stays on its line.
const DEPTH: usize = 32;

/// The expression in lines.
pub fn lines(expression: &str) -> String {
    let flat = flat(expression);
    let mut out = Vec::new();
    lay(&flat, 0, 0, &mut out);
    out.join("\n")
}

/// On one line, with single spaces outside of strings.
fn flat(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    for piece in pieces(expression) {
        match piece {
            Piece::Other(text) => {
                for c in text.chars() {
                    if c == ')' && out.ends_with(' ') {
                        out.pop();
                    }
                    if !c.is_whitespace() {
                        out.push(c);
                    } else if !out.ends_with([' ', '(']) && !out.is_empty() {
                        out.push(' ');
                    }
                }
            }
            Piece::Quoted(text) => out.push_str(text),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn lay(expression: &str, indent: usize, depth: usize, out: &mut Vec<String>) {
    let pad = " ".repeat(indent);
    if indent + expression.len() <= WIDTH || depth > DEPTH {
        out.push(pad + expression);
        return;
    }
    if let Some((operands, operators)) = split(expression) {
        for (index, operand) in operands.iter().enumerate() {
            match index.checked_sub(1).map(|before| operators[before]) {
                Some(operator) if indent + operator.len() + operand.len() < WIDTH => {
                    out.push(format!("{pad}{operator} {operand}"));
                }
                operator => {
                    out.extend(operator.map(|operator| format!("{pad}{operator}")));
                    lay(operand, indent, depth + 1, out);
                }
            }
        }
    } else if let Some((head, arguments, tail)) = call(expression) {
        out.push(format!("{pad}{head}("));
        for (index, argument) in arguments.iter().enumerate() {
            lay(argument, indent + 2, depth + 1, out);
            if index + 1 < arguments.len()
                && let Some(last) = out.last_mut()
            {
                last.push(',');
            }
        }
        out.push(format!("{pad}){tail}"));
    } else {
        out.push(pad + expression);
    }
}

/// A part of an expression.
enum Piece<'a> {
    /// A string, a selector's braces or a range: nothing in it is an operator.
    Quoted(&'a str),
    /// Anything else.
    Other(&'a str),
}

fn pieces(expression: &str) -> Vec<Piece<'_>> {
    let bytes = expression.as_bytes();
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let quote = bytes[at];
        if matches!(quote, b'"' | b'\'' | b'`') {
            pieces.push(Piece::Other(&expression[start..at]));
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != quote {
                end += if bytes[end] == b'\\' && quote != b'`' { 2 } else { 1 };
            }
            let end = (end + 1).min(bytes.len());
            pieces.push(Piece::Quoted(expression.get(at..end).unwrap_or(&expression[at..])));
            (start, at) = (end, end);
        } else {
            at += 1;
        }
    }
    pieces.push(Piece::Other(expression.get(start..).unwrap_or_default()));
    pieces
}

/// Operators by how loosely they bind, the loosest first.
const OPERATORS: [&[&str]; 5] = [
    &["or"],
    &["and", "unless"],
    &["==", "!=", "<=", ">=", "<", ">"],
    &["+", "-"],
    &["*", "/", "%", "atan2"],
];

/// Operands and operators, these with what is matched on, at the loosest level that there is outside of brackets.
fn split(expression: &str) -> Option<(Vec<&str>, Vec<&str>)> {
    let top = top_level(expression);
    for level in OPERATORS {
        let (mut operands, mut operators, mut start) = (Vec::new(), Vec::new(), 0);
        let mut index = 0;
        while index < top.len() {
            let (at, word) = top[index];
            index += 1;
            if at == 0 || !level.contains(&word) {
                continue;
            }
            let mut end = at + word.len();
            // `on (…)`, `group_left (…)`, `bool` belong to the operator.
            while let Some((modifier_at, modifier)) = top.get(index) {
                if !matches!(*modifier, "on" | "ignoring" | "group_left" | "group_right" | "bool") {
                    break;
                }
                let after = modifier_at + modifier.len();
                end = if expression[after..].trim_start().starts_with('(') {
                    after + expression[after..].find(')')? + 1
                } else {
                    after
                };
                index += 1;
            }
            operands.push(expression[start..at].trim());
            operators.push(&expression[at..end]);
            start = end;
        }
        if !operators.is_empty() {
            operands.push(expression[start..].trim());
            return Some((operands, operators));
        }
    }
    None
}

/// Words and signs outside of brackets and strings, with their places.
fn top_level(expression: &str) -> Vec<(usize, &str)> {
    let (mut found, mut depth, mut base) = (Vec::new(), 0_usize, 0);
    for piece in pieces(expression) {
        let text = match piece {
            Piece::Quoted(text) => {
                base += text.len();
                continue;
            }
            Piece::Other(text) => text,
        };
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let c = rest.chars().next().unwrap_or(' ');
            let length = match c {
                c if c.is_ascii_alphanumeric() || "_:.".contains(c) => rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "_:.".contains(c)))
                    .unwrap_or(rest.len()),
                _ if ["==", "!=", "<=", ">="].iter().any(|sign| rest.starts_with(sign)) => 2,
                c => c.len_utf8(),
            };
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                c if depth == 0 && !c.is_whitespace() => {
                    found.push((base + at, &expression[base + at..base + at + length]));
                }
                _ => {}
            }
            at += length;
        }
        base += text.len();
    }
    found
}

/// `head(arguments)tail`, where the first bracket is the outermost that can be broken.
fn call(expression: &str) -> Option<(&str, Vec<&str>, &str)> {
    let (open, close, commas) = brackets(expression)?;
    let mut arguments = Vec::new();
    let mut start = open + 1;
    for comma in commas {
        arguments.push(expression[start..comma].trim());
        start = comma + 1;
    }
    arguments.push(expression[start..close].trim());
    Some((&expression[..open], arguments, &expression[close + 1..]))
}

/// The longest bracket outside of all others: `(` and `)`, and the commas right inside of it.
fn brackets(expression: &str) -> Option<(usize, usize, Vec<usize>)> {
    let mut best: Option<(usize, usize, Vec<usize>)> = None;
    let (mut open, mut commas) = (0, Vec::new());
    let (mut depth, mut base) = (0_usize, 0);
    for piece in pieces(expression) {
        let (text, quoted) = match piece {
            Piece::Quoted(text) => (text, true),
            Piece::Other(text) => (text, false),
        };
        for (at, c) in text.char_indices().filter(|_| !quoted) {
            match c {
                '(' | '{' | '[' => {
                    if depth == 0 {
                        (open, commas) = (base + at, Vec::new());
                    }
                    depth += 1;
                }
                ')' | '}' | ']' => {
                    depth = depth.checked_sub(1)?;
                    let longer = best
                        .as_ref()
                        .is_none_or(|(start, end, _)| base + at - open > end - start);
                    if depth == 0 && c == ')' && expression[open..].starts_with('(') && longer {
                        best = Some((open, base + at, std::mem::take(&mut commas)));
                    }
                }
                ',' if depth == 1 => commas.push(base + at),
                _ => {}
            }
        }
        base += text.len();
    }
    best.filter(|_| depth == 0)
}

#[cfg(test)]
mod tests;
