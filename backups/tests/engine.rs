//! The repository engine through its public surface, with Debian's restic as an independent judge where it is installed.
#![allow(missing_docs, reason = "tests")]

#[path = "engine/damage.rs"]
mod damage;
#[path = "engine/faults.rs"]
mod faults;
#[path = "engine/locks.rs"]
mod locks;
#[path = "engine/repository.rs"]
mod repository;
#[path = "engine/round_trip.rs"]
mod round_trip;
#[path = "engine/sqlite.rs"]
mod sqlite;
#[path = "engine/stores.rs"]
mod stores;
#[path = "engine/world.rs"]
mod world;
