//! Every check has rules in which it finds something and rules near them in which it finds nothing: `checks/NAME.yml`,
//! groups `found` and `near`. promtool accepts them all, so that what is found is never a matter of syntax.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use alerts::check::{Options, check, checks};
use alerts::rules;
use lint::{Finding, Report, SourceFile};
use manifest::Manifest;

fn options() -> Options {
    Options {
        scrape_interval: Some(Duration::from_secs(30)),
        ..Options::new(Manifest::built_in(), "2026-11-23".parse().expect("a day"))
    }
}

fn one(text: &str, options: &Options) -> Report {
    check(vec![SourceFile::new("rules.yml", text)], options)
}

fn names(report: &Report) -> BTreeSet<&'static str> {
    report.open().map(|finding| finding.check.name).collect()
}

fn fixtures() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checks");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder of fixtures")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}

#[test]
fn each_check_finds_what_it_is_for_and_nothing_near_it() {
    let options = options();
    for (name, path) in fixtures() {
        let file = SourceFile::new(name.as_str(), fs::read_to_string(path).expect("a fixture"));
        let (set, refused) = rules::read(&file);
        assert!(refused.is_empty(), "{name}: {refused:?}");
        let near = set
            .groups
            .iter()
            .find(|group| group.name.value == "near")
            .expect("a group `near`");
        let report = check(vec![file.clone()], &options);
        let of_check: Vec<&Finding> = report.open().filter(|finding| finding.check.name == name).collect();
        let (in_near, in_found): (Vec<&Finding>, Vec<&Finding>) = of_check
            .into_iter()
            .partition(|finding| near.span.contains(&finding.span.start));
        assert!(!in_found.is_empty(), "{name} finds nothing in\n{}", file.text());
        assert!(
            in_near.is_empty(),
            "{name} finds in what is near:\n{}",
            lint::output::text(&report)
        );
    }
}

#[test]
fn promtool_accepts_the_fixtures() {
    let Some(promtool) = peers::peer("promtool", "promtool_accepts_the_fixtures") else {
        return;
    };
    for (name, path) in fixtures() {
        let output = Command::new(&promtool)
            .args([
                "--enable-feature=promql-experimental-functions",
                "check",
                "rules",
                "--lint=none",
            ])
            .arg(path)
            .output()
            .expect("promtool runs");
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// What no rule file with groups `found` and `near` can show: the check, where it finds something, where it does not.
const FILES: &[(&str, &str, &str)] = &[
    ("yaml", "groups: [\n", "groups: []\n"),
    (
        "unknown-field",
        "groups:\n- name: a\n  intervall: 1m\n",
        "groups:\n- name: a\n  interval: 1m\n",
    ),
    ("missing-field", "groups:\n- rules: []\n", "groups:\n- name: a\n"),
    (
        "invalid-value",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, for: 5}\n",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, for: 5m}\n",
    ),
    (
        "duplicate-group",
        "groups:\n- name: a\n- name: a\n",
        "groups:\n- name: a\n- name: b\n",
    ),
    (
        "promql",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up ==}\n",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0}\n",
    ),
    (
        "template",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, annotations: {summary: '{{ $lables.job }}'}}\n",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, annotations: {summary: '{{ $labels.job }}'}}\n",
    ),
    (
        "template",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, annotations: {summary: '{{ $labels.job | $labels.instance }}'}}\n",
        "groups:\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, annotations: {summary: '{{ $labels.job | title }}'}}\n",
    ),
    (
        "suppression-invalid",
        "# opsctl ignore(no-for): because\n",
        "groups:\n# opsctl ignore(no-for) until 2026-12-31: pages at once on purpose\n- name: a\n  rules:\n  - {alert: A, expr: up == 0}\n",
    ),
    (
        "suppression-expired",
        "# opsctl ignore(no-for) until 2026-11-22: because\n",
        "# opsctl ignore(no-for) until 2026-11-23: because\n",
    ),
    (
        "suppression-unused",
        "groups:\n# opsctl ignore(no-for) until 2026-12-31: because\n- name: a\n  rules:\n  - {alert: A, expr: up == 0, for: 5m}\n",
        "groups:\n# opsctl ignore(no-for) until 2026-12-31: because\n- name: a\n  rules:\n  - {alert: A, expr: up == 0}\n",
    ),
];

#[test]
fn files_that_cannot_be_read_say_why() {
    for (name, found, near) in FILES {
        assert!(names(&one(found, &options())).contains(name), "{name}: {found}");
        assert!(!names(&one(near, &options())).contains(name), "{name}: {near}");
    }
}

