//! What it takes to look at alert rules and to test them, beside promtool on the same files, and to read the language of
//! queries, beside another parser of it.

mod language;
mod rules;
mod tests;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use peers::Peer;
use tokio::runtime::Runtime;

use super::page::Section;
use super::process::Cost;
use super::requirement::Requirement;
use super::{machine, program};

const COLUMNS: [&str; 6] = ["what", "whose", "wall ms", "CPU ms", "peak MiB", "MB/s"];

/// The programs.
struct Tools {
    opsctl: PathBuf,
    promtool: PathBuf,
}

/// What one part of the section says.
#[derive(Default)]
struct Part {
    /// How it was measured.
    method: String,
    required: Vec<Requirement>,
    rows: Vec<Vec<String>>,
}

impl Part {
    /// What a whole process cost; with its memory where no other process works for it.
    fn row(&mut self, what: &str, who: &str, cost: Cost, alone: bool) {
        let memory = alone.then(|| format!("{:.0}", cost.mib));
        self.rows.push(vec![
            what.to_owned(),
            who.to_owned(),
            format!("{:.0}", cost.wall * 1e3),
            format!("{:.0}", cost.cpu * 1e3),
            memory.unwrap_or_default(),
            String::new(),
        ]);
    }
}

/// Measures all parts.
pub fn measure() -> Result<Section> {
    program::build(&["opsctl"])?;
    let tools = Tools {
        opsctl: program::release("opsctl")?,
        promtool: program::peer("promtool")?,
    };
    let runtime = Runtime::new()?;
    let parts = [
        runtime
            .block_on(rules::measure(&tools))
            .context("could not measure checks of rules")?,
        language::measure().context("could not measure the parser")?,
        runtime
            .block_on(tests::measure(&tools))
            .context("could not measure tests of rules")?,
    ];
    let list = |lines: Vec<String>| lines.join("\n- ");
    Ok(Section {
        area: "alerts",
        title: "Alert rules",
        method: format!(
            "opsctl {} beside promtool of Prometheus {}: whole processes in turn on the same files, another one first in each \
             round, medians. pint is not beside them: no version of it could be had that Go's checksum database vouches for.\n\n\
             - {}\n\n{}\n\nRequired:\n\n- {}",
            env!("CARGO_PKG_VERSION"),
            Peer::named("promtool").and_then(Peer::version).unwrap_or_default(),
            list(parts.iter().map(|part| part.method.clone()).collect()),
            machine::describe(),
            list(
                parts
                    .iter()
                    .flat_map(|part| &part.required)
                    .map(ToString::to_string)
                    .collect()
            ),
        ),
        columns: COLUMNS.to_vec(),
        rows: parts.into_iter().flat_map(|part| part.rows).collect(),
    })
}
