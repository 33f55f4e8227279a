//! `opsctl dashboard check` of a hundred boards: those that people publish, and ours in each form that Grafana takes. No
//! other linter of boards is beside it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;

use super::page::Section;
use super::requirement::Requirement;
use super::rounds::{Side, medians};
use super::{machine, material, program};
use crate::step;

const ROUNDS: usize = 15;
/// The fewest boards that make a measurement.
const BOARDS: usize = 100;
/// The most that a check may take, in seconds.
const BAR: f64 = 1.0;
/// The forms that our boards are rendered in.
const FORMS: [&str; 3] = ["json", "v1", "v2"];

/// Measures in a folder with the catalogue.
pub fn measure() -> Result<Section> {
    program::build(&["opsctl"])?;
    let opsctl = program::release("opsctl")?;
    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let place = scratch.path();
    material::catalogue(place, "")?;
    let boards = place.join("boards");
    let published = publish(&boards)?;
    let ours = render(&opsctl, place)?;
    let count = published + ours;
    ensure!(count >= BOARDS, "only {count} boards");
    let bytes = material::size_of(&boards)?;
    // Some of the published boards are wrong, and ours says no.
    let side = Side::new("opsctl dashboard check", 4, || {
        let mut command = Command::new(&opsctl);
        command.args(["dashboard", "check", "boards"]).current_dir(place);
        command.stderr(Stdio::null());
        command
    });
    let cost = Runtime::new()?.block_on(medians(&[side], ROUNDS))?[0];
    let what = format!("`dashboard check` of {count} boards");
    let required = Requirement::at_most(&what, Some(cost.wall), BAR, "s");
    Ok(Section {
        area: "dashboards",
        title: "Boards",
        method: format!(
            "Whole processes from start to exit, median of {ROUNDS}: {published} published boards, and ours in the {} forms that \
             Grafana takes, {ours}; {:.1} MB of JSON. Nothing is beside it: promtool reads no boards, and another linter of \
             them could not be had.\n\n{}\n\nRequired:\n\n- {required}",
            FORMS.len(),
            bytes as f64 / 1e6,
            machine::describe(),
        ),
        columns: vec!["what", "wall ms", "CPU ms", "peak MiB"],
        rows: vec![vec![
            format!("opsctl dashboard check, {count} boards"),
            format!("{:.0}", cost.wall * 1e3),
            format!("{:.0}", cost.cpu * 1e3),
            format!("{:.0}", cost.mib),
        ]],
    })
}

/// Copies the boards of the mixins, and counts them.
fn publish(into: &Path) -> Result<usize> {
    fs::create_dir(into)?;
    let mut count = 0;
    for mixin in material::mixins()? {
        let boards = mixin.join("dashboards");
        if !boards.is_dir() {
            continue;
        }
        for board in material::folder(&boards)? {
            let name = format!("{}-{}", material::name(&mixin), material::name(&board));
            fs::copy(&board, into.join(name))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Adds ours in every form, and counts them.
fn render(opsctl: &Path, place: &Path) -> Result<usize> {
    let mut count = 0;
    for form in FORMS {
        let folder = format!("boards/ours-{form}");
        let mut render = Command::new(opsctl);
        render.args(["dashboard", "render", "--format", form, "--out", &folder]);
        step::run(render.current_dir(place).stdout(Stdio::null()).stderr(Stdio::null()))?;
        count += material::folder(&place.join(folder))?.len();
    }
    Ok(count)
}
