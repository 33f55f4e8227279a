//! A million small files: backup, the same again with nothing changed, restore. What was deleted a moment ago slows down
//! what is made (ext4 uses no inode again at once), so that all is kept to the end.

use std::fs;

use anyhow::{Context as _, Result};

use super::tools::{Store, Tool};
use super::{Part, Tools, data};
use crate::bench::process::{Cost, cost};
use crate::bench::requirement::Requirement;

const FILES: usize = 1_000_000;
const STEPS: [&str; 3] = ["backup", "backup of the same again", "restore"];

/// Measures all three steps with opsctl and restic.
pub(super) async fn measure(tools: &Tools) -> Result<Part> {
    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let data = scratch.path().join("data");
    fs::create_dir(&data)?;
    data::small_files(&data, FILES)?;
    let tools: [&dyn Tool; 2] = [&tools.opsctl, &tools.restic];
    let mut costs: [Vec<Cost>; 2] = Default::default();
    for tool in tools {
        let place = scratch.path().join(tool.name());
        fs::create_dir(&place)?;
        tool.prepare(&place, Store::Folder, &data)?;
    }
    for (step, what) in STEPS.into_iter().enumerate() {
        for (tool, costs) in tools.into_iter().zip(&mut costs) {
            let place = scratch.path().join(tool.name());
            let cost = cost(if step < 2 {
                tool.backup(&place, &data)
            } else {
                tool.restore(&place)
            });
            let cost = cost.await?;
            println!("{what}, {}: {cost:.2?}", tool.name());
            costs.push(cost);
        }
    }
    let mut part = Part {
        method: format!(
            "{FILES} files of 64 to 1,000 bytes in folders of a thousand, a repository in a local folder; once."
        ),
        ..Part::default()
    };
    let [ours, restic] = &costs;
    for ((what, ours), restic) in STEPS.into_iter().zip(ours).zip(restic) {
        let what = format!("{what}, small files");
        for (of, quotient) in [("time", ours.wall / restic.wall), ("memory", ours.mib / restic.mib)] {
            let name = format!("{of} of a {what}");
            part.required
                .push(Requirement::at_most(&name, Some(quotient), 1.0, "times restic's"));
        }
        part.row(&what, "wall s", &[ours.wall, restic.wall], 1);
        part.row(&what, "CPU s", &[ours.cpu, restic.cpu], 1);
        part.row(&what, "peak MiB", &[ours.mib, restic.mib], 0);
    }
    Ok(part)
}
