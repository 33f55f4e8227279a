//! A text that a simple pattern matches: what series of a test are labelled with. It knows literals, `.`, classes, groups,
//! alternatives (the first is taken) and repetition (the least is taken), and says so when it meets anything else.

/// Groups inside of groups.
const DEPTH: usize = 16;
/// No example is longer: `a{1000}{1000}` is no label.
const LENGTH: usize = 256;

/// A text that `pattern` matches as a whole; none for what is not simple.
pub(super) fn of(pattern: &str) -> Option<String> {
    let mut rest = pattern;
    let text = alternatives(&mut rest, 0)?;
    rest.is_empty().then_some(text)
}

fn alternatives(rest: &mut &str, depth: usize) -> Option<String> {
    let first = sequence(rest, depth)?;
    while let Some(after) = rest.strip_prefix('|') {
        *rest = after;
        sequence(rest, depth)?;
    }
    Some(first)
}

fn sequence(rest: &mut &str, depth: usize) -> Option<String> {
    let mut text = String::new();
    while let Some(c) = rest.chars().next() {
        if c == '|' || c == ')' {
            break;
        }
        let one = atom(rest, depth)?;
        let times = repetition(rest)?;
        if text.len() + one.len() * times > LENGTH {
            return None;
        }
        text.push_str(&one.repeat(times));
    }
    Some(text)
}

fn atom(rest: &mut &str, depth: usize) -> Option<String> {
    let c = rest.chars().next()?;
    let after = &rest[c.len_utf8()..];
    match c {
        '(' if depth < DEPTH => {
            *rest = after.strip_prefix("?:").unwrap_or(after);
            let inner = alternatives(rest, depth + 1)?;
            *rest = rest.strip_prefix(')')?;
            Some(inner)
        }
        '[' => {
            let (class, behind) = after.split_once(']')?;
            let first = class.chars().next().filter(|c| !"^[\\".contains(*c))?;
            *rest = behind;
            Some(first.to_string())
        }
        '\\' => {
            let escaped = after.chars().next()?;
            *rest = &after[escaped.len_utf8()..];
            match escaped {
                'd' => Some("0".to_owned()),
                'w' => Some("a".to_owned()),
                c if !c.is_alphanumeric() => Some(c.to_string()),
                _ => None,
            }
        }
        '.' => {
            *rest = after;
            Some("x".to_owned())
        }
        '(' | '*' | '+' | '?' | '{' | '^' | '$' => None,
        c => {
            *rest = after;
            Some(c.to_string())
        }
    }
}

/// How often what stands before is taken.
fn repetition(rest: &mut &str) -> Option<usize> {
    let (times, after) = match rest.chars().next() {
        Some('?' | '*') => (0, &rest[1..]),
        Some('+') => (1, &rest[1..]),
        Some('{') => {
            let (count, after) = rest[1..].split_once('}')?;
            let least = count.split_once(',').map_or(count, |(least, _)| least);
            (least.parse().ok().filter(|times| *times <= LENGTH)?, after)
        }
        _ => return Some(1),
    };
    *rest = after;
    Some(times)
}
