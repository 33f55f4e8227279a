//! SIGKILL at random instants of whatever leaves something behind, with repositories in folders and in a bucket: backup, restore,
//! restore in place (of a database on a server too), shipping, what maintains a repository, drill, canary; and
//! SIGSTOP of a run's worker and watchdog for longer than their leases. Whatever was there before is still there, nothing
//! half done looks whole, and what a run had changed is undone.
//!
//! `OPSCTL_KILLS` says how often, for each kind (12 by default), `OPSCTL_SEED` repeats a run; both are printed.

#[path = "kill/databases.rs"]
mod databases;
#[path = "kill/dice.rs"]
mod dice;
#[path = "kill/lane.rs"]
mod lane;
#[path = "kill/place.rs"]
mod place;
#[path = "kill/repository.rs"]
mod repository;
#[path = "kill/runs.rs"]
mod runs;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "kill/shipping.rs"]
mod shipping;
#[path = "kill/sources.rs"]
mod sources;
#[path = "kill/stage.rs"]
mod stage;
#[path = "kill/stores.rs"]
mod stores;
#[path = "support/traffic.rs"]
mod traffic;
