//! The repository engine through its public surface, with Debian's restic as an independent judge where it is installed.

#[cfg(test)]
#[path = "engine/attributes.rs"]
mod attributes;
#[cfg(test)]
#[path = "engine/command.rs"]
mod command;
#[cfg(test)]
#[path = "engine/damage.rs"]
mod damage;
#[cfg(test)]
#[path = "engine/faults.rs"]
mod faults;
#[cfg(test)]
#[path = "engine/live_files.rs"]
mod live_files;
#[cfg(test)]
#[path = "engine/locks.rs"]
mod locks;
#[cfg(test)]
#[path = "engine/repository.rs"]
mod repository;
#[cfg(test)]
#[path = "engine/resume.rs"]
mod resume;
#[cfg(test)]
#[path = "engine/round_trip.rs"]
mod round_trip;
#[cfg(test)]
#[path = "engine/selection.rs"]
mod selection;
#[cfg(test)]
#[path = "engine/sparse.rs"]
mod sparse;
#[cfg(test)]
#[path = "engine/special_files.rs"]
mod special_files;
#[cfg(test)]
#[path = "engine/sqlite.rs"]
mod sqlite;
#[cfg(test)]
#[path = "engine/stores.rs"]
mod stores;
#[cfg(test)]
#[path = "engine/world.rs"]
mod world;
