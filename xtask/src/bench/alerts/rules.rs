//! `opsctl alert check` of a thousand rules beside `promtool check rules`: those that people publish, and those that are
//! derived from the catalogue of the reference services.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{Part, Tools};
use crate::bench::material;
use crate::bench::requirement::Requirement;
use crate::bench::rounds::{Side, medians};
use crate::step;

const ROUNDS: usize = 15;
/// The fewest rules that make a measurement.
const RULES: usize = 1000;
/// The most that ours may take, in milliseconds.
const BAR: f64 = 200.0;
/// What the catalogue has beside the reference services, so that there are enough rules without one twice.
const MORE: &str = "\n[service.returns]\nteam = \"shop\"\nuses = [\"orders-db\"]\nlocal = { command = [\"returns\"] }\nexports = \
                    [\"circuit-breaker\", \"database-pool\", \"dead-letters\", \"health\", \"outbox\", \"retry\", \"saga\"]\n";

/// Measures in a folder with the catalogue, whose intervals ours takes into account.
pub(super) async fn measure(tools: &Tools) -> Result<Part> {
    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let place = scratch.path();
    material::catalogue(place, MORE)?;
    let published = publish(&place.join("rules"))?;
    render(tools, place)?;
    let files = material::folder(&place.join("rules"))?;
    let count = count(tools, &files)?;
    ensure!(count >= RULES, "only {count} rules");
    let ours = || {
        let mut command = Command::new(&tools.opsctl);
        command.args(["alert", "check", "rules"]).current_dir(place);
        command.stderr(Stdio::null());
        command
    };
    let theirs = || {
        let mut command = Command::new(&tools.promtool);
        command.args(["check", "rules"]).args(&files).stderr(Stdio::null());
        command
    };
    // Some of the published rules are wrong, and ours says no.
    let sides = [
        Side::new("opsctl alert check", 4, ours),
        Side::new("promtool check rules", 0, theirs),
    ];
    let costs = medians(&sides, ROUNDS).await?;
    let mut part = Part {
        method: format!(
            "{count} rules in {} files: those of {published} published mixins, and what `opsctl alert render` derives from the \
             catalogue of the reference services and one more service; {ROUNDS} rounds. Both read the YAML, the expressions \
             and the templates. promtool looks for rules that are there twice, and at nothing else. opsctl holds every \
             expression against the metrics that are known, runs all its checks, and prints what it finds with its place and \
             how to mend it.",
            files.len()
        ),
        ..Part::default()
    };
    part.required.push(Requirement::at_most(
        &format!("`alert check` of {count} rules"),
        Some(costs[0].wall * 1e3),
        BAR,
        "ms",
    ));
    for (side, cost) in sides.iter().zip(costs) {
        part.row(&format!("{count} rules"), &side.who, cost, true);
    }
    Ok(part)
}

/// Copies the files of the mixins that hold rules, and says of how many mixins they are.
fn publish(into: &Path) -> Result<usize> {
    fs::create_dir(into)?;
    let mut published = 0;
    for mixin in material::mixins()? {
        let mut copied = false;
        for file in ["alerts.yaml", "rules.yaml"] {
            let text = fs::read_to_string(mixin.join(file))?;
            if text.contains("expr") {
                fs::write(into.join(format!("{}-{file}", material::name(&mixin))), text)?;
                copied = true;
            }
        }
        published += usize::from(copied);
    }
    Ok(published)
}

/// Adds what is derived from the catalogue, without its tests.
fn render(tools: &Tools, place: &Path) -> Result<()> {
    let mut render = Command::new(&tools.opsctl);
    render.args(["alert", "render", "--out", "derived", "--runbooks", "runbooks"]);
    step::run(render.current_dir(place).stdout(Stdio::null()).stderr(Stdio::null()))?;
    for path in material::folder(&place.join("derived/rules"))? {
        if path.is_file() {
            fs::rename(&path, place.join("rules").join(material::name(&path)))?;
        }
    }
    Ok(())
}

/// How many rules promtool finds.
fn count(tools: &Tools, files: &[PathBuf]) -> Result<usize> {
    let mut check = Command::new(&tools.promtool);
    let said = step::output(
        check
            .args(["check", "rules", "--lint=none"])
            .args(files)
            .current_dir("/"),
    )?;
    let found = |line: &str| {
        let words = line.trim().strip_prefix("SUCCESS: ")?;
        words.split(' ').next()?.parse::<usize>().ok()
    };
    Ok(said.lines().filter_map(found).sum())
}
