//! Policies that keep a service up when what it calls does not answer, or when it is asked for more than it can do.
//!
//! A policy owns its state: clones, `call` and layers are views of the same state. Its settings are plain data, from code
//! or TOML; they are checked when it is made, can be changed while calls are under way, and then the state is kept.
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
//! # What there is
//!
//! | Against | Policy |
//! |---|---|
//! | failures that pass | [`Retry`] with backoff, jitter and server hints, within a [`Budget`] |
//! | a dependency that fails or hangs | [`Breaker`], time limits, [`Deadline`]s that go along from server to client |
//! | one that is slow now and then | [`HedgeSettings`]: another attempt beside a slow one |
//! | one that says that it has too much to do | [`Throttle`] |
//! | too many calls at one time | [`Bulkhead`], and [`AdaptiveLimit`], which finds its limit itself |
//! | too many calls in a time | [`RateLimit`], and [`KeyedRateLimit`] by client or tenant |
//! | more requests than a server can answer | [`Shedder`]: what matters less goes first |
//! | no answer at all | [`Pipeline::call_or_else`], and [`StaleCache`] with the last good one |
//!
//! # One object around one dependency
//!
//! A [`Pipeline`] puts the parts that it has into this order, the outermost first ([`Part::STANDARD`]):
//!
//! > total deadline > gate > bulkhead > retry with budget > hedge > throttle > breaker > rate limit > concurrency limit >
//! > attempt timeout
//!
//! The breaker sees every attempt, so it opens soon, and a retry ends when it does. Time limits of attempts lie inside the
//! breaker: what never ends must count as a failure. The bulkhead lies outside the retries, since it bounds work, and the
//! fallback around everything. [`PipelineBuilder::order`] makes it another one; what is doubtful is in
//! [`Pipeline::warnings`].
//!
//! From TOML, where a part that is not named is not there:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use resilience::Pipeline;
//!
//! let text = r#"
//!     [policy.payments]
//!     timeout = { total = "5s", attempt = "1s" }
//!     retry = { max = 2, base = "50ms", cap = "1s", budget = { ratio = 0.2, min_per_sec = 3 } }
//!     breaker = { failure_ratio = 0.5, window = "30s", min_calls = 20 }
//! "#;
//! let policy = Pipeline::from_toml(text, "payments")?;
//! // Windows, budgets and states are kept.
//! policy.reload_toml(&text.replace("max = 2", "max = 1"))?;
//! // What makes no sense is refused with its key.
//! let wrong = text.replace("5s", "500ms");
//! assert!(Pipeline::from_toml(&wrong, "payments").is_err_and(|error| error.to_string().contains("timeout.attempt")));
//! # Ok(()) }
//! ```
//!
//! As a tower layer, for services of every kind; all services that it makes share the policy:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use resilience::Pipeline;
//! use tower::{Service as _, ServiceBuilder, ServiceExt as _};
//!
//! let policy = Pipeline::standard("words").build()?;
//! let mut words = ServiceBuilder::new()
//!     .layer(policy.layer().idempotent())
//!     .service_fn(async |word: &str| Ok::<_, std::io::Error>(word.len()));
//! assert_eq!(words.ready().await?.call("five!").await?, 5);
//! # Ok(()) }
//! ```
//!
//! What a result says of the dependency is a [`Verdict`], given by a [`Classify`]; whether a request may be sent twice is
//! its [`Safety`]. The modules for HTTP and gRPC bring both.
//!
//! # A policy by itself
//!
//! Each part is an object of its own too:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use resilience::{Breaker, State, Verdict};
//!
//! let breaker = Breaker::builder("disk").consecutive(3).build()?;
//! let permit = breaker.acquire()?;
//! permit.record(Verdict::Success);
//! assert_eq!(breaker.state(), State::Closed);
//! # Ok(()) }
//! ```
//!
//! [`Consumer`] is the way for messages: it says what to tell the broker after each one.
//!
//! # What happens inside
//!
//! Nothing here knows metrics. [`Pipeline::snapshot`] has all figures, a [`Listener`] is told of every [`Event`], and
//! `tracing` gets the changes of breakers and the warnings.
//!
//! # Features
//!
//! | Feature | Brings |
//! |---|---|
//! | `config` (default) | policies from TOML |
//! | `http` | `http`: classification, `Retry-After`, bodies that can be sent again, a layer for clients |
//! | `grpc` | `grpc`: trailers, pushback, `RetryInfo`, `grpc-timeout`, a layer for tonic's channels; `tonic_server`: limits |
//! | `reqwest` | `reqwest`: a client under a policy |
//! | `axum` | `axum`: shedding, limits and deadlines for HTTP servers |
//! | `testing` | `testing`: scripts, states and statements for the tests of your service, on a clock that can be paused |
//! | `fault-injection` | faults put in on purpose, for drills; without it nothing of that is compiled |
//!
//! With the default features it needs Rust 1.85 and few crates: nothing of HTTP, of tokio only tasks and time. `examples/`
//! has a whole program for an axum service, a tonic client, a reqwest client and a message consumer.

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
mod places;
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
