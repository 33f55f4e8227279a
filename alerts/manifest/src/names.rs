//! Names like a name, for "did you mean".

/// Nobody mistypes longer names, and to compare them takes the product of their lengths.
const LONGEST: usize = 200;

/// Those of `names` that are near `wanted`, nearest first, `limit` at most. Near means that less than a third of it was
/// changed, or that one holds all words of the other; nothing is nearer than the same with its unit.
pub fn closest<N: AsRef<str>>(wanted: &str, names: impl IntoIterator<Item = N>, limit: usize) -> Vec<String> {
    if wanted.len() > LONGEST {
        return Vec::new();
    }
    let wanted_chars: Vec<char> = wanted.chars().collect();
    let bound = (wanted_chars.len() / 3).max(1);
    let mut near: Vec<(usize, String)> = names
        .into_iter()
        .filter_map(|name| {
            let name = name.as_ref();
            let distance = if lacks_unit(name, wanted) {
                1
            } else {
                distance(&wanted_chars, name, bound)
                    .or_else(|| (name.len() > wanted.len() && holds_words(name, wanted)).then_some(bound))?
            };
            Some((distance, name.to_owned()))
        })
        .collect();
    near.sort();
    near.dedup();
    near.truncate(limit);
    near.into_iter().map(|(_, name)| name).collect()
}

/// Whether one of two names is the other with a slip of the pen: a letter or two, or a unit that is missing.
pub fn is_typo(wanted: &str, name: &str) -> bool {
    let chars: Vec<char> = wanted.chars().collect();
    lacks_unit(name, wanted) || distance(&chars, name, 2).is_some()
}

/// Whether `name` is `wanted` with a unit or `_total` behind it, as exporters have renamed their metrics.
fn lacks_unit(name: &str, wanted: &str) -> bool {
    const UNITS: &[&str] = &[
        "_bytes",
        "_seconds",
        "_ratio",
        "_total",
        "_bytes_total",
        "_seconds_total",
    ];
    name.strip_prefix(wanted).is_some_and(|rest| UNITS.contains(&rest))
}

fn holds_words(name: &str, wanted: &str) -> bool {
    wanted.contains('_') && wanted.split('_').all(|word| name.split('_').any(|other| other == word))
}

/// The number of characters to insert, delete, replace or swap with their neighbour, or `None` above `bound`.
fn distance(wanted: &[char], name: &str, bound: usize) -> Option<usize> {
    let name: Vec<char> = name.chars().collect();
    if name.len().abs_diff(wanted.len()) > bound {
        return None;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=name.len()).collect();
    for (row, &expected) in wanted.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &found) in name.iter().enumerate() {
            let replaced = last[column] + usize::from(expected != found);
            let mut least = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && expected == name[column - 1] && wanted[row - 1] == found {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        if current.iter().all(|&cost| cost > bound) {
            return None;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().filter(|&cost| cost <= bound)
}
