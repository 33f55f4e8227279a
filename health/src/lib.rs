//! Background checks, a service's life cycle, and the HTTP and gRPC servers that tell of both.
//!
//! Checks run in the background on their own schedule; probes answer from memory and never wait for the network.
//! Liveness checks are synchronous, so a network call does not fit in. On SIGTERM a [`Lifecycle`] says "not ready",
//! keeps accepting for a while, stops accepting, waits, cuts what is left and flushes telemetry, all under one deadline.
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
//! It exports no metrics: [`Health::snapshot`] and [`Health::subscribe`] are for those who do. docs/guides/health.md says
//! how the parts are used together.

mod board;
mod builder;
mod check;
mod checks;
mod details;
mod grpc;
mod health;
mod http_server;
mod lifecycle;
mod listener;
mod live;
mod schedule;
mod settings;
mod snapshot;
mod spec;
mod state;

pub use builder::{BuildError, HealthBuilder};
pub use check::{Blocking, Check, Failure, Outcome, Reason, blocking};
pub use checks::*;
pub use grpc::GrpcHealth;
pub use health::Health;
pub use lifecycle::{Drain, Ended, Interrupted, Lifecycle, LifecycleError};
pub use live::{Beat, Heartbeat};
pub use settings::{CheckSettings, DetailsListener, DetailsSettings, Settings, SettingsError, Token};
pub use snapshot::{CheckSnapshot, GroupSnapshot, LivenessSnapshot, Snapshot};
pub use spec::{OnDown, Role, Scope, Spec};
pub use state::{State, Status};

/// The guide's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/health.md")]
struct Guide;
