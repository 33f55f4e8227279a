//! From the snapshots of our other libraries to metrics, read at each scrape. They know nothing of metrics.

#[cfg(feature = "health")]
pub(crate) use of_health::health;

#[cfg(feature = "resilience")]
pub use of_resilience::Figures;
#[cfg(feature = "resilience")]
pub(crate) use of_resilience::watch;

#[cfg(feature = "health")]
mod of_health;
#[cfg(feature = "resilience")]
mod of_resilience;
