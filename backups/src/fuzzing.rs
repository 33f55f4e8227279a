//! What holds for everything that reads foreign bytes, one property a reader. `cargo xtask fuzz` calls them with bytes
//! that coverage guides (`backups/fuzz`), and every run of the tests with a seeded slice of mutations (`slice`). Not how
//! readers act together on a hostile repository, which `repo/hostile.rs` and `tests/engine/hostile.rs` have.
//!
//! The properties stand beside their readers, in files of the same name as this one.

#[cfg(test)]
mod slice;

use std::path::Path;

/// One reader and what holds for it.
pub struct Target {
    /// Its name: that of the fuzz target, too.
    pub name: &'static str,
    /// Sound input, which what is tried is made of.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics where something does not hold.
    pub property: fn(&[u8]),
}

/// Every target.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    [
        crate::repo::fuzzing::TARGETS,
        crate::pitr::postgres::archive::fuzzing::TARGETS,
        crate::pitr::postgres::wal::fuzzing::TARGETS,
        crate::pitr::sqlite::fuzzing::TARGETS,
        crate::postgres::fuzzing::TARGETS,
        crate::proof::fuzzing::TARGETS,
        crate::schedule::fuzzing::TARGETS,
        crate::source::fuzzing::TARGETS,
        crate::source::postgres::base::fuzzing::TARGETS,
        crate::store::fuzzing::TARGETS,
    ]
    .into_iter()
    .flatten()
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    let found = targets().find(|target| target.name == name);
    found.expect("a fuzz target is named after a property")
}

/// Where the environment names a folder, writes a target's sound input there.
///
/// # Panics
/// If that folder cannot be written.
pub fn write_seeds(target: &Target) {
    let Some(folder) = std::env::var_os("OPSCTL_FUZZ_SEEDS") else {
        return;
    };
    for seed in (target.seeds)() {
        let file = Path::new(&folder).join(crate::Id::of(&seed).to_string());
        std::fs::write(file, seed).expect("the folder for seeds can be written");
    }
}

/// Cuts one input into two at its first line feed.
pub(crate) fn halves(input: &[u8]) -> (&[u8], &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    (&input[..at], input.get(at + 1..).unwrap_or_default())
}
