//! Values know their bytes, whatever way they are written, and what no file needs is refused.

use lint::document::{LIMITS, Limits, Node, Offsets, read};
use proptest::prelude::*;

fn one(text: &str) -> Node {
    read(text, LIMITS).expect("it reads").documents.remove(0)
}

/// The part of `text` at which `part` of the value `a` is found in the file.
fn found<'a>(text: &'a str, part: &str) -> &'a str {
    let root = one(text);
    let value = root.get("a").expect("the key a");
    let content = value.text().expect("text");
    let at = content.find(part).unwrap_or_else(|| panic!("{part:?} in {content:?}"));
    let offsets: Offsets = value.offsets(text);
    assert!(offsets.exact(), "{text:?}");
    &text[offsets.range(at..at + part.len())]
}

#[test]
fn parts_of_text_are_found_in_every_style() {
    for (text, part) in [
        ("a: sum(x) > 1 # comment\n", "sum(x)"),
        ("a: 'sum(x{y=''z''}) > 1'\n", "> 1"),
        ("a: \"sum(x{y=\\\"ä\\\"}) > 1\"\n", "> 1"),
        ("a: \"sum(x) \\\n  / y > 1\"\n", "> 1"),
        ("a: |\n  sum(x)\n    / y\n\n  > 1\n", "/ y"),
        ("a: |\n  sum(x)\n    / y\n\n  > 1\n", "> 1"),
        ("a: |2-\n    sum(x)\n   > 1\n", "> 1"),
        ("a: >-\n  sum(x)\n  / y\n\n  > 1\n", "> 1"),
        ("a: >\n  sum(x)\n     / y\n  > 1\n", "/ y"),
        ("a: sum(x)\n  / y\n\n  > 1\n", "/ y"),
        ("a: 'sum(x)   \n   / y\n\n\n  > 1'\n", "/ y"),
        ("a: 'sum(x)   \n   / y\n\n\n  > 1'\n", "> 1"),
        ("a: |\r\n  sum(x)\r\n  > 1\r\n", "> 1"),
    ] {
        assert_eq!(found(text, part), part, "{text:?}");
    }
    assert_eq!(found("a: 'x{y=''z''}'\n", "'z'"), "''z''");
}

#[test]
fn what_is_refused_says_where() {
    let small = Limits {
        bytes: 1000,
        depth: 8,
        values: 100,
    };
    for (text, what, at) in [
        ("a: b: c\n", "mapping values are not allowed in this context", 4),
        ("a: [1\n", "unclosed bracket '['", 3),
        ("a: 1\nb: 2\na: 3\n", "the key `a` is there twice", 10),
        ("a: *no\n", "while parsing node, found unknown anchor", 3),
        ("? [1]\n: 2\n", "a list is used as a key", 2),
        ("a: {<<: 1}\n", "a merge key takes a map or a list of maps", 8),
        ("[[[[[[[[[1]]]]]]]]]\n", "maps and lists are nested more than 8 deep", 8),
    ] {
        let refused = read(text, small).expect_err(text);
        assert_eq!((refused.what.as_str(), refused.at), (what, at), "{text:?}");
    }
    let bomb = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n";
    assert!(read(bomb, small).expect_err("a bomb").what.contains("unfolds"));
    let long = "x".repeat(2000);
    assert!(read(&long, small).expect_err("long").what.contains("are read at most"));
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert!(read(&deep, LIMITS).is_err());
    let deep = "- ".repeat(1 << 20);
    assert!(read(&deep, LIMITS).is_err());
}

#[test]
fn aliases_and_merge_keys_are_unfolded() {
    let root = one("x: &x {severity: page, team: a}\ny: *x\nz: {team: b, <<: *x}\n");
    assert_eq!(
        root.get("y").and_then(|y| y.get("severity")).and_then(Node::text),
        Some("page")
    );
    let z = root.get("z").expect("z");
    assert_eq!(z.get("team").and_then(Node::text), Some("b"));
    assert_eq!(z.get("severity").and_then(Node::text), Some("page"));
}

#[test]
fn lines_of_quoted_text_need_no_indentation() {
    for (text, words) in [
        ("a:\n  b: \"one\n  two\nthree\"\n  c: d\n", "one two three"),
        ("a:\n  b: 'one\r\n  two'\n  c: d\n", "one two"),
    ] {
        let root = one(text);
        let a = root.get("a").expect("a");
        assert_eq!(a.get("c").and_then(Node::text), Some("d"));
        let b = a.get("b").expect("b");
        let read: Vec<&str> = b.text().expect("text").split_whitespace().collect();
        assert_eq!(read.join(" "), words);
        let offsets = b.offsets(text);
        let at = b.text().and_then(|text| text.find("two")).expect("the word");
        assert_eq!(&text[offsets.range(at..at + 3)], "two");
    }
    assert!(read("a:\n  b: \"one\n  two\n", LIMITS).is_err());
}

#[test]
fn json_is_read_as_well() {
    let root = one("{\"a\": [1, {\"b\": \"x\\ny\"}], \"c\": null}");
    assert_eq!(root.get("a").map(|a| a.items().len()), Some(2));
    assert!(root.get("c").is_some_and(Node::is_null));
}

proptest! {
    /// Any text in double quotes, as JSON writes it, is found character by character.
    #[test]
    fn quoted_text_is_followed(content in "[ -~ä😀\\n\\t\"\\\\]{1,40}") {
        let text = format!("a: {}\n", serde_json::to_string(&content).expect("a string"));
        let root = one(&text);
        let value = root.get("a").expect("a");
        prop_assert_eq!(value.text(), Some(content.as_str()));
        let offsets = value.offsets(&text);
        prop_assert!(offsets.exact());
        for (at, character) in content.char_indices() {
            if character.is_ascii_alphanumeric() || character == 'ä' {
                let written = &text[offsets.range(at..at + character.len_utf8())];
                prop_assert_eq!(written, character.to_string());
            }
        }
    }

    /// Whatever the bytes, an answer and no panic, and every span lies in the text.
    #[test]
    fn anything_is_answered(text in "[a-c:\\-\\[\\]{}&*|>'\"#, \\n~!%@\\\\\t]{0,60}") {
        if let Ok(documents) = read(&text, Limits { bytes: 1000, depth: 6, values: 200 }) {
            let mut nodes: Vec<&Node> = documents.documents.iter().collect();
            while let Some(node) = nodes.pop() {
                prop_assert!(text.get(node.span.clone()).is_some());
                let _ = node.offsets(&text).range(0..1);
                nodes.extend(node.items());
                nodes.extend(node.entries().iter().flat_map(|(key, value)| [key, value]));
            }
        }
    }
}
