//! Canary releases: steps, traffic shares, and a verdict on evidence.
//! It does not route traffic or start processes itself; that is the platform's.
//!
//! [`plan`](plan::plan) checks a [`Spec`] and says what would be done; [`record`] makes the run's record;
//! [`work`] carries it through in a worker process, from the start or from where another worker was lost;
//! [`Report::new`](report::Report::new) reads record and journal at any time.

pub mod analysis;
pub mod forecast;
pub mod judge;
pub mod plan;
pub mod report;
pub mod rollback;
pub mod schedule;
pub mod spec;
pub mod standing;
pub mod worker;

pub use judge::{Cause, Criterion, Judge, Request, Stage};
pub use plan::{Plan, PlanError, plan};
pub use report::{Report, Status};
pub use schedule::{Schedule, ScheduleError, parse_weight};
pub use spec::{OnInconclusive, Spec};
pub use standing::{Later, Standing, promotion, standing};
pub use worker::{Options, WorkError, history, record, request_promote, work};
