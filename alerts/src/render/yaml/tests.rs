//! Tests of the YAML that is written: a reader of others gives back the same tree.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> serde_json::Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn expected(tree: &Yaml) -> serde_json::Value {
    match tree {
        Yaml::Text(text) | Yaml::Block(text) => text.clone().into(),
        Yaml::Bare(text) => serde_json::from_str(text).unwrap(),
        Yaml::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), expected(value)))
            .collect(),
        Yaml::List(items) => items.iter().map(expected).collect(),
    }
}

#[test]
fn it_looks_as_people_write_it() {
    let tree = Yaml::map([
        (
            "groups",
            Yaml::List(vec![Yaml::map([
                ("name", Yaml::text("orders")),
                ("expr", Yaml::Block("a\nor\n  b".to_owned())),
                (
                    "labels",
                    Yaml::texts([("window", "1h"), ("share", "0.1"), ("word", "no")]),
                ),
                ("none", Yaml::List(Vec::new())),
            ])]),
        ),
        ("text", Yaml::text("{{ $value | printf \"%.0f\" }} isn't")),
        ("on", Yaml::Bare("true".to_owned())),
    ]);
    let text = "\
# Written.
groups:
  - name: orders
    expr: |-
      a
      or
        b
    labels:
      window: \"1h\"
      share: \"0.1\"
      word: \"no\"
    none: []
text: '{{ $value | printf \"%.0f\" }} isn''t'
\"on\": true
";
    assert_eq!(tree.document("Written."), text);
    assert_eq!(read(text), expected(&tree));
}

fn trees() -> impl Strategy<Value = Yaml> {
    let text = prop_oneof![
        "\\PC{0,20}",
        "[ -~\n\t]{0,20}",
        "(yes|null|~|1e3|0x1|- a|a: b|# x| x|x |)",
        any::<String>()
    ];
    let leaf = prop_oneof![
        text.clone().prop_map(Yaml::Text),
        text.prop_map(Yaml::Block),
        any::<i32>().prop_map(|number| Yaml::Bare(number.to_string())),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::btree_map("[ -~]{1,8}", inner.clone(), 0..5).prop_map(Yaml::map),
            prop::collection::vec(inner, 0..5).prop_map(Yaml::List),
        ]
    })
}

proptest! {
    #[test]
    fn another_reader_gives_back_the_same_tree(tree in trees()) {
        let document = Yaml::map([("tree", tree.clone())]);
        let text = document.document("");
        prop_assert_eq!(read(&text), expected(&document), "{}", text);
    }
}
