//! Selectors with regular expressions that are put together at random: each is taken with `=~` alone, with `!~` alone, or
//! not at all, by whether it matches the empty text and whether it is one.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::corpus::Expression;

const PARTS: &[&str] = &[
    "a",
    "b|",
    "|",
    "(",
    ")",
    "(?:",
    "(?i)",
    "(?P<n>",
    "(?<n>",
    "(?P<",
    "(?-i:",
    "(?",
    "(?i",
    "[",
    "]",
    "[^",
    "[a-z]",
    "[z-a]",
    "[]a]",
    "[[:alpha:]]",
    "[[:^digit:]]",
    "[[:x:]]",
    "[\\d-]",
    "[a-\\d]",
    "[\\x41-Z]",
    "*",
    "+",
    "?",
    "*?",
    "+?",
    "??",
    "{2}",
    "{0,}",
    "{,3}",
    "{1,1001}",
    "{500}",
    "{3,2}",
    "{",
    "}",
    "{01}",
    ".",
    "^",
    "$",
    "\\",
    "\\d",
    "\\W",
    "\\b",
    "\\B",
    "\\A",
    "\\z",
    "\\Z",
    "\\pL",
    "\\p{Greek}",
    "\\P{^Lu}",
    "\\p{Nope}",
    "\\p",
    "\\x41",
    "\\x{1F600}",
    "\\x{110000}",
    "\\x{D800}",
    "\\xZ",
    "\\0",
    "\\12",
    "\\8",
    "\\Q",
    "\\E",
    "\\Q*\\E",
    "\\a",
    "\\y",
    "\\C",
    "\\_",
    "\\é",
    "é",
    "-",
    "&&",
    " ",
    "(a|b*)",
    "(a{30}){30}",
    ".*",
    ".+",
    "x{0}",
    "(?s).",
    "\u{10ffff}",
];

pub fn selectors(seed: u64, count: usize) -> Vec<Expression> {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut selectors = Vec::new();
    for _ in 0..count {
        let parts = random.random_range(1..7);
        let regex: String = (0..parts)
            .map(|_| *PARTS.choose(random).expect("there are parts"))
            .collect();
        for op in ["=~", "!~"] {
            selectors.push(Expression {
                origin: "made up".to_owned(),
                text: format!("{{a{op}`{regex}`}}"),
            });
        }
    }
    selectors
}
