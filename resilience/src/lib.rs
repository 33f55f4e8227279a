//! Policies that keep a service up when what it calls does not answer: retry with a budget, circuit breaker, time
//! limits with deadline propagation, bulkhead.
//!
//! A policy owns its state; clones, `call` and layers are views of the same state.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use resilience::Pipeline;
//!
//! let policy = Pipeline::standard("payments").build()?;
//! let charged = policy
//!     .call(|attempt| async move {
//!         // The attempt says how long it may take.
//!         assert!(attempt.timeout().is_some());
//!         Ok::<_, std::io::Error>(42)
//!     })
//!     .await?;
//! assert_eq!(charged, 42);
//! # Ok(()) }
//! ```
//!
//! The order is fixed and this: fallback > total deadline > bulkhead > retry with budget > breaker > attempt timeout.
//! The breaker sees every attempt, and time limits lie inside it, since what never ends must count as a failure.
//! Nothing here knows metrics: [`Pipeline::snapshot`] and [`Listener`] are for those who do.

mod adaptive;
#[cfg(feature = "axum")]
pub mod axum;
mod breaker;
mod budget;
mod bulkhead;
mod clock;
#[cfg(feature = "config")]
mod config;
mod consumer;
mod deadline;
mod error;
mod event;
#[cfg(feature = "fault-injection")]
mod fault;
mod gate;
#[cfg(feature = "grpc")]
pub mod grpc;
mod hedge;
#[cfg(feature = "http")]
pub mod http;
mod layer;
mod pipeline;
mod rate;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod retry;
#[cfg(any(feature = "axum", feature = "grpc"))]
pub mod server;
mod shard;
mod sharded;
mod shed;
mod stale;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
#[cfg(feature = "grpc")]
pub mod tonic_server;
mod verdict;
mod window;

pub use adaptive::{AdaptiveLimit, AdaptiveSettings, AdaptiveSnapshot, Sample};
pub use breaker::{
    Breaker, BreakerBuilder, BreakerCounts, BreakerSettings, BreakerSnapshot, Change, Force, HalfOpen, OnDrop, Pass,
    Permit, Refusal, SlowCalls, State,
};
pub use budget::{Budget, BudgetSettings, BudgetSnapshot, Tokens};
pub use bulkhead::{Bulkhead, BulkheadSettings, BulkheadSnapshot, Place};
#[cfg(feature = "config")]
pub use config::ConfigError;
pub use consumer::{Consumer, ConsumerSettings, ConsumerSnapshot, Disposition, Poison};
pub use deadline::Deadline;
pub use error::{BuildError, By, Error, Rejected, Scope};
pub use event::{Event, Listener};
#[cfg(feature = "fault-injection")]
pub use fault::{ActiveFault, Fault, Faults, FaultsSnapshot, Injected};
pub use hedge::{HedgeSettings, HedgeSnapshot};
pub use layer::{AnyError, PipelineFuture, PipelineLayer, PipelineService, RequestFuture, Requests};
pub use pipeline::{
    Attempt, Call, Op, Part, Pipeline, PipelineBuilder, PipelineSettings, PipelineSnapshot, TimeoutSettings, Unsettled,
};
pub use rate::{KeyedRateLimit, KeyedRateLimitSettings, KeyedRateLimitSnapshot};
pub use rate::{RateLimit, RateLimitSettings, RateLimitSnapshot, Reservation};
pub use retry::{Jitter, Retry, RetrySettings, RetrySnapshot};
pub use shed::{Admission, NoPriority, Priority, Shares, ShedSettings, ShedSnapshot, Shedder};
pub use stale::{Answer, FallbackReason, Stale, StaleCache, StaleSettings, StaleSnapshot};
pub use throttle::{Throttle, ThrottlePermit, ThrottleSettings, ThrottleSnapshot};
pub use verdict::{Classify, Kind, Safety, SafetyOf, Verdict};
