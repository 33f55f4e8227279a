//! What holds for everything in `dashboards` that reads foreign bytes, one property a reader. `cargo xtask fuzz` calls them
//! with bytes that coverage guides, and every run of the tests with a seeded slice of mutations
//! (`dashboards/tests/fuzzing.rs`, which has this file as a module). All of it goes through public surfaces.

pub mod answers;
pub mod boards;
pub mod charts;
#[path = "../../../alerts/fuzz/src/findings.rs"]
pub mod findings;
#[path = "../../pictures/tests/pictures/judge.rs"]
#[allow(dead_code, reason = "the tests of `pictures` use all of it")]
pub mod judge;

use fixtures::fuzzing::Target;

/// Every target.
pub fn targets() -> Vec<Target> {
    [answers::TARGETS, boards::TARGETS, charts::TARGETS].concat()
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    let found = targets().into_iter().find(|target| target.name == name);
    found.expect("a fuzz target is named after a property")
}
