//! A short, seeded slice of fuzzing for every run of the tests. What takes minutes and follows coverage is
//! `cargo xtask fuzz`; what holds stands in `dashboards/fuzz`.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::path::Path;

use fixtures::fuzzing::{same_names, seed, try_out};

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "the fuzz targets ask for one of them")]
mod properties;

/// Inputs for each target.
const EACH: usize = 200;

#[test]
fn every_reader_of_foreign_bytes_holds_under_mutation() {
    let seed = seed();
    for target in properties::targets() {
        try_out(&target, EACH, seed);
    }
}

/// Each property is a fuzz target, and no fuzz target is without one.
#[test]
fn every_property_is_a_fuzz_target() {
    same_names(
        &properties::targets(),
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets"),
    );
}
