//! `opsctl alert test` beside `promtool test rules`, on the tests of kubernetes-mixin as its authors lay them out: how long
//! both take, and that they say the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Part, Tools};
use crate::bench::material;
use crate::bench::requirement::Requirement;
use crate::bench::rounds::{Side, medians};

const ROUNDS: usize = 3;
/// How many times as long as ours promtool alone must take.
const FASTER: f64 = 5.0;
/// What is changed in the rules, for some of the tests to fail.
const CHANGES: [(&str, &str); 2] = [("for: 15m", "for: 1h"), ("> 1.5", "> 99")];

/// Whether the tests of a file pass, by its name.
type Verdicts = BTreeMap<String, bool>;

/// What `opsctl alert test --json` says of the tests.
#[derive(Debug, Deserialize)]
struct Said {
    rules: Rules,
}

#[derive(Debug, Deserialize)]
struct Rules {
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
struct File {
    path: String,
    problems: Vec<Value>,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    verdict: String,
}

/// Compares verdicts, on the rules as they are and on wrong ones, and measures on those that are right.
pub(super) async fn measure(tools: &Tools) -> Result<Part> {
    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let place = scratch.path();
    let files = lay_out(place)?;
    let ours = || {
        let mut command = Command::new(&tools.opsctl);
        command.args(["alert", "test", "--json", "--promtool"]);
        command.arg(&tools.promtool).args(&files).current_dir(place);
        command.stderr(Stdio::null());
        command
    };
    let theirs = |files: &[String]| {
        let mut command = Command::new(&tools.promtool);
        command.args(["test", "rules"]).args(files).current_dir(place);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let said = said(ours())?;
    let cases: usize = said.rules.files.iter().map(|file| file.cases.len()).sum();
    let sides = [
        // Each ends well only where every test passes.
        Side::new("opsctl alert test", 0, ours),
        Side::new("promtool test rules", 0, || theirs(&files)),
    ];
    let costs = medians(&sides, ROUNDS).await?;

    change(place)?;
    let verdicts = |said: Said| -> Verdicts {
        let file = |file: File| {
            let passed = file.cases.iter().all(|case| case.verdict == "passed");
            (file.path, passed && file.problems.is_empty())
        };
        said.rules.files.into_iter().map(file).collect()
    };
    let changed = verdicts(self::said(ours())?);
    for file in &files {
        let passed = theirs(std::slice::from_ref(file)).status()?.success();
        ensure!(
            changed.get(file) == Some(&passed),
            "promtool says of {file} with changed rules that it passes: {passed}; opsctl says {:?}",
            changed.get(file)
        );
    }
    let failed = changed.values().filter(|passed| !**passed).count();
    ensure!(
        failed > 0 && failed < files.len(),
        "{failed} of {} files fail with changed rules",
        files.len()
    );

    let mut part = Part {
        method: format!(
            "The {cases} cases of kubernetes-mixin's {} test files, its rules beside them; {ROUNDS} rounds. Every case passes with \
             both; with rules that were changed the same {failed} files fail with both. opsctl has promtool evaluate what a \
             case needs of the rules, in as many processes as there are cores, and also tells which alerts the tests show to \
             fire; promtool alone evaluates all rules for every test.",
            files.len()
        ),
        ..Part::default()
    };
    part.required.push(Requirement::at_least(
        "speed of `alert test` on kubernetes-mixin's tests",
        Some(costs[1].wall / costs[0].wall),
        FASTER,
        "times promtool's",
    ));
    for (side, cost) in sides.iter().zip(costs) {
        part.row("kubernetes-mixin's tests", &side.who, cost, false);
    }
    Ok(part)
}

/// Copies rules and tests to where the tests look for the rules, and names the tests.
fn lay_out(place: &Path) -> Result<Vec<String>> {
    let rules = material::shared("mixins/kubernetes")?;
    for kind in ["alerts", "rules"] {
        fs::copy(rules.join(format!("{kind}.yaml")), rules_file(place, kind))?;
    }
    fs::create_dir(place.join("tests"))?;
    let mut files = Vec::new();
    for from in material::folder(&material::shared("kubernetes-mixin-tests/tests")?)? {
        let file = format!("tests/{}", material::name(&from));
        fs::copy(&from, place.join(&file))?;
        files.push(file);
    }
    Ok(files)
}

fn rules_file(place: &Path, kind: &str) -> std::path::PathBuf {
    place.join(format!("prometheus_{kind}.yaml"))
}

fn change(place: &Path) -> Result<()> {
    for kind in ["alerts", "rules"] {
        let file = rules_file(place, kind);
        let mut text = fs::read_to_string(&file)?;
        for (old, new) in CHANGES {
            text = text.replace(old, new);
        }
        fs::write(&file, text)?;
    }
    Ok(())
}

/// What ours says, whatever it ends with.
fn said(mut command: Command) -> Result<Said> {
    let output = command.output().context("could not start opsctl")?;
    serde_json::from_slice(&output.stdout).context("`opsctl alert test` printed no report")
}
