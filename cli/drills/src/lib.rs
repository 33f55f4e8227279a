//! Drills: steady state, injection, observation, undo and a verdict.
//! It neither prints nor asks for consent, and it knows no command line.
//!
//! Each kind of drill is a file in [`kinds`]: its `plan` names what would be done and checks the guards, its
//! [`Fault`](course::Fault) does it. [`course`] has what all of them share; [`kinds::work`] carries a run through in a
//! worker process and returns a [`Report`]. Alerts that must fire meanwhile are [`expectation`]s.

pub mod condition;
pub mod course;
pub mod expectation;
pub mod figures;
pub mod kinds;
pub mod observe;
pub mod probe;
pub mod report;

pub use course::{Plan, PlanError, Spec, Terms, With, WorkError};
pub use figures::{Check, Figures, Verdict};
pub use kinds::{Kind, list};
pub use report::Report;
