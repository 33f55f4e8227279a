//! Rule tests against promtool itself: the same verdict in every case, ours beyond it, and how long it takes.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use alerts::test::{self, Difference, Report, Settings, Verdict};
use tokio::process::Command;

fn settings(test: &str) -> Option<Settings> {
    peers::peer("promtool", test).map(Settings::new)
}

async fn run(folder: &Path, text: &str, settings: &Settings) -> Report {
    let file = folder.join("test.yaml");
    fs::write(&file, text).unwrap();
    test::run(&[file], settings).await.unwrap()
}

/// Line and word of every case.
fn verdicts(report: &Report) -> Vec<(usize, &'static str)> {
    let cases = report.files.iter().flat_map(|file| &file.cases);
    cases
        .map(|case| {
            let word = match case.verdict {
                Verdict::Passed => "passed",
                Verdict::Failed { .. } => "failed",
                Verdict::Error { .. } => "error",
            };
            (case.line, word)
        })
        .collect()
}

fn problems(report: &Report) -> Vec<(usize, &str)> {
    let problems = report.files.iter().flat_map(|file| &file.problems);
    problems.map(|problem| (problem.line, problem.what.as_str())).collect()
}

/// The mixin's tests as its authors lay them out.
fn kubernetes(test: &str) -> Option<(tempfile::TempDir, Vec<PathBuf>)> {
    let tests = peers::shared_data("kubernetes-mixin-tests/tests", test)?;
    let rules = peers::shared_data("mixins/kubernetes", test)?;
    let folder = tempfile::tempdir().unwrap();
    for kind in ["alerts", "rules"] {
        let to = folder.path().join(format!("prometheus_{kind}.yaml"));
        fs::copy(rules.join(format!("{kind}.yaml")), to).unwrap();
    }
    let mut files = Vec::new();
    fs::create_dir(folder.path().join("tests")).unwrap();
    for entry in fs::read_dir(tests).unwrap() {
        let from = entry.unwrap().path();
        let to = folder.path().join("tests").join(from.file_name().unwrap());
        fs::copy(&from, &to).unwrap();
        files.push(to);
    }
    files.sort();
    Some((folder, files))
}

/// Promtool alone passes every file, which takes it half a minute and more: `OPSCTL_SOAK=1` asks it.
#[tokio::test]
async fn every_case_of_the_mixins_tests_passes() {
    const TEST: &str = "every_case_of_the_mixins_tests_passes";
    let Some(settings) = settings(TEST) else { return };
    let Some((_folder, files)) = kubernetes(TEST) else {
        return;
    };
    let report = test::run(&files, &settings).await.unwrap();
    assert!(report.passed(), "{}", report.text());
    assert_eq!(report.count().passed, 198);
    if std::env::var_os("OPSCTL_SOAK").is_some() {
        let mut promtool = Command::new(&settings.promtool);
        promtool.args(["test", "rules"]).args(&files).stdout(Stdio::null());
        assert!(promtool.kill_on_drop(true).status().await.unwrap().success());
    }
}

