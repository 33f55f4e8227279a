//! What only real pods, a real kubelet and a real gateway show: drills, canaries, kills and faults on the cluster of
//! `cargo xtask cluster`, under traffic. `cargo xtask prove` makes the images, starts the cluster and runs these; a plain
//! `cargo test` leaves them out. No test of the commands' words and codes: those need no containers.
#![expect(clippy::print_stdout, reason = "what was measured is the proof")]

mod alerts;
mod canary;
#[path = "../kill/dice.rs"]
mod dice;
mod exclusion;
mod faults;
mod hop;
mod kills;
mod node_drain;
mod pod_kill;
mod policy;
#[path = "../support/sandbox.rs"]
mod sandbox;
mod shop;
#[path = "../support/traffic.rs"]
mod traffic;
mod turn;
mod updates;
