//! The Prometheus and the Alertmanager of an environment: what they have loaded, scrape and tell, against what was
//! rendered; what fires now; silences.
//!
//! [`World::look`] asks, in bounded time; [`check`], [`Status::of`] and [`silence::plan`] decide, and ask nobody.

pub mod silence;

mod alertmanager;
mod check;
mod client;
mod delivery;
mod expression;
mod prometheus;
mod series;
mod standing;
mod world;

pub use alertmanager::{
    AlertGroup, AlertStatus, Alertmanager, Matcher, ReceivedAlert, Receiver, Silence, SilenceStatus,
};
pub use check::{CHECKS, Outcome, Verdict, check};
pub use delivery::Delivery;
pub use endpoint::{Access, EndpointError};
pub use prometheus::{ActiveAlert, BuildInfo, LoadedGroup, LoadedRule, Prometheus, Series, Target};
pub use series::Presence;
pub use standing::{Hidden, Proof, Standing, Status};
pub use world::{Expected, Seen, Told, World};
