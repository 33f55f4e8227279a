//! A report as text, JSON, JUnit and SARIF, with everything that could break one of them in it.

use lint::{Edit, Finding, Fix, Report, Severity, SourceFile, apply, output};

lint::checks! {
    /// For these tests.
    CHECKS;
    WRONG, "wrong", Error, "Something is wrong.", "It does not work.";
    ODD, "odd", Warning, "Something is odd.", "It may not work.";
}

const TEXT: &str = "first: ä <&>\nsecond: wrong\nthird: odd\n";

fn report() -> Report {
    let file = SourceFile::new("a folder/a.yml", TEXT);
    let at = TEXT.find("wrong").expect("there");
    let edit = Edit {
        span: at..at + 5,
        text: "right\nand more".to_owned(),
    };
    let wrong = Finding::new(&WRONG, &file, at..at + 5, "\"wrong\" <is> & wrong\u{1}.")
        .about("Rule")
        .according_to("the catalogue")
        .fixed_by(Fix::safe("write it right", vec![edit]));
    let odd = TEXT.find("odd").expect("there");
    let odd = Finding::new(&ODD, &file, odd..odd + 3, "This is odd.");
    let mut report = Report {
        files: vec![file],
        findings: vec![odd, wrong],
    };
    report.sort();
    report
}

#[test]
fn text_shows_the_place_and_the_fix() {
    let expected = "\
error[wrong]: Rule: \"wrong\" <is> & wrong\u{1}.
 --> a folder/a.yml:2:9
  |
2 | second: wrong
  |         ^^^^^
  = why: It does not work.
  = according to the catalogue
  = fix: write it right
    @@ -2,1 +2,2 @@
    -second: wrong
    +second: right
    +and more

warning[odd]: This is odd.
 --> a folder/a.yml:3:8
  |
3 | third: odd
  |        ^^^
  = why: It may not work.

1 file: 1 error, 1 warning, 0 notes
";
    assert_eq!(output::text(&report()), expected);
}

#[test]
fn json_has_a_schema_and_every_finding() {
    let json = output::json(&report());
    assert_eq!(json["schema"], "opsctl.findings/v1");
    assert_eq!(json["errors"], 1);
    assert_eq!(
        json["findings"][0]["start"],
        serde_json::json!({"line": 2, "column": 9})
    );
    let diff = json["findings"][0]["fix"]["diff"].as_str().expect("a diff");
    assert!(
        diff.starts_with("--- a folder/a.yml\n+++ a folder/a.yml\n@@ -2,1 +2,2 @@\n"),
        "{diff}"
    );
}

#[test]
fn junit_is_escaped() {
    let junit = output::junit(&report());
    assert!(junit.contains("tests=\"2\" failures=\"2\" skipped=\"0\""));
    assert!(
        junit.contains("message=\"&quot;wrong&quot; &lt;is&gt; &amp; wrong.\""),
        "{junit}"
    );
    assert!(!junit.contains('\u{1}'));
}

#[test]
fn sarif_names_rules_places_and_fixes() {
    let sarif = output::sarif(&report(), "1.2.3");
    let run = &sarif["runs"][0];
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(run["tool"]["driver"]["rules"].as_array().map(Vec::len), Some(2));
    let result = &run["results"][0];
    assert_eq!(result["level"], "error");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20folder/a.yml");
    assert_eq!(place["region"]["endColumn"], 14);
    let replaced = &result["fixes"][0]["artifactChanges"][0]["replacements"][0];
    assert_eq!(replaced["insertedContent"]["text"], "right\nand more");
}

#[test]
fn fixes_that_overlap_wait() {
    let mut report = report();
    let mut again = report.findings[0].clone();
    again.what = "Again.".to_owned();
    report.findings.push(again);
    let fixed = report.fixed();
    assert_eq!(fixed.len(), 1);
    assert_eq!(
        (fixed[0].1.as_str(), fixed[0].2),
        ("first: ä <&>\nsecond: right\nand more\nthird: odd\n", 1)
    );
    let overlapping = [
        Edit {
            span: 0..4,
            text: String::new(),
        },
        Edit {
            span: 2..6,
            text: String::new(),
        },
    ];
    assert_eq!(apply(TEXT, &overlapping).expect_err("they overlap").at, 2);
    assert_eq!(report.worst(), Some(Severity::Error));
}

#[test]
fn diffs_are_those_that_patch_takes() {
    let file = SourceFile::new("a", "1\n2\n3\n4\n");
    let edit = |span, text: &str| Edit {
        span,
        text: text.to_owned(),
    };
    for (edits, expected) in [
        (vec![edit(0..0, "0\n")], "@@ -0,0 +1,1 @@\n+0\n"),
        (vec![edit(2..4, "")], "@@ -2,1 +1,0 @@\n-2\n"),
        (
            vec![edit(0..1, "a"), edit(6..7, "d")],
            "@@ -1,1 +1,1 @@\n-1\n+a\n@@ -4,1 +4,1 @@\n-4\n+d\n",
        ),
        (
            vec![edit(0..0, "x\n"), edit(6..7, "d")],
            "@@ -0,0 +1,1 @@\n+x\n@@ -4,1 +5,1 @@\n-4\n+d\n",
        ),
    ] {
        let diff = Fix::safe("x", edits).diff(&file);
        assert_eq!(diff.strip_prefix("--- a\n+++ a\n"), Some(expected));
    }
}
