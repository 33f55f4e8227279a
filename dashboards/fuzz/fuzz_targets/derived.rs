//! Feeds the property `derived` of `dashboards_fuzz`, which says what holds.
#![no_main]

use std::sync::LazyLock;

use fixtures::fuzzing::{Target, write_seeds};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| dashboards_fuzz::target("derived"));

fuzz_target!(init: write_seeds(&TARGET), |input: &[u8]| (TARGET.property)(input));
