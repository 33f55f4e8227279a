//! The commands on Kubernetes, against a real control plane whose only node is played: no container runs. What needs
//! containers is tested where there are some.

mod canary;
mod clusters;
mod cut;
mod refusals;
mod restore;
mod rights;
#[path = "../support/sandbox.rs"]
mod sandbox;
mod schedules;
mod stage;
