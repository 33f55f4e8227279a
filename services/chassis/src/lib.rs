//! What every reference service needs around its own logic: addresses, version label, injected faults, a database,
//! listeners that drain, policies from TOML, one way to fail at start. Retries, logs, metrics and probes are not here: a
//! service takes them from `resilience`, `telemetry` and `health` itself, as any user's service would.

pub mod args;
pub mod database;
pub mod fault;
pub mod listen;
pub mod measure;
pub mod migration;
pub mod policies;
pub mod postgres;
pub mod private;
pub mod problem;
pub mod request;
pub mod sqlite;
pub mod start;
#[cfg(feature = "trial")]
pub mod trial;

pub use args::{Args, Ports};
pub use database::{DatabaseError, Place};
pub use fault::{Fault, FaultLayer};
pub use listen::{ListenError, Listeners};
pub use measure::grpc_layer;
pub use policies::{Policies, breaker_check};
pub use problem::Problem;

/// What time it is: the services' one wall clock. Everything that decides takes the time as an argument.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The service that the README shows compiles; this crate has everything that it uses.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
