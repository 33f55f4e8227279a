//! Small changes to expressions: what is cut, doubled, swapped, or replaced by what is odd.

use promql::Dialect;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::corpus::Expression;

/// Changes for each run of the tests; the environment's `OPSCTL_MUTATIONS` asks for more.
const COUNT: usize = 3000;

/// What tends to be special somewhere.
const ODD: &[&str] = &[
    " ",
    "\n",
    "# c\n",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "=",
    "==",
    "=~",
    "!~",
    "!=",
    "</",
    ">/",
    "<",
    ">",
    "@",
    "^",
    "*",
    "/",
    "%",
    "+",
    "-",
    ".",
    "_",
    "0",
    "1",
    "5m",
    "1h30m",
    "0x1F",
    "1e3",
    "1_0",
    "017",
    "Inf",
    "NaN",
    "1.5",
    ".5",
    "5.",
    "0s",
    "100y",
    "and",
    "or",
    "unless",
    "atan2",
    "sum",
    "topk",
    "count_values",
    "quantile",
    "limitk",
    "offset",
    "offset -5m",
    "offset (5m)",
    "anchored",
    "smoothed",
    "by",
    "by (a)",
    "without (a,)",
    "on",
    "on (a)",
    "ignoring ()",
    "group_left",
    "group_right (a)",
    "fill (0)",
    "fill_left(-1)",
    "fill_right (1m)",
    "fill",
    "bool",
    "start",
    "end",
    "step",
    "range",
    "step()",
    "range()",
    "max_of(1m,2m)",
    "min_of(step(), 5)",
    "@ start()",
    "@ end()",
    "@ -5",
    "[5m]",
    "[5m:]",
    "[5m:1m]",
    "[step()]",
    "[(5m)]",
    "[5m*2]",
    "[-5m]",
    "[5m+1s:2]",
    "foo",
    "a:b",
    ":",
    "{a=\"b\"}",
    "{\"foo\"}",
    "{\"a b\"=~\"c.*\"}",
    "{__name__=\"x\"}",
    "{a!=\"\"}",
    "{a=~\".*\"}",
    "{a!~\".+\"}",
    "{}",
    "\"x\"",
    "'y'",
    "`z`",
    "\"\\xff\"",
    "\"\\u00e9\"",
    "'\\''",
    "\"\\q\"",
    "é",
    "\u{fffd}",
    "rate(foo[5m])",
    "time()",
    "info(foo, {a=\"b\"})",
    "vector(1)",
    "scalar(foo)",
    "label_join(a, \"b\", \"c\")",
    "round(a, 2)",
    "pi()",
];

pub fn seed() -> u64 {
    from_environment("OPSCTL_SEED").unwrap_or_else(rand::random)
}

pub fn count() -> usize {
    from_environment("OPSCTL_MUTATIONS").unwrap_or(COUNT)
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

pub fn mutations(expressions: &[Expression], seed: u64, count: usize) -> Vec<Expression> {
    let random = &mut StdRng::seed_from_u64(seed);
    // Short ones: what is in long ones is in them too, and a change hits something more often.
    let sound: Vec<&str> = expressions
        .iter()
        .map(|expression| expression.text.as_str())
        .filter(|text| text.len() < 200 && Dialect::all_features().parse(text).is_ok())
        .collect();
    let mutation = |number| {
        let mut text = (*sound.choose(random).expect("there are expressions")).to_owned();
        for _ in 0..random.random_range(1..4) {
            change(&mut text, &sound, random);
        }
        Expression {
            origin: format!("mutation {number}"),
            text,
        }
    };
    (0..count).map(mutation).collect()
}

fn change(text: &mut String, others: &[&str], random: &mut StdRng) {
    let bounds = boundaries(text, random);
    let place = |random: &mut StdRng| *bounds.choose(random).expect("there is a boundary");
    let (a, b) = (place(random), place(random));
    let (from, to) = (a.min(b), a.max(b));
    let odd = *ODD.choose(random).expect("there is something odd");
    match random.random_range(0..8) {
        0 => text.insert_str(from, odd),
        1 => {
            let next = *bounds.iter().find(|bound| **bound > from).unwrap_or(&from);
            text.replace_range(from..next, odd);
        }
        2 => {
            let next = *bounds.iter().find(|bound| **bound > from).unwrap_or(&from);
            text.replace_range(from..next, "");
        }
        3 if to - from < 20 => text.replace_range(from..to, ""),
        4 if to - from < 40 => {
            let again = text[from..to].to_owned();
            text.insert_str(to, &again);
        }
        5 => {
            let other = *others.choose(random).expect("there are others");
            text.insert_str(from, other);
        }
        6 => {
            let other = *others.choose(random).expect("there are others");
            *text = format!("{text} {odd} {other}");
        }
        _ => *text = format!("({text}) {odd}"),
    }
}

/// Where changes may begin: between words mostly, sometimes between any two characters.
fn boundaries(text: &str, random: &mut StdRng) -> Vec<usize> {
    let anywhere = random.random_bool(0.3);
    let word = |character: char| character.is_alphanumeric() || character == '_';
    let mut before = None;
    let mut bounds = vec![0];
    for (at, character) in text.char_indices() {
        if anywhere || before.is_some_and(|before: char| !(word(before) && word(character))) {
            bounds.push(at);
        }
        before = Some(character);
    }
    bounds.push(text.len());
    bounds
}
