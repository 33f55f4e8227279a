//! Drills: steady state, injection, observation, undo and a verdict.
//! It neither prints nor asks for consent, and it knows no command line.
//!
//! Each kind of drill is a file in [`kinds`] with the same functions: `plan` names the victims and checks the guards,
//! `record` makes the run's record, `work` carries it through in a worker process and returns a [`Report`].

pub mod figures;
pub mod kinds;
pub mod observe;
pub mod probe;
pub mod report;

pub use figures::{Check, Figures, Verdict};
pub use kinds::{Kind, list};
pub use report::Report;
