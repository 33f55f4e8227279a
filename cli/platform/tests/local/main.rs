//! The local platform with real processes: supervisor, proxy, services, workers, watchdogs.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is a failed test")]

mod adoption;
mod contract;
mod lifecycle;
mod runs;
mod search;
mod stage;
