//! Patterns of file names as Go's `filepath.Glob` reads them: `*`, `?`, `[a-z]` and `\` within one part of a path.
//! There is no `**`.

use std::path::{Component, Path, PathBuf};

/// How many files one pattern may give.
const MOST: usize = 10_000;

/// The files that a pattern gives, sorted; a pattern without any sign is a file, if it is there.
pub(super) fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        let literal = !matches!(part, Component::Normal(_)) || !text.contains(['*', '?', '[', '\\']);
        let mut next = Vec::new();
        for folder in found {
            if literal {
                next.push(folder.join(part));
                continue;
            }
            let here = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &folder
            };
            let mut names: Vec<_> = std::fs::read_dir(here)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name())
                .filter(|name| matches(text.as_bytes(), name.as_encoded_bytes()))
                .collect();
            names.sort();
            next.extend(names.into_iter().map(|name| folder.join(name)));
            next.truncate(MOST);
        }
        found = next;
    }
    // Neither folders nor devices, which promtool would read for ever.
    found.retain(|path| path.is_file());
    found
}

/// Whether one part of a path fits. The last `*` seen is the only one that is tried again, so that the time is bounded
/// by the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star = None;
    while position < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, position));
            at += 1;
            continue;
        }
        if let Some(width) = one(&pattern[at..], name[position]) {
            at += width;
            position += 1;
            continue;
        }
        let Some((after, from)) = star else { return false };
        star = Some((after, from + 1));
        at = after + 1;
        position = from + 1;
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// How long the sign at the start of `pattern` is, if it stands for `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' => (pattern.get(1) == Some(&byte)).then_some(2),
        b'[' => class(pattern, byte),
        plain => (plain == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let first = at;
    let mut inside = false;
    loop {
        match *pattern.get(at)? {
            b']' if at > first => break,
            low => {
                let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
                    (Some(b'-'), Some(high)) if *high != b']' => *high,
                    _ => low,
                };
                at += if high == low { 1 } else { 3 };
                inside |= (low..=high).contains(&byte);
            }
        }
    }
    (inside != negated).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_stay_within_one_part() {
        for (pattern, name, fits) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", "a.yml", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[", "[", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
        let long = "a".repeat(5_000);
        assert!(!matches("*a*a*a*a*a*a*a*b".as_bytes(), long.as_bytes()));
    }

    #[test]
    fn files_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yaml", "c.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("d.yaml")).unwrap();
        let found = glob(&folder.path().join("*.yaml"));
        assert_eq!(found, [folder.path().join("a.yaml"), folder.path().join("b.yaml")]);
        assert_eq!(glob(&folder.path().join("c.txt")), [folder.path().join("c.txt")]);
        assert!(glob(&folder.path().join("d.txt")).is_empty());
        assert!(glob(Path::new("/dev/zero")).is_empty());
    }
}
