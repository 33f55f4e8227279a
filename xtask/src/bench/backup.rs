//! Backup and restore beside restic and rustic, whole processes on the same data, turn by turn: one large file, a million
//! small ones, an S3 that is far away, an index of a terabyte. Quote CPU: wall time moves with whatever else the machine
//! does.

mod data;
mod index;
mod network;
mod one_file;
mod small_files;
mod tools;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use super::machine;
use super::page::Section;
use super::requirement::Requirement;
use tools::{Opsctl, Restic, Rustic, Tool};

const MIB: f64 = (1 << 20) as f64;

/// The programs. Ours is the first.
struct Tools {
    opsctl: Opsctl,
    restic: Restic,
    rustic: Rustic,
}

impl Tools {
    fn all(&self) -> [&dyn Tool; 3] {
        [&self.opsctl, &self.restic, &self.rustic]
    }
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
    /// A figure of opsctl, restic and rustic, as far as each has one.
    fn row(&mut self, what: &str, unit: &str, figures: &[f64], digits: usize) {
        let mut row = vec![what.to_owned(), unit.to_owned()];
        row.extend(figures.iter().map(|figure| format!("{figure:.digits$}")));
        row.resize(5, String::new());
        self.rows.push(row);
    }
}

/// Measures all parts.
pub fn measure() -> Result<Section> {
    let tools = Tools {
        restic: Restic::installed()?,
        rustic: Rustic::installed()?,
        opsctl: Opsctl::built()?,
    };
    let runtime = Runtime::new()?;
    let parts: [Part; 4] = runtime.block_on(async {
        Ok::<_, anyhow::Error>([
            part("one large file", one_file::measure(&tools).await)?,
            part("S3", network::measure(&tools).await)?,
            part("a large index", index::measure(&tools).await)?,
            part("small files", small_files::measure(&tools).await)?,
        ])
    })?;
    let methods = parts.iter().map(|part| part.method.as_str());
    let required = parts.iter().flat_map(|part| &part.required);
    Ok(Section {
        area: "backup",
        title: "Backup and restore",
        method: format!(
            "opsctl {} beside {} and {}: whole processes in turn on the same data, a fresh repository each time, no cache; \
             peak memory of a process as Linux counts it (`VmHWM`).\n\n{}\n\n{}\n\nRequired:\n\n{}",
            env!("CARGO_PKG_VERSION"),
            tools.restic.version()?,
            tools.rustic.version()?,
            methods
                .map(|method| format!("- {method}"))
                .collect::<Vec<_>>()
                .join("\n"),
            machine::describe(),
            required.map(|one| format!("- {one}")).collect::<Vec<_>>().join("\n"),
        ),
        columns: vec!["what", "unit", "opsctl", "restic", "rustic"],
        rows: parts.iter().flat_map(|part| part.rows.clone()).collect(),
    })
}

fn part(what: &str, measured: Result<Part>) -> Result<Part> {
    let part = measured.with_context(|| format!("could not measure {what}"))?;
    for line in &part.required {
        println!("{what}: {line}");
    }
    Ok(part)
}