#[test]
fn no_check_is_without_fixtures() {
    let mut covered: BTreeSet<String> = fixtures().into_iter().map(|(name, _)| name).collect();
    covered.extend(FILES.iter().map(|(name, _, _)| (*name).to_owned()));
    covered.extend(alerts::check::routes::CHECKS.iter().map(|check| check.name.to_owned()));
    // `the_worst_of_very_many_findings_are_shown`.
    covered.insert("more-findings".to_owned());
    let all: BTreeSet<String> = checks().iter().map(|check| check.name.to_owned()).collect();
    assert_eq!(all.len(), checks().len(), "two checks have one name");
    assert_eq!(covered, all);
    assert!(all.len() >= 30);
}

#[test]
fn the_worst_of_very_many_findings_are_shown() {
    let rule = |n: usize| format!("  - {{alert: A{n}, expr: up == {n}}}\n");
    let many: String = (0..1000).map(rule).collect();
    let few: String = (0..10).map(rule).collect();
    let head = "groups:\n- name: a\n  rules:\n";
    let wrong = "  - {alert: Wrong, expr: up ==}\n";
    let comment = "# opsctl ignore-file(le-dropped) until 2027-01-01: to see that it is not called useless\n";
    let files = [
        ("many.yml", format!("{comment}{head}{many}{wrong}")),
        ("few.yml", format!("{head}{few}")),
    ];
    let report = check(
        files.map(|(name, text)| SourceFile::new(name, text)).to_vec(),
        &options(),
    );
    let of = |name: &str| -> Vec<&str> {
        let findings = report.findings.iter().filter(|finding| finding.file == name);
        findings.map(|finding| finding.check.name).collect()
    };
    let (many, few) = (of("many.yml"), of("few.yml"));
    assert_eq!(many.len(), 1001);
    assert!(many.contains(&"more-findings") && many.contains(&"promql"));
    assert!(!many.contains(&"suppression-unused"));
    assert!(!few.contains(&"more-findings") && few.len() > 10);
}

#[test]
fn positions_are_those_of_the_file_in_every_style() {
    for expr in [
        "expr: sum by (job) (up{name=\"x\"}) == 3 and on (job) count(upp) > 0",
        "expr: 'sum by (job) (up) == 3 and on (job) count(upp) > 0'",
        "expr: |\n      sum by (job) (up) == 3\n        and on (job)\n      count(upp) > 0",
        "expr: >-\n      sum by (job) (up) == 3\n\n      and on (job) count(upp) > 0",
        "expr: sum by (job) (up) == 3\n      and on (job) count(upp) > 0",
    ] {
        let text = format!("groups:\n- name: a\n  rules:\n  - alert: A\n    {expr}\n");
        let mut options = options();
        options.manifest.own("upp", manifest::Source::Catalogue);
        let report = one(&text, &options);
        let found = report
            .open()
            .find(|finding| finding.check.name == "metric-unknown")
            .expect("upp is unknown");
        assert_eq!(&text[found.span.clone()], "upp", "{text}");
    }
}

#[test]
fn safe_fixes_mend_what_they_are_for() {
    let text = "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: |\n      histogram_quantile(0.9, sum by (job) (rate(grpc_server_handling_seconds_bucket{grpc_method=~\"Get\"}[5m]))) > 1\n    for: 5m\n";
    let report = one(text, &options());
    let fixed = report.fixed();
    let [(_, mended, 2)] = fixed.as_slice() else {
        panic!("two safe fixes: {}", lint::output::text(&report));
    };
    assert!(
        mended.contains("sum by (le, job)") && mended.contains("grpc_method=\"Get\""),
        "{mended}"
    );
    let again = one(mended, &options());
    assert!(!names(&again).contains("le-dropped") && !names(&again).contains("regex-literal"));
    assert!(again.fixed().is_empty());
}

#[test]
fn a_dropped_label_is_kept_only_where_the_alert_stays_the_same() {
    for (expr, label, title) in [
        (
            "sum by (job) (rate(x_total[5m])) > 1",
            "instance",
            Some("keep `instance`"),
        ),
        (
            "sum by (job) (rate(x_total[5m])) > 1",
            "instace",
            Some("write `instance`"),
        ),
        ("max by (job) (queue_length) > 100", "instance", Some("keep `instance`")),
        ("max by (job) (is_leader) < 1", "instance", None),
        ("sum by (job) (up) == 0", "instance", None),
        ("sum by (job) (build_info) < 3", "instance", None),
        ("count by (job) (x) < 3", "instance", None),
        ("(sum by (job) (x) or vector(0)) > 1", "instance", None),
    ] {
        let text = format!(
            "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: {expr}\n    annotations:\n      summary: '{{{{ $labels.{label} }}}}'\n"
        );
        let report = one(&text, &options());
        let found = report.open().find(|finding| finding.check.name == "label-dropped");
        let fix = found.expect(expr).fix.as_ref();
        assert_eq!(fix.map(|fix| fix.title.as_str()), title, "{expr}");
    }
}