/// What is changed in rules fails the same cases, whether all rules are evaluated or the needed ones.
#[tokio::test]
async fn what_fails_fails_in_the_same_cases_with_all_rules() {
    const TEST: &str = "what_fails_fails_in_the_same_cases_with_all_rules";
    let Some(settings) = settings(TEST) else { return };
    let Some((folder, mut files)) = kubernetes(TEST) else {
        return;
    };
    // The largest one takes most of the time.
    files.retain(|file| !file.ends_with("tests.yaml"));
    for kind in ["alerts", "rules"] {
        let file = folder.path().join(format!("prometheus_{kind}.yaml"));
        let text = fs::read_to_string(&file).unwrap();
        let text = text
            .replace("for: 15m", "for: 1h")
            .replace("> 1.5", "> 99")
            .replace("rate5m", "rate6m");
        fs::write(
            file,
            text.replace("\"severity\": \"warning\"", "\"severity\": \"none\"")
                .replace("severity: warning", "severity: none"),
        )
        .unwrap();
    }
    let sliced = test::run(&files, &settings).await.unwrap();
    let whole = test::run(
        &files,
        &Settings {
            whole: true,
            ..settings.clone()
        },
    )
    .await
    .unwrap();
    assert_eq!(verdicts(&sliced), verdicts(&whole));
    let count = sliced.count();
    println!("{count:?}");
    assert!(count.failed > 5 && count.passed > 5, "{}", sliced.text());
    // Promtool fails the files in which a case failed, and no others.
    for file in &sliced.files {
        let output = Command::new(&settings.promtool)
            .args(["test", "rules"])
            .arg(&file.path)
            .output()
            .await
            .unwrap();
        let passed = file.cases.iter().all(|case| case.verdict == Verdict::Passed);
        assert_eq!(
            output.status.success(),
            passed,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

const RULES: &str = r#"
groups:
- name: records
  rules:
  - record: job:errors:rate5m
    expr: sum by (job) (rate(errors_total[5m]))
- name: alerts
  rules:
  - alert: Errors
    expr: job:errors:rate5m > 0.5
    for: 5m
    labels: {severity: page}
    annotations: {summary: "{{ $labels.job }} has {{ $value | humanize }} errors\na second", query: '{{ with query "job:errors:rate5m" }}{{ . | first | value }}{{ end }}'}
  - alert: Down
    expr: up == 0
    annotations: {summary: "é \"down\" {{ $labels.instance }}"}
  - alert: Many
    expr: count(ALERTS{alertname="Errors", alertstate="pending"}) > 0
  - alert: Broken
    expr: broken * on (a) group_left () other
"#;

fn place(rules: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    folder
}

const SERIES: &str = r#"
  input_series:
  - {series: 'errors_total{job="a"}', values: '0+60x30'}
  - {series: 'errors_total{job="b"}', values: '0+60x30'}
  - {series: 'up{instance="x", job="a"}', values: '0x30'}
"#;

fn with_cases(cases: &str) -> String {
    format!("rule_files: [rules.yaml]\ntests:\n- interval: 1m{SERIES}{cases}")
}

#[tokio::test]
async fn states_and_partial_matches_are_read_from_what_promtool_says() {
    let Some(settings) = settings("states_and_partial_matches_are_read_from_what_promtool_says") else {
        return;
    };
    let folder = place(RULES);
    let text = with_cases(
        r#"
  alert_rule_test:
  - {alertname: Errors, eval_time: 20m, match: partial, exp_alerts: [{exp_labels: {job: b}}, {exp_annotations: {summary: "a has 1 errors\na second"}}]}
  - {alertname: Errors, eval_time: 20m, match: partial, exp_alerts: [{exp_labels: {job: b}}]}
  - {alertname: Errors, eval_time: 20m, match: partial, exp_alerts: [{exp_labels: {job: b}}, {exp_labels: {job: b}}]}
  - {alertname: Errors, eval_time: 3m, state: pending, match: partial, exp_alerts: [{exp_labels: {job: b}}, {exp_labels: {job: a}}]}
  - {alertname: Errors, eval_time: 6m, state: pending, exp_alerts: [{exp_labels: {job: a, severity: page}, exp_annotations: {summary: "a has 1 errors\na second", query: "1"}}, {exp_labels: {job: b, severity: page}, exp_annotations: {summary: "b has 1 errors\na second", query: "1"}}]}
  - {alertname: Errors, eval_time: 20m, state: pending, exp_alerts: []}
  - {alertname: Errors, eval_time: 20m, state: pending, match: partial, exp_alerts: [{exp_labels: {job: b}}]}
  - {alertname: Errors, eval_time: 0m, state: inactive}
  - {alertname: Errors, eval_time: 20m, state: inactive, exp_alerts: [{exp_labels: {job: c}}]}
  - {alertname: Errors, eval_time: 20m, state: inactive, exp_alerts: [{exp_labels: {job: b}}]}
  - {alertname: Down, eval_time: 1m, exp_alerts: [{exp_labels: {instance: x, job: a}, exp_annotations: {summary: "é \"down\" x"}}]}
  - {alertname: Down, eval_time: 1m, exp_alerts: [{exp_labels: {instance: y, job: a}, exp_annotations: {summary: "é \"down\" x"}}]}
  - {alertname: Down, eval_time: 1m, exp_alerts: []}
  - {alertname: Many, eval_time: 4m, match: partial, exp_alerts: [{}]}
  promql_expr_test:
  - {expr: 'job:errors:rate5m{job="a"}', eval_time: 10m, exp_samples: [{labels: 'job:errors:rate5m{job="a"}', value: 1}]}
  - {expr: 'vector(0) / 0', eval_time: 10m, exp_samples: [{labels: '{}', value: .nan}]}
  - {expr: 'count(up)', eval_time: 10m, exp_samples: [{labels: '{}', value: 2}]}
  - {expr: 'count(up', eval_time: 10m}
"#,
    );
    // Without our keys it is promtool's.
    let stripped = test::plain(
        Path::new("test.yaml"),
        &text.replace("  - {expr: 'count(up', eval_time: 10m}\n", ""),
    )
    .unwrap();
    fs::write(folder.path().join("plain.yaml"), stripped).unwrap();
    let output = Command::new(&settings.promtool)
        .args(["test", "rules"])
        .arg(folder.path().join("plain.yaml"))
        .output();
    let words = String::from_utf8_lossy(&output.await.unwrap().stderr).into_owned();
    assert!(
        words.contains("alertname: Down, time: 1m") && !words.contains("not found in type"),
        "{words}"
    );

    let report = run(folder.path(), &text, &settings).await;
    let words: Vec<&str> = verdicts(&report).into_iter().map(|(_, word)| word).collect();
    let expected = [
        "passed", "failed", "failed", "passed", "passed", "passed", "failed", "passed", "passed", "failed", "passed",
        "failed", "failed", "passed", "passed", "failed", "failed", "error",
    ];
    assert_eq!(words, expected, "{}", report.text());
    let Verdict::Failed {
        difference: Difference::Alerts { how, .. },
    } = &report.files[0].cases[11].verdict
    else {
        panic!("{}", report.text())
    };
    assert_eq!(how, &["label instance: expected \"y\", got \"x\""]);
    let junit = report.junit();
    assert!(junit.contains("failures=\"8\" errors=\"1\""), "{junit}");
    assert!(
        report.text().contains("test.yaml:21: failed: Down fires at 1m"),
        "{}",
        report.text()
    );
}

#[tokio::test]
async fn what_promtool_takes_for_success_is_an_error() {
    let Some(settings) = settings("what_promtool_takes_for_success_is_an_error") else {
        return;
    };
    let folder = place(RULES);
    let text = "rule_files: [rules.yaml, 'more/*.yaml']\ncoverage: {min: 50}\ntests:\n- input_series: []\n  alert_rule_test:\n  \
                - {alertname: Eror, eval_time: 1m}\n  - {alertname: Errors, eval_time: 90s}\n  - {alertname: Errors, eval_time: 1m}\n";
    let report = run(folder.path(), text, &settings).await;
    assert_eq!(verdicts(&report), [(6, "error"), (7, "error"), (8, "passed")]);
    let text_of = report.text();
    assert!(text_of.contains("there is `Errors`"), "{text_of}");
    assert!(text_of.contains("between two evaluations (every 1m)"), "{text_of}");
    let found = problems(&report);
    assert_eq!(found[0], (1, "`more/*.yaml` gives no rule file"));
    assert!(
        found[1]
            .1
            .starts_with("0 % of the alerts are shown to fire, 50 % are demanded"),
        "{found:?}"
    );
    let silent: Vec<_> = report
        .coverage
        .alerts
        .iter()
        .filter(|alert| alert.silent)
        .map(|alert| alert.name.as_str())
        .collect();
    assert_eq!(silent, ["Errors"]);

    let compatible = Settings {
        compatible: true,
        ..settings
    };
    let text = text.replace("coverage: {min: 50}\n", "");
    let report = run(folder.path(), &text, &compatible).await;
    assert!(report.passed(), "{}", report.text());
    let output = Command::new(&compatible.promtool)
        .args(["test", "rules"])
        .arg(folder.path().join("test.yaml"))
        .output();
    assert!(output.await.unwrap().status.success());
}

#[tokio::test]
async fn what_is_wrong_with_a_file_says_where() {
    let Some(settings) = settings("what_is_wrong_with_a_file_says_where") else {
        return;
    };
    let folder = place(RULES);
    for (text, line, what) in [
        ("rule_files: [a\ntests: []\n", 0, ""),
        ("rule_files: []\nrule_file: []\n", 2, "rule_file"),
        (
            "rule_files: []\ntests:\n- alert_rule_test:\n  - {eval_time: 1m}\n",
            4,
            "alertname",
        ),
        (
            "rule_files: []\ntests:\n- alert_rule_test:\n  - {alertname: A, eval_time: 1x}\n",
            4,
            "`1x`",
        ),
        ("evaluation_interval: soon\n", 1, "`soon`"),
        ("tests: &a [*a, *a]\n", 0, ""),
        (&"[".repeat(100_000), 0, ""),
        (&format!("tests: {}", "{a: ".repeat(100_000)), 0, ""),
    ] {
        let report = run(folder.path(), text, &settings).await;
        let found = problems(&report);
        let [(at, words)] = found.as_slice() else {
            panic!("{text}: {found:?}")
        };
        assert!(words.contains(what), "{text}: {words}");
        assert!(line == 0 || *at == line, "{text}: line {at}, {words}");
        assert!(!report.passed());
    }
    let report = test::run(&[folder.path().join("absent.yaml")], &settings)
        .await
        .unwrap();
    assert!(problems(&report)[0].1.contains("cannot be read"));
}

/// Rules that cannot be loaded or evaluated are promtool's to refuse, whether they are needed or all of them are run.
#[tokio::test]
async fn a_rule_that_fails_is_an_error_of_those_who_need_it() {
    let Some(settings) = settings("a_rule_that_fails_is_an_error_of_those_who_need_it") else {
        return;
    };
    let folder = place(RULES);
    let series = "\n  input_series:\n  - {series: 'broken{a=\"1\", b=\"1\"}', values: '1x9'}\n  - {series: 'other{a=\"1\", b=\"1\"}', values: '1x9'}\n  \
                  - {series: 'other{a=\"1\", b=\"2\"}', values: '1x9'}\n";
    let text = format!(
        "rule_files: [rules.yaml]\ntests:\n- interval: 1m{series}  alert_rule_test:\n  - {{alertname: Broken, eval_time: 1m}}\n- interval: 1m{series}  \
         alert_rule_test:\n  - {{alertname: Down, eval_time: 1m}}\n"
    );
    let words = |report: &Report| verdicts(report).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
    let report = run(folder.path(), &text, &settings).await;
    assert_eq!(words(&report), ["error", "passed"], "{}", report.text());
    assert!(
        report.text().contains("many-to-many") || report.text().contains("duplicate series"),
        "{}",
        report.text()
    );
    let whole = Settings {
        whole: true,
        ..settings.clone()
    };
    assert_eq!(words(&run(folder.path(), &text, &whole).await), ["error", "error"]);

    fs::write(folder.path().join("rules.yaml"), RULES.replace("up == 0", "up == ")).unwrap();
    let report = run(folder.path(), &text, &settings).await;
    assert_eq!(words(&report), ["error", "error"], "{}", report.text());
    assert!(report.text().contains("parse error"), "{}", report.text());
}

#[tokio::test]
async fn a_promtool_that_hangs_or_is_not_there_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = place(RULES);
    let hanging = folder.path().join("promtool");
    fs::write(&hanging, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&hanging, fs::Permissions::from_mode(0o700)).unwrap();
    let mut settings = Settings::new(&hanging);
    settings.limit = Duration::from_millis(100);
    let text = with_cases("  alert_rule_test:\n  - {alertname: Down, eval_time: 1m}\n");
    let report = run(folder.path(), &text, &settings).await;
    assert!(report.text().contains("promtool took longer than"), "{}", report.text());
    fs::write(&hanging, "#!/bin/sh\necho '  SUCCESS'; echo '  SUCCESS'\n").unwrap();
    settings.limit = Duration::from_mins(1);
    let report = run(folder.path(), &text, &settings).await;
    assert!(!report.passed(), "more answers than questions: {}", report.text());
    let missing = Settings::new(folder.path().join("nowhere"));
    let file = folder.path().join("test.yaml");
    let error = test::run(&[file], &missing).await.unwrap_err();
    assert!(error.to_string().contains("cannot be started"), "{error}");
}
