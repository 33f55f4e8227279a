//! The local platform with real processes: supervisor, proxy, services, workers, watchdogs.

mod adoption;
mod contract;
mod lifecycle;
mod runs;
mod stage;
