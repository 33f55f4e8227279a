//! What happens to a repository on a bad day, through the real binary: disks that are full, a network that is cut, a server
//! that is killed and comes back, several machines at once, clocks that differ. After each the repository is whole to restic's
//! eyes, what was acknowledged restores, nothing else is listed, and the message says what to do. Kills are the matter of
//! `kill`, repositories that mean harm that of `hostile`, dumps that fail that of `sources`.

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/cloud.rs"]
mod cloud;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/full_repository.rs"]
mod full_repository;
#[path = "faults/full_target.rs"]
mod full_target;
#[path = "faults/machines.rs"]
mod machines;
#[path = "faults/network.rs"]
mod network;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "faults/shipping.rs"]
mod shipping;
#[path = "faults/truth.rs"]
mod truth;
