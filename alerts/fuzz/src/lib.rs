//! What holds for everything in `alerts` that reads foreign bytes, one property a reader. `cargo xtask fuzz` calls them
//! with bytes that coverage guides, and every run of the tests with a seeded slice of mutations (`alerts/tests/fuzzing.rs`,
//! which has this file as a module). All of it goes through public surfaces.

pub mod answers;
pub mod expressions;
pub mod files;
pub mod findings;
pub mod landscape;
pub mod language;
pub mod metrics;

use fixtures::fuzzing::Target;

/// Every target.
pub fn targets() -> Vec<Target> {
    [
        answers::TARGETS,
        expressions::TARGETS,
        files::TARGETS,
        landscape::TARGETS,
        language::TARGETS,
        metrics::TARGETS,
    ]
    .concat()
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    let found = targets().into_iter().find(|target| target.name == name);
    found.expect("a fuzz target is named after a property")
}
