//! Files that are far larger than any that people write, each with very much of one thing: whatever it is much of, they are
//! answered in time that grows with the file and not with its square.
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use alerts::check::{Options, check};
use alerts::routing::{self, Suite};
use alerts::test::{TestFile, plain};
use lint::{Report, SourceFile};
use manifest::Manifest;
use manifest::capture::{LIMITS, read};

/// Bytes of a file. What is not optimised is slow, and has a smaller one: it is the square that is looked for.
const SIZE: usize = if cfg!(debug_assertions) { 64 << 10 } else { 10 << 20 };
/// What takes the square of that takes hours.
const BOUND: Duration = Duration::from_mins(1);

/// So many pieces, each made of its number, that there is a file of them.
fn much(piece: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(SIZE + 1000);
    let mut number = 0;
    while text.len() < SIZE {
        let _ = writeln!(text, "{}", piece(number));
        number += 1;
    }
    text
}

fn rules(rules: &str) -> String {
    format!("groups:\n- name: a\n  rules:\n{rules}")
}

fn one(expr: &str) -> String {
    rules(&format!("  - {{alert: A, expr: '{expr}'}}\n"))
}

fn look(text: String) -> Report {
    let options = Options::new(Manifest::catalogue(), "2026-11-23".parse().expect("a day"));
    check(vec![SourceFile::new("large.yaml", text)], &options)
}

#[test]
fn much_of_anything_in_rules_and_routes_is_answered_in_time() {
    let routes = |routes: &str| format!("route:\n  receiver: all\n  routes:\n{routes}receivers: [{{name: all}}]\n");
    let flow = much(|n| format!("{{alert: A{n}, expr: up == {n}}},")).replace('\n', " ");
    let bomb =
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned() + &much(|n| format!("b{n}: [*a, *a, *a, *a, *a, *a]"));
    let cases = [
        (
            "one alert many times",
            rules(&much(|n| format!("  - {{alert: A, expr: up == {n}}}"))),
        ),
        (
            "the same rule many times",
            rules(&much(|_| "  - {record: a, expr: up}".to_owned())),
        ),
        (
            "many rules on one line",
            format!("groups: [{{name: a, rules: [{flow}]}}]"),
        ),
        ("comments that suppress", {
            let comments = much(|_| "# opsctl ignore-file(no-for, no-summary) until 2026-12-31: why".to_owned());
            comments + &rules(&much(|n| format!("  - {{alert: A{n}, expr: up == 0}}")))
        }),
        (
            "unknown metrics",
            rules(&much(|n| format!("  - {{alert: A{n}, expr: a_{n}_total > 5}}"))),
        ),
        (
            "matchers",
            one(&format!(
                "up{{{}}} == 0",
                much(|n| format!("l{n}=\"v\",")).replace('\n', " ")
            )),
        ),
        (
            "labels",
            one(&format!(
                "sum by ({}) (up) == 0",
                much(|n| format!("l{n},")).replace('\n', " ")
            )),
        ),
        ("labels in a chain", {
            let labels = much(|n| format!("l{n}=\"v\",")).replace('\n', " ");
            one(&format!("up{{{labels}}}{} == 0", " + 1".repeat(400)))
        }),
        ("labels that are compared", {
            let labels = much(|n| format!("l{n},")).replace('\n', " ");
            one(&format!(
                "up / on ({labels}) group_left ({}) up == 0",
                labels.replace('l', "m")
            ))
        }),
        ("matchers on both sides", {
            let labels = much(|n| format!("l{n}=\"v\",")).replace('\n', " ");
            one(&format!(
                "absent(up{{{labels}}}) or up{{{labels}}} / up{{{labels}}} == 0"
            ))
        }),
        ("arguments", one(&format!("sum({}up)", "up, ".repeat(SIZE / 4)))),
        ("uses in a template", {
            let uses = much(|n| format!("{{{{ $labels.l{n} | nosuch }}}}")).replace('\n', " ");
            rules(&format!(
                "  - {{alert: A, expr: up == 0, annotations: {{summary: '{uses}'}}}}\n"
            ))
        }),
        (
            "unknown keys",
            rules(&much(|n| format!("  - {{alert: A, expr: up, key{n}: 1}}"))),
        ),
        (
            "labels of a rule",
            rules(&format!(
                "  - alert: A\n    expr: up == 0\n    labels:\n{}",
                much(|n| format!("      l{n}: v"))
            )),
        ),
        ("routes", routes(&much(|n| format!("  - {{matchers: ['a=\"{n}\"']}}")))),
        (
            "matchers of a route",
            routes(&format!(
                "  - matchers: [{}]\n",
                much(|n| format!("'a!=\"{n}\"',")).replace('\n', " ")
            )),
        ),
        ("unknown receivers", {
            let names = much(|n| format!("- {{name: receiver-{n}}}"));
            let text = routes(&much(|n| format!("  - {{receiver: reciever-{n}}}")));
            text.replace("receivers: [{name: all}]\n", &format!("receivers:\n{names}"))
        }),
        ("a long name", {
            let name = "x".repeat(SIZE / 2);
            routes(&format!("  - {{receiver: {name}y}}\n"))
                .replace("{name: all}", &format!("{{name: all}}, {{name: {name}}}"))
        }),
        ("aliases", bomb),
        ("comments", "# x\n".repeat(SIZE / 4)),
        ("documents", "---\n".repeat(SIZE / 4)),
        ("quotes", format!("a: '{}'", "''".repeat(SIZE / 2))),
        ("a deep key", "? ".repeat(SIZE / 2)),
        ("openings", "[{".repeat(SIZE / 2)),
        ("anchors", much(|n| format!("a{n}: &a{n} x"))),
    ];
    for (what, text) in cases {
        let start = Instant::now();
        let report = look(text);
        let fixed = report.fixed().len();
        let took = start.elapsed();
        println!(
            "{what}: {} findings, {fixed} files mended, {took:?}",
            report.findings.len()
        );
        assert!(took < BOUND, "{what} took {took:?}");
    }
}

