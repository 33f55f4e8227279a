//! The one place of this crate that asks the operating system for the time of day.
//!
//! Deciding code takes `now` as an argument; this is where the argument comes from in the end.

use jiff::Timestamp;

/// The time now, in UTC.
#[expect(clippy::disallowed_methods, reason = "the one clock of this crate")]
pub fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
