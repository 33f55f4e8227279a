//! The platform on Kubernetes, against a real API server with its controllers; kwok plays the nodes, so that pods become
//! ready and no container runs.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is a failed test")]

mod canary;
mod contract;
mod cut;
mod hop;
mod many;
mod providers;
mod refusals;
mod runs;
mod stage;
