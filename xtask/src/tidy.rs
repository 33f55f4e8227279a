//! `cargo xtask tidy`: the rules of the house that no compiler knows. Each rule is a function that returns findings;
//! all are printed, so that one run shows everything.

mod crates;
mod docs;
mod files;
mod layout;
mod tree;

use std::fmt;

use anyhow::{Result, bail};

/// One place that breaks a rule.
#[derive(Debug)]
pub struct Finding {
    /// The file or crate, relative to the workspace.
    place: String,
    /// What is wrong and what to do.
    message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

type Rule = fn() -> Result<Vec<Finding>>;

const RULES: &[(&str, Rule)] = &[
    ("layout", layout::check),
    ("crates", crates::check),
    ("files", files::check),
    ("docs", docs::check),
];

/// Applies every rule.
///
/// # Errors
/// When a rule is broken, or a file could not be read.
pub fn run() -> Result<()> {
    let mut broken = 0;
    for (name, rule) in RULES {
        for finding in rule()? {
            eprintln!("{name}: {finding}");
            broken += 1;
        }
    }
    if broken > 0 {
        bail!("{broken} places break the rules of the house");
    }
    println!("tidy: {} rule sets hold", RULES.len());
    Ok(())
}
