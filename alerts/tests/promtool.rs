//! Rule tests against promtool itself: the same verdict in every case, ours beyond it, and how long it takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use alerts::test::{self, Report, Settings, Verdict};
use tokio::time::Instant;

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

#[tokio::test]
async fn the_mixins_tests_have_promtools_verdicts_in_a_fifth_of_its_time() {
    const TEST: &str = "the_mixins_tests_have_promtools_verdicts_in_a_fifth_of_its_time";
    let Some(settings) = settings(TEST) else { return };
    let Some((_folder, files)) = kubernetes(TEST) else { return };
    let start = Instant::now();
    let report = test::run(&files, &settings).await.unwrap();
    let ours = start.elapsed();
    assert!(report.passed(), "{}", report.text());
    let count: usize = report.files.iter().map(|file| file.cases.len()).sum();
    assert!(count >= 198, "{count} cases");
    let start = Instant::now();
    let output = Command::new(&settings.promtool).args(["test", "rules"]).args(&files).output().unwrap();
    let theirs = start.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{count} cases: {ours:?}, promtool alone {theirs:?}");
    assert!(theirs >= ours * 5, "ours {ours:?}, promtool's {theirs:?}");
}
