//! Feeds the property `backup_archive` of `backups::fuzzing`, which says what holds.
#![no_main]

use std::sync::LazyLock;

use backups::fuzzing::{Target, target, write_seeds};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| target("backup_archive"));

fuzz_target!(init: write_seeds(&TARGET), |input: &[u8]| (TARGET.property)(input));
