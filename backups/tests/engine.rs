//! The repository engine through its public surface, with Debian's restic as an independent judge where it is installed.

#[cfg(test)]
#[path = "engine/attributes.rs"]
mod attributes;
#[cfg(test)]
#[path = "engine/chaos.rs"]
mod chaos;
#[cfg(test)]
#[path = "engine/command.rs"]
mod command;
#[cfg(test)]
#[path = "engine/copy.rs"]
mod copy;
#[cfg(test)]
#[path = "engine/damage.rs"]
mod damage;
#[cfg(test)]
#[path = "engine/faults.rs"]
mod faults;
#[cfg(test)]
#[path = "engine/forget.rs"]
mod forget;
#[cfg(test)]
#[path = "engine/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "engine/keys.rs"]
mod keys;
#[cfg(test)]
#[path = "engine/live_files.rs"]
mod live_files;
#[cfg(test)]
#[path = "engine/locks.rs"]
mod locks;
#[cfg(test)]
#[path = "engine/maintenance.rs"]
mod maintenance;
#[cfg(test)]
#[path = "engine/needed_again.rs"]
mod needed_again;
#[cfg(test)]
#[path = "engine/parity.rs"]
mod parity;
#[cfg(test)]
#[path = "engine/proof.rs"]
mod proof;
#[cfg(test)]
#[path = "engine/prune.rs"]
mod prune;
#[cfg(test)]
#[path = "engine/prune_beside_others.rs"]
mod prune_beside_others;
#[cfg(test)]
#[path = "engine/repair.rs"]
mod repair;
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
#[path = "engine/rustic.rs"]
mod rustic;
#[cfg(test)]
#[path = "engine/selection.rs"]
mod selection;
#[cfg(test)]
#[path = "engine/shipping.rs"]
mod shipping;
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
