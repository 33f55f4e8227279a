//! The crate's one clock of the world's time. What decides takes `now` as an argument.

use jiff::Timestamp;

/// Now, in whole milliseconds, as it is stored.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
