//! What every run shares: whatever a drill, canary or restore could leave behind has a record, a lock, undo steps written
//! before each change, and a watchdog in another process. It does not know what a drill or a canary is.
//!
//! A worker calls [`Run::begin`] or [`Run::take`], waits for its watchdog ([`Run::await_watchdog`]), changes fields with
//! [`Run::change`] and [`Run::grant_weight`], listens to [`Run::stopped`], and ends with [`Run::undo`] or [`Run::keep`]
//! and [`Run::close`]. Another process runs [`watch`]. [`orphans`] and [`recover`] deal with what both left.

mod heartbeat;
mod journal;
pub mod lock;
mod notify;
mod record;
mod recover;
mod session;
mod undo;
mod verdict;
mod watchdog;

pub use journal::{Event, Journal, JournalError, Tail, read_events};
pub use notify::{DeliveryError, Incident, Notifier, NotifyError};
pub use record::{Cancel, Kind, Notify, Outcome, Phase, Reason, RunRecord, Worker};
pub use recover::{Loss, Orphan, Recovered, give_up, orphans, recover, this_process};
pub use session::{Control, Run, RunError, request_cancel};
pub(crate) use undo::message_of;
pub use undo::{StepResult, UndoReport, UndoStep, undo};
pub use verdict::Verdict;
pub use watchdog::{WatchOptions, Watched, watch};
