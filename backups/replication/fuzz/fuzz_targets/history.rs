//! Feeds the property `history` of `replication::fuzzing`, which says what holds.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use replication::fuzzing::{Target, target, write_seeds};

static TARGET: LazyLock<&Target> = LazyLock::new(|| target("history"));

fuzz_target!(init: write_seeds(&TARGET), |input: &[u8]| (TARGET.property)(input));
