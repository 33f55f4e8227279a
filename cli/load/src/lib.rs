//! The load engine: an open model with a constant rate, response times measured from the scheduled start, exact
//! accounting. Not a scenario language and not a report: whoever runs it decides what the figures mean.
//!
//! * **Open model.** Arrival `i` is due at a time that is computed from the rate alone. A slow target delays no
//!   arrival; it makes requests wait, and the wait is part of their response time (no coordinated omission).
//! * **Accounting.** `scheduled = completed + failed + dropped`, in total and for every second, also after a
//!   cancellation. A response of any status completes a request; whether it counts as a success is asked of the
//!   [`RequestSource`].
//! * **Honesty about itself.** When the generator was late or out of CPU, [`Summary::generator`] says so.
//!
//! ```no_run
//! # async fn example() -> Result<(), opsctl_load::LoadError> {
//! use std::{sync::Arc, time::Duration};
//! use opsctl_load::{Fixed, Plan, Rate, Request, Silent, Target, run};
//!
//! let target: Target = "http://127.0.0.1:8080/health/ready".parse()?;
//! let source = Fixed(Request::get(target.path())?);
//! let rate: Rate = "200/s".parse()?;
//! let plan = Plan::new(target, rate, Duration::from_secs(30), Arc::new(source));
//! let summary = run(plan, Arc::new(Silent), Default::default()).await?;
//! assert!(summary.identity_holds());
//! # Ok(())
//! # }
//! ```

mod codec;
mod engine;
mod pacer;
mod plan;
mod rate;
mod record;
mod request;
mod summary;
mod target;

pub use engine::run;
pub use plan::{LoadError, Plan, Progress, Silent, Snapshot, Timeouts};
pub use rate::Rate;
pub use request::{Failure, FailureKind, Fixed, InvalidRequest, Outcome, Request, RequestSource, Response};
pub use summary::{ErrorEntry, Generator, Latency, SCHEMA, Second, Summary};
pub use target::Target;
