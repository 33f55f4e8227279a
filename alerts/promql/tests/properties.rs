//! What holds for every text: nothing makes the parser fall, places lie where they should, and what is printed is read
//! as the same tree. Texts are made by a small grammar and by mutation, with a seed that is printed.

use promql::{
    Dialect, ErrorKind, Query, Span,
    ast::{Expr, Matcher},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const DIALECTS: [Dialect; 3] = [Dialect::prometheus(), Dialect::all_features(), Dialect::grafana()];

/// Sound texts of every shape.
const SOUND: &[&str] = &[
    "up",
    "node:cpu:rate5m",
    r#"{__name__=~"a|b", job!="x", "b.c"='d', `e f`!~"g.*",}"#,
    r#"{"metric.name", "label.name"="value"}"#,
    "sum by (job, instance) (rate(http_requests_total{code=~\"5..\"}[5m])) / ignoring (code) group_left (a) sum(b)",
    "topk without (a,) (3, x) unless on () y or z and w",
    "count_values(\"v\", x) == bool 3",
    "quantile_over_time(0.9, x[1h:5m] @ end() offset -1d)",
    "x[5m] smoothed @ start() offset 1h30m",
    "x anchored offset (5m * 2 + step())",
    "avg_over_time(x[max_of(5m, step() * 2)] offset -min_of(1m, range()))",
    "-x ^ -2 ^ 0x1F + 1_000 * .5 % Inf atan2 NaN",
    "a + on (b) group_right (c) fill_left (-1) fill_right (2m) d",
    "a </ 5 >/ 3",
    "sum(x) # why\n  + # because\n y # end",
    "label_replace(x, \"a\", \"$1\", 'b', `(.*)\\d`) and \"\\xff\\u00e9\" == \"\"",
    "vector(time()) - timestamp(x @ 1609746000.123)",
    "sum + by + without + offset + start{a=\"b\"} + step[5m]",
    "rate($metric{job=~\"$job\", $filters}[$__rate_interval]) > ${threshold}",
    "sum by ($by, [[other:csv]]) (foo_${suffix}_total{instance=~\"${instance:regex}\"}[${n}m:$step] offset $off)",
    "$agg by (a) (b) + $fn(c) + $whole + topk($k, d @ $__from)",
    "histogram_quantile(0.95, sum by (le) (rate(latency_bucket[5m])))",
];

const ODD: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "[[",
    "]]",
    "${",
    "$",
    "\"",
    "'",
    "`",
    "\\",
    "#",
    "\n",
    "5m",
    "0x",
    "1e",
    "é",
    "\u{fffd}",
    "\u{0}",
    "offset",
    "@",
    "by (",
    "[5m:",
    "-",
    "^",
    "max_of(",
    "{a=~\"[\"}",
    "=~",
    "😀",
    ":",
    "1_",
    "fill(",
    "$__interval",
    "..",
];

fn seed() -> u64 {
    let told = std::env::var("OPSCTL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(rand::random);
    println!("OPSCTL_SEED={seed}");
    seed
}

/// What holds for a text in a dialect.
fn holds(text: &str, dialect: Dialect) {
    match dialect.parse(text) {
        Ok(query) => holds_for_query(&query, dialect),
        Err(error) => {
            assert!(
                text.get(error.span.range()).is_some(),
                "{text:?}: {error:?} lies outside"
            );
            assert!(
                error.line > 0 && error.column > 0 && !error.message.is_empty(),
                "{error:?}"
            );
        }
    }
}

fn holds_for_query(query: &Query, dialect: Dialect) {
    let text = &*query.text;
    query.expr.walk(&mut |expr| {
        let span = expr.span();
        assert!(
            !span.is_empty() && text.get(span.range()).is_some(),
            "{text:?}: {expr:?}"
        );
        for child in expr.children() {
            assert!(span.contains(child.span()), "{text:?}: {child:?} is not in {expr:?}");
        }
        if let Expr::Selector(selector) = expr {
            let inner = selector.matchers.iter().map(Matcher::span);
            let inner = inner.chain(selector.range.iter().map(|range| range.span));
            inner
                .chain(selector.braces)
                .for_each(|inner| assert!(span.contains(inner), "{text:?}: {selector:?}"));
        }
    });
    let written = |span: &Span| span.of(text).trim_end().to_owned();
    let comments: Vec<String> = query.comments.iter().map(written).collect();
    assert!(
        comments.iter().all(|comment| comment.starts_with('#')),
        "{text:?}: {comments:?}"
    );

    let printed = query.expr.to_string();
    // Prometheus too prints a range of less than a millisecond as none.
    if printed.contains("[0s") || printed.contains(":0s]") {
        return;
    }
    let again = dialect
        .parse(&printed)
        .unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
    assert_eq!(again.expr.to_string(), printed, "{text:?}");
    let pretty = query.pretty();
    let again = dialect
        .parse(&pretty)
        .unwrap_or_else(|error| panic!("{text:?} is printed as {pretty:?}: {error}"));
    assert_eq!(again.expr.to_string(), printed, "{text:?} is printed as {pretty:?}");
    let kept: Vec<String> = again
        .comments
        .iter()
        .map(|span| span.of(&pretty).trim_end().to_owned())
        .collect();
    assert_eq!(kept, comments, "{text:?} is printed as {pretty:?}");
}

#[test]
fn sound_texts_are_read_and_printed() {
    for text in SOUND {
        let query = Dialect::grafana().parse(text);
        // One of them mixes types on purpose: it can be read, but fits together with nothing.
        let meaning = |error: &promql::ParseError| error.kind == ErrorKind::Meaning;
        assert!(query.as_ref().map_or_else(meaning, |_| true), "{text}: {query:?}");
        DIALECTS.iter().for_each(|dialect| holds(text, *dialect));
    }
}

#[test]
fn mutated_texts_hold_what_every_text_holds() {
    let seed = seed();
    let random = &mut StdRng::seed_from_u64(seed);
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
        DIALECTS.iter().for_each(|dialect| holds(&text, *dialect));
    }
}

/// Texts of a grammar that is part of PromQL's: nearly all of them are queries, however deep.
#[test]
fn made_up_queries_are_read_and_printed() {
    let seed = seed();
    let random = &mut StdRng::seed_from_u64(seed);
    let mut read = 0;
    for _ in 0..5000 {
        let text = vector(random, 5);
        read += usize::from(Dialect::all_features().parse(&text).is_ok());
        holds(&text, Dialect::all_features());
    }
    assert!(read > 4900, "only {read} of 5000 are read");
}

fn pick(random: &mut StdRng, from: &[&str]) -> String {
    (*from.choose(random).unwrap()).to_owned()
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
    let mut text = String::new();
    if random.random_bool(0.2) {
        text += &format!(
            " offset {}",
            pick(random, &["5m", "-1h", "(step() * 2)", "- -5m", "0s"])
        );
    }
    if random.random_bool(0.2) {
        text += &format!(
            " @ {}",
            pick(random, &["start()", "end()", "1609746000", "-5.25", "1h"])
        );
    }
    text
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
        "(".repeat(150) + "a" + &")".repeat(150),
        "abs(".repeat(150) + "a" + &")".repeat(150),
        "a+".repeat(900) + "a",
        "a[5m*".to_owned() + &"(".repeat(100) + "2" + &")".repeat(100) + "]",
        "sum(".repeat(90) + &"a or ".repeat(700) + "a" + &")".repeat(90),
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