#[test]
fn objects_and_several_documents_are_read() {
    let rule = "{alert: A, expr: up ==}";
    for text in [
        format!(
            "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {{name: a}}\nspec:\n  groups:\n  - name: a\n    rules: [{rule}]\n"
        ),
        format!("kind: ConfigMap\n---\ngroups:\n- name: a\n  rules: [{rule}]\n"),
        format!("- name: a\n  rules: [{rule}]\n"),
        format!("kind: List\nitems:\n- kind: PrometheusRule\n  spec: {{groups: [{{name: a, rules: [{rule}]}}]}}\n"),
    ] {
        assert!(names(&one(&text, &options())).contains("promql"), "{text}");
    }
}

#[test]
fn hostile_files_are_answered() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for letter in b'b'..b'l' {
        let (now, before) = (char::from(letter), char::from(letter - 1));
        let items = vec![format!("*{before}"); 10].join(", ");
        writeln!(bomb, "{now}: &{now} [{items}]").expect("a line");
    }
    let deep_expr = format!(
        "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: {}up{}\n",
        "(".repeat(100_000),
        ")".repeat(100_000)
    );
    let deep = "[".repeat(1_000_000);
    let template = format!(
        "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: up == 0\n    annotations:\n      summary: '{}'\n",
        "{{ if $value }}".repeat(50_000)
    );
    let rule = format!(
        "  - {{alert: A, expr: up == 0, annotations: {{summary: {}}}}}\n",
        "x".repeat(1100)
    );
    let long = format!("groups:\n- name: a\n  rules:\n{}", rule.repeat(10_000));
    assert!(long.len() > 10 << 20);
    for (text, check) in [
        (bomb, "yaml"),
        (deep, "yaml"),
        (deep_expr, "promql"),
        (template, "template"),
    ] {
        assert!(names(&one(&text, &options())).contains(check), "{check}");
    }
    let (set, refused) = rules::read(&SourceFile::new("long.yml", long));
    assert_eq!((set.rules().count(), refused.len()), (10_000, 0));
    let huge = " ".repeat(40 << 20);
    assert!(names(&one(&huge, &options())).contains("yaml"));
}

#[test]
fn a_variable_without_a_name_is_none_that_was_meant() {
    let read = alerts::check::template::read("{{ $ := $labels.job }}{{ $x }}");
    assert!(read.faults.iter().any(|fault| fault.what.contains("`$x`")));
    assert!(read.faults.iter().all(|fault| fault.meant.is_none()), "{read:?}");
}

/// What the parser just takes is also followed, checked and shown on a thread with little room.
#[test]
fn expressions_at_the_limits_are_checked_on_a_small_stack() {
    let exprs = [
        "(".repeat(95) + "up" + &")".repeat(95),
        "abs(".repeat(95) + "up" + &")".repeat(95),
        "-(".repeat(45) + "up" + &")".repeat(45),
        "up+".repeat(495) + "up",
        "up and ".repeat(495) + "up > 5",
        "sum by (job) (".repeat(95) + &"up or ".repeat(400) + "up" + &")".repeat(95),
        "label_replace(".repeat(90) + "up" + &", \"a\", \"$1\", \"b\", \"(.*)\")".repeat(90),
        "max_over_time((".repeat(45) + "up" + &")[5m:])".repeat(45),
        "up{job=~\"".to_owned() + &"(".repeat(900) + &")".repeat(900) + "\"}",
        "rate(up[5m*".to_owned() + &"(".repeat(95) + "2" + &")".repeat(95) + "])",
    ];
    let check = move || {
        for expr in exprs {
            promql::parse(&expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
            let text = format!(
                "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: '{expr} > 1'\n  - {{record: a, expr: '{expr}'}}\n"
            );
            let report = one(&text, &options());
            assert!(!report.findings.is_empty(), "{expr}");
            let _ = (report.fixed(), lint::output::text(&report));
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(check);
    thread.expect("a thread").join().expect("it returns");
}
