//! When a job is due: expressions in time zones, jitter, quiet hours, and runs that were missed. Pure: `now` is an
//! argument, and nothing here starts anything or remembers; only [`runner`] waits.
//!
//! An *occurrence* is an instant that the expression names. A *start* is when its job is to begin: the occurrence, and
//! the jitter, put off to the end of quiet hours.

mod calendar;
mod expression;
mod field;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod occurrences;
mod quiet;
pub mod runner;

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use expression::{Expression, ExpressionError};
pub use occurrences::Occurrences;
pub use quiet::{QuietError, QuietHours};

/// When a job is to run.
#[derive(Debug, Clone)]
pub struct Timing {
    /// What the jitter is drawn from, so that two machines draw the same.
    pub name: String,
    /// When.
    pub expression: Expression,
    /// Where.
    pub zone: TimeZone,
    /// Starts are spread over this much time after the occurrence, never beyond the next one.
    pub jitter: Duration,
    /// When nothing is begun.
    pub quiet: Vec<QuietHours>,
}

/// An occurrence, and when its job is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// What the expression names.
    pub occurrence: Timestamp,
    /// When to begin; not before the occurrence.
    pub start: Timestamp,
}

/// What is to be done about a job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Begin now.
    Run {
        /// The latest occurrence that is due; earlier ones count as done with it.
        due: Due,
        /// How many earlier ones had no run of their own. At [`Timing::COUNTED`] there may be more.
        missed: u32,
    },
    /// Come back then.
    Wait(Due),
    /// It never happens again.
    Never,
}

impl Timing {
    /// How many missed runs are counted one by one.
    pub const COUNTED: u32 = 10_000;

    /// Checks the windows together.
    pub fn check_quiet(windows: &[QuietHours]) -> Result<(), QuietError> {
        quiet::check(windows)
    }

    /// Occurrences after an instant.
    pub fn occurrences(&self, after: Timestamp) -> Occurrences<'_> {
        Occurrences::after(&self.expression, &self.zone, after)
    }

    /// The first occurrence after `after` with its start.
    pub fn next(&self, after: Timestamp) -> Option<Due> {
        self.upcoming(after).next()
    }

    /// Occurrences after an instant with their starts, both ascending.
    pub fn upcoming(&self, after: Timestamp) -> impl Iterator<Item = Due> + '_ {
        let mut occurrences = self.occurrences(after).peekable();
        std::iter::from_fn(move || {
            let occurrence = occurrences.next()?;
            Some(Due {
                occurrence,
                start: self.start(occurrence, occurrences.peek().copied()),
            })
        })
    }

    /// When the job of an occurrence is to begin; `next` is the occurrence after it.
    fn start(&self, occurrence: Timestamp, next: Option<Timestamp>) -> Timestamp {
        let room = next.map_or(self.jitter, |next| {
            let room = Duration::try_from(next.duration_since(occurrence)).unwrap_or_default();
            self.jitter.min(room)
        });
        let delay = SignedDuration::from_millis(i64::try_from(self.drawn(occurrence, room)).unwrap_or_default());
        let start = occurrence.checked_add(delay).unwrap_or(occurrence);
        quiet::put_off(&self.quiet, &self.zone, start)
    }

    /// A number of milliseconds below `room`, the same on every machine.
    fn drawn(&self, occurrence: Timestamp, room: Duration) -> u64 {
        let room = u64::try_from(room.as_millis()).unwrap_or(u64::MAX);
        if room == 0 {
            return 0;
        }
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([0]);
        hash.update(occurrence.as_second().to_be_bytes());
        let hash = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_be_bytes(first) % room
    }

    /// What is to be done now. `handled` is the last occurrence that was run, or when the schedule was first seen: what
    /// was due before that is nobody's business. Many missed runs are one.
    pub fn decide(&self, handled: Timestamp, now: Timestamp) -> Decision {
        let mut last: Option<Due> = None;
        let mut count = 0;
        for due in self.upcoming(handled) {
            if due.start > now {
                return match last {
                    Some(last) => Decision::Run {
                        due: last,
                        missed: count - 1,
                    },
                    None => Decision::Wait(due),
                };
            }
            last = Some(due);
            count += 1;
            if count > Self::COUNTED {
                return Decision::Run {
                    due: self.decide_after_long(now).unwrap_or(due),
                    missed: Self::COUNTED,
                };
            }
        }
        last.map_or(Decision::Never, |last| Decision::Run {
            due: last,
            missed: count - 1,
        })
    }

    /// The latest that is due, after a time in which there were too many to look at each.
    fn decide_after_long(&self, now: Timestamp) -> Option<Due> {
        let back = SignedDuration::try_from(self.jitter).ok()?;
        let back = back.checked_add(SignedDuration::from_mins(10))?;
        let from = now.checked_sub(back).ok()?;
        self.upcoming(from)
            .take(Self::COUNTED as usize)
            .take_while(|due| due.start <= now)
            .last()
    }
}

/// A time zone by its IANA name; `None` when there is none of that name.
pub fn zone(name: &str) -> Option<TimeZone> {
    // jiff takes POSIX rules and offsets elsewhere; a schedule has a place.
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(name).ok()
}
