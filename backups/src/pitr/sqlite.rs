//! Continuous shipping of a SQLite database: a snapshot, then one *change set* each time that the database was found
//! changed, and a restore that brings back the state of any moment that was shipped.
//!
//! A change set holds the pages that differ from what was shipped before, as one read transaction sees them through
//! SQLite itself. So it is always one committed state, whatever the journal mode, and whoever checkpoints, vacuums or
//! swaps the file. The log (`-wal`) is read as a hint which pages to compare (`wal`): where it does not prove by salts
//! and checksums that nothing is missing, every page is compared, and from time to time without any doubt as well.
//! Programs that ship the frames of the log themselves have to own checkpointing, and lose data where they do not.
//!
//! A *generation* begins with a snapshot; its sets form a chain of hashes. Whatever cannot be continued begins a new one.
//! Each set carries a sum over all pages of the database, which a restore computes anew from the file that it made.
//!
//! Times are of the clock of the machine that ships. A set says two: everything committed before `complete_until` is in
//! it, and nothing that was committed after `taken_at`.

mod chain;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod look;
mod restore;
mod set;
mod shipper;
mod table;
mod wal;

pub use super::datastore::Datastore;
pub use chain::{Generation, SetEntry, Status, list, status, sweep, unneeded};
pub use restore::{Applied, Plan, RestoreTo, plan};
pub use shipper::{Event, NewGeneration, Outcome, ShipOptions, Shipped, Shipper};
pub(crate) use table::StreamTable;

use jiff::Timestamp;

use crate::error::Damage;

/// Why nothing can be shipped, or no restore to this time is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShippingError {
    /// No change was ever shipped.
    #[error("no changes of {datastore} were shipped")]
    NothingShipped {
        /// The datastore.
        datastore: String,
    },
    /// Shipping began later.
    #[error("{wanted} lies before the first state that was shipped, of {earliest}")]
    BeforeFirst {
        /// The time that was asked for.
        wanted: Timestamp,
        /// The earliest time that can be restored.
        earliest: Timestamp,
    },
    /// Nothing was shipped since.
    #[error("{wanted} lies after the last state that was shipped, of {latest}")]
    Beyond {
        /// The time that was asked for.
        wanted: Timestamp,
        /// The latest time that can be restored.
        latest: Timestamp,
    },
    /// Nothing was shipped around that time.
    #[error("nothing was shipped between {from} and {until}, so the state of {wanted} is not known")]
    Gap {
        /// The time that was asked for.
        wanted: Timestamp,
        /// The last time before it that can be restored.
        from: Timestamp,
        /// The first time after it that can be restored.
        until: Timestamp,
    },
    /// An object that was shipped is damaged, missing or not what its place says.
    #[error("the shipped object {key} is {damage}")]
    Damaged {
        /// The object.
        key: String,
        /// In what way.
        damage: Damage,
    },
    /// Changes are shipped, and before all of them are, there are more.
    #[error("the database changes faster than its changes can be shipped")]
    Overrun,
    /// The database that was put together is not the one that was shipped.
    #[error("the database that was put together is not the one that was shipped")]
    Unequal,
}
