//! PostgreSQL that is saved as a whole, on its worst days and through the real binary: the primary is killed with its disk
//! while somebody writes, opsctl and the server of its repository are killed, networks are cut, disks are full, and what is
//! archived is damaged. What comes back is exactly a prefix of what was committed, and no shorter than was promised; where
//! that cannot be, the command fails and says why.
//!
//! `OPSCTL_ROUNDS` says how many rounds there are of each kind (5 by default), `OPSCTL_SEED` repeats a run; both are printed.

#[path = "faults/cloud.rs"]
mod cloud;
#[path = "pitr/damage.rs"]
mod damage;
#[path = "kill/dice.rs"]
mod dice;
#[path = "faults/disk.rs"]
mod disk;
#[path = "pitr/edges.rs"]
mod edges;
#[path = "pitr/follower.rs"]
mod follower;
#[path = "pitr/full.rs"]
mod full;
#[path = "pitr/kills.rs"]
mod kills;
#[path = "pitr/outages.rs"]
mod outages;
#[path = "pitr/rounds.rs"]
mod rounds;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "pitr/scene.rs"]
mod scene;
#[path = "faults/truth.rs"]
mod truth;
#[path = "pitr/wire.rs"]
mod wire;
