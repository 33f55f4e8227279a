//! What holds for every text: nothing makes the parser fall, places lie where they should, and what is printed is read
//! as the same tree. Texts are made by a small grammar and by mutation, with a seed that is printed.

#[path = "../../fuzz/src/language.rs"]
#[allow(dead_code, reason = "the targets are run with those of other readers")]
mod language;

use fixtures::fuzzing::seed;
use language::{DIALECTS, ODD, SOUND, holds, holds_for_query};
use promql::{Dialect, ErrorKind};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

#[test]
fn sound_texts_are_read_and_printed() {
    for text in SOUND {
        let query = Dialect::grafana().parse(text);
        // One of them mixes types on purpose: it can be read, but fits together with nothing.
        let meaning = |error: &promql::ParseError| error.kind == ErrorKind::Meaning;
        assert!(query.as_ref().map_or_else(meaning, |_| true), "{text}: {query:?}");
        for dialect in DIALECTS {
            holds(text, dialect);
        }
    }
}

#[test]
fn mutated_texts_hold_what_every_text_holds() {
    let random = &mut StdRng::seed_from_u64(seed());
    for _ in 0..20_000 {
        let mut text: Vec<char> = SOUND.choose(random).unwrap().chars().collect();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..=text.len());
            let end = (at + random.random_range(0..12)).min(text.len());
            let other: Vec<char> = match random.random_range(0..3) {
                0 => ODD.choose(random).unwrap().chars().collect(),
                1 => SOUND.choose(random).unwrap().chars().collect(),
                _ => text[at..end].to_vec(),
            };
            let end = if random.random_bool(0.5) { at } else { end };
            text.splice(at..end, other);
        }
        let text: String = text.into_iter().collect();
        for dialect in DIALECTS {
            holds(&text, dialect);
        }
    }
}

/// Texts of a grammar that is part of PromQL's: nearly all of them are queries, however deep.
#[test]
fn made_up_queries_are_read_and_printed() {
    let random = &mut StdRng::seed_from_u64(seed());
    let mut read = 0;
    for _ in 0..5000 {
        let text = vector(random, 5);
        read += usize::from(Dialect::all_features().parse(&text).is_ok());
        holds(&text, Dialect::all_features());
    }
    assert!(read > 4900, "only {read} of 5000 are read");
}

fn pick(random: &mut StdRng, from: &[&str]) -> String {
    (*from.choose(random).expect("there is something to pick")).to_owned()
}

fn labels(random: &mut StdRng) -> String {
    pick(random, &["", "a", "a, b", "a,", "\"a.b\"", "sum, on", "le"])
}

fn duration(random: &mut StdRng, depth: u32) -> String {
    if depth == 0 || random.random_bool(0.6) {
        return pick(random, &["5m", "1h30m", "300", "step()", "0x1F", "1.5"]);
    }
    let (left, right) = (duration(random, depth - 1), duration(random, depth - 1));
    match random.random_range(0..4) {
        0 => format!("({left})"),
        1 => format!("{}({left}, {right})", pick(random, &["min_of", "MAX_OF"])),
        2 => format!("(-({left}))"),
        _ => format!("{left} {} {right}", pick(random, &["+", "-", "*", "/", "%", "^"])),
    }
}

fn selector(random: &mut StdRng) -> String {
    let name = pick(random, &["up", "a:b", "sum", "offset", "fill", "or"]);
    let braces = pick(
        random,
        &["", "{}", "{a=\"b\"}", "{a=~'x|y',}", "{\"c d\"!=`e`,f!~\"g.+\"}"],
    );
    name + &braces
}

fn modifiers(random: &mut StdRng) -> String {
    // Not an offset in bare parentheses: Prometheus prints `@` before it, and an operator behind the parentheses then
    // belongs to the offset, so that it cannot read what it printed.
    let offset = match random.random_range(0..5) {
        0 => " offset ".to_owned() + &pick(random, &["5m", "-1h", "step()", "-(step() * 2)", "0s"]),
        _ => String::new(),
    };
    match random.random_range(0..5) {
        0 => offset + " @ " + &pick(random, &["start()", "end()", "1609746000", "-5.25", "1h"]),
        _ => offset,
    }
}

