//! What every run shares: whatever a drill, canary or restore could leave behind has a record, a lock, undo steps written
//! before each change, and a watchdog in another process. It does not know what a drill or a canary is.

mod journal;
mod record;
mod undo;

pub use journal::{Event, Journal, JournalError, Tail, read_events};
pub use record::{Cancel, Kind, Notify, Outcome, Phase, Reason, RunRecord, Worker};
pub use undo::{StepResult, UndoReport, UndoStep, undo};