#[test]
fn much_of_anything_in_tests_and_captures_is_answered_in_time() {
    let path = Path::new("large.yaml");
    let timed = |what: &str, answer: &dyn Fn() -> String| {
        let start = Instant::now();
        let said = answer();
        let took = start.elapsed();
        println!("{what}: {said} in {took:?}");
        assert!(took < BOUND, "{what} took {took:?}");
        said
    };
    let laughs = (0..9).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        text + &format!("a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 10].join(", "))
    });
    let cases = much(|n| format!("  - {{alertname: A{n}, eval_time: 1m, state: pending}}"));
    let cases = format!("tests:\n- alert_rule_test:\n{cases}");
    for text in [
        &cases,
        &laughs,
        &"[".repeat(SIZE),
        &"a: ".repeat(SIZE / 3),
        &"{a: ".repeat(SIZE / 4),
    ] {
        let says = |error: Option<String>| error.unwrap_or_else(|| "read".to_owned());
        let begin = text.chars().take(10).collect::<String>();
        timed(&begin, &|| {
            says(TestFile::parse(path, text).err().map(|error| error.to_string()))
        });
        timed(&begin, &|| says(plain(path, text).err().map(|error| error.to_string())));
        timed(&begin, &|| {
            says(Suite::parse(path, text).err().map(|error| error.to_string()))
        });
        timed(&begin, &|| {
            let now = "2026-11-23T00:00:00Z".parse().expect("an instant");
            says(routing::holding(path, text, now).err().map(|error| error.to_string()))
        });
    }
    assert_eq!(
        TestFile::parse(path, &cases).expect("it reads").tests[0].cases.len(),
        cases.lines().count() - 2
    );
    for (what, text) in [
        ("metrics", much(|n| format!("metric_{n}{{a=\"b\"}} 1"))),
        ("counters", much(|n| format!("# TYPE c{n} counter\nc{n}_total 1"))),
        ("values of a label", much(|n| format!("m{{a=\"{n}\"}} 1"))),
        ("labels", much(|n| format!("m{{l{n}=\"v\"}} 1"))),
        ("a long line", format!("m{{a=\"{}\"}} 1", "x".repeat(SIZE))),
        (
            "buckets",
            much(|n| format!("h_bucket{{le=\"{n}\"}} 1")).replacen("h_", "# TYPE h histogram\nh_", 1),
        ),
    ] {
        timed(what, &|| {
            read(&text, "large.prom", LIMITS).map_or_else(|error| error.to_string(), |found| found.len().to_string())
        });
    }
}

/// A file that is too large is refused before it is read.
#[test]
fn what_is_larger_than_any_file_is_refused_with_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.yaml");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(17 << 20).expect("room");
    // It says that it has no bytes, and never ends.
    let endless = Path::new("/dev/zero");
    let words = [
        TestFile::read(endless).expect_err("it never ends").to_string(),
        Suite::read(endless).expect_err("it never ends").to_string(),
        TestFile::read(&path).expect_err("it is too large").to_string(),
        Suite::read(&path).expect_err("it is too large").to_string(),
    ];
    for words in words {
        assert!(words.contains("is larger than 16777216 bytes"), "{words}");
    }
    let report = look(" ".repeat(33 << 20));
    assert!(
        report.findings[0].what.contains("33 MB; 32 MB are read at most"),
        "{report:?}"
    );
}