fn matrix(random: &mut StdRng, depth: u32) -> String {
    // A range that begins with a call is taken only after another range: parentheses do not help either.
    let range = format!("5m + {}", duration(random, 2));
    let (inner, step) = if depth == 0 || random.random_bool(0.6) {
        (selector(random), String::new())
    } else {
        (
            format!("({})", vector(random, depth - 1)),
            pick(random, &[":", ":1m", ":step() * 2"]),
        )
    };
    format!("{inner}[{range}{step}]{}", modifiers(random))
}

fn scalar(random: &mut StdRng, depth: u32) -> String {
    if depth == 0 || random.random_bool(0.5) {
        return pick(random, &["1", "-2.5", "0x1F", "Inf", "time()", "1h", "+3"]);
    }
    format!("scalar({})", vector(random, depth - 1))
}

fn vector(random: &mut StdRng, depth: u32) -> String {
    if depth == 0 || random.random_bool(0.2) {
        return selector(random) + &modifiers(random);
    }
    let depth = depth - 1;
    match random.random_range(0..8) {
        0 => format!("rate({})", matrix(random, depth)),
        1 => format!(
            "clamp({}, {}, {})",
            vector(random, depth),
            scalar(random, depth),
            scalar(random, depth)
        ),
        2 => format!("({}) # {}\n", vector(random, depth), pick(random, &["", "why", "{[("])),
        3 => format!("-{}", vector(random, depth)),
        4 => {
            let (by, labels) = (pick(random, &["by", "WITHOUT"]), labels(random));
            format!(
                "topk {by} ({labels}) ({}, {})",
                scalar(random, depth),
                vector(random, depth)
            )
        }
        5 => format!("sum({}) by ({})", vector(random, depth), labels(random)),
        6 => {
            let op = pick(
                random,
                &[
                    "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<= bool", "</", ">/",
                ],
            );
            let matching = pick(
                random,
                &[
                    "",
                    "on (a)",
                    "ignoring ()",
                    "on (a) group_left",
                    "ignoring (b) group_right (c)",
                ],
            );
            let fill = pick(random, &["", "fill (0)", "fill_left (-1) fill_right (Inf)"]);
            format!(
                "{} {op} {matching} {fill} {}",
                vector(random, depth),
                vector(random, depth)
            )
        }
        _ => {
            let op = pick(random, &["and", "or", "unless", "AND on (a)", "or ignoring (b)"]);
            format!("{} {op} {}", vector(random, depth), vector(random, depth))
        }
    }
}

/// Nothing is so deep or long that reading, checking, printing or forgetting it fails otherwise than with an error.
#[test]
fn hostile_texts_are_refused_with_a_limit() {
    let deep = [
        "(".repeat(1_000_000),
        "-".repeat(1_000_000) + "1",
        "abs(".repeat(500_000),
        "sum by (a) (".repeat(300_000),
        "a[".repeat(500_000),
        "a".to_owned() + &"[5m:]".repeat(500_000),
        "a[5m+".to_owned() + &"(".repeat(1_000_000),
        "a offset ".to_owned() + &"-".repeat(1_000_000) + "5m",
        "a^".repeat(1_000_000) + "a",
        "a+".repeat(1_000_000) + "a",
        "a offset (5m)".to_owned() + &"*2".repeat(500_000),
        "a".repeat(5 << 20),
    ];
    for text in &deep {
        for dialect in DIALECTS {
            let error = dialect.parse(text).expect_err(&text[..20]);
            let limited = matches!(error.kind, ErrorKind::Limit);
            assert!(limited || error.kind == ErrorKind::Syntax, "{}: {error}", &text[..20]);
            holds(&text[..2000], dialect);
        }
    }
}

/// What is just within the limits is read, printed and forgotten on a thread with little room.
#[test]
fn the_limits_fit_on_a_small_stack() {
    let texts = [
        "(".repeat(95) + "a" + &")".repeat(95),
        "abs(".repeat(95) + "a" + &")".repeat(95),
        "-(".repeat(45) + "a" + &")".repeat(45),
        "a+".repeat(495) + "a",
        "a[5m*".to_owned() + &"(".repeat(95) + "2" + &")".repeat(95) + "]",
        "sum(".repeat(95) + &"a or ".repeat(400) + "a" + &")".repeat(95),
    ];
    let check = move || {
        for text in &texts {
            holds_for_query(
                &promql::parse(text).unwrap_or_else(|error| panic!("{error}")),
                Dialect::prometheus(),
            );
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(check);
    thread.unwrap().join().unwrap();
}
