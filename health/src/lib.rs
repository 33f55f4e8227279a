//! Background checks, a service's life cycle, and the HTTP and gRPC servers that tell of both.
//!
//! Checks run in the background on their own schedule; probes answer from memory and never wait for the network.
//! Liveness checks are synchronous, so a network call does not fit in. On SIGTERM a [`Lifecycle`] says "not ready",
//! keeps accepting for a while, stops accepting, waits, and aborts what is left, all under one deadline.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use health::{Beat, Health};
//!
//! let health = Health::builder()
//!     .critical("db", || async { Ok::<(), std::io::Error>(()) })
//!     .liveness("worker", || Beat::Alive)
//!     .build()?;
//! health.wait_until(|state| state.takes_traffic()).await;
//! let app: axum::Router = axum::Router::new().merge(health.http_router());
//! # drop(app); health.stop(); Ok(()) }
//! ```
//!
//! It starts no servers and exports no metrics: [`Health::snapshot`] and [`Health::subscribe`] are for those who do.

mod check;
mod checks;
mod grpc;
mod http_server;
mod lifecycle;
mod live;
mod schedule;
mod state;

pub use check::{Check, Failure, OnDown, Outcome, Reason, Role, Spec};
pub use checks::*;
pub use grpc::GrpcHealth;
pub use lifecycle::{Drain, DrainError, Ended, Lifecycle};
pub use live::{Beat, Heartbeat};
pub use schedule::{BuildError, CheckSnapshot, Health, HealthBuilder, LivenessSnapshot, Snapshot};
pub use state::{State, Status};
