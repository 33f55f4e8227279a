//! From wall times to instants. The time line is cut where the clock changes; within a piece wall time and instants run
//! in step, so that the order of the one is the order of the other.
//!
//! - The clock leaps forward: what was to happen in the missing hour happens once, at the instant of the leap (02:30
//!   becomes 03:00). What happens in every hour anyway is not made up for.
//! - The clock goes back: what was to happen in the repeated hour happens the first time alone. What happens in every
//!   hour goes on in both.
//!
//! This is how Debian's cron has it (crontab(8), "Daylight Saving Time"), and systemd and Kubernetes do not.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::expression::Expression;

/// The occurrences of an expression in a time zone, ascending, each once.
#[derive(Debug, Clone)]
pub struct Occurrences<'a> {
    expression: &'a Expression,
    zone: &'a TimeZone,
    after: Timestamp,
}

impl<'a> Occurrences<'a> {
    /// Those after an instant, without it.
    pub fn after(expression: &'a Expression, zone: &'a TimeZone, after: Timestamp) -> Self {
        Self {
            expression,
            zone,
            after,
        }
    }
}

impl Iterator for Occurrences<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        self.after = next(self.expression, self.zone, self.after)?;
        Some(self.after)
    }
}

/// The first instant that is later than `after`.
fn next(expression: &Expression, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let whole = Timestamp::from_second(after.as_second()).ok()?;
    // Before 1970 a fraction is cut upwards.
    let after = if whole > after {
        Timestamp::from_second(after.as_second() - 1).ok()?
    } else {
        whole
    };
    let mut offset = zone.to_offset(after);
    let (mut from, mut inclusive) = (offset.to_datetime(after), false);
    if let Some(repeated) = repeated_until(expression, zone, after)
        && repeated > from
    {
        (from, inclusive) = (repeated, true);
    }
    let mut found = expression.next_wall(from, inclusive);
    for change in zone.following(after) {
        let wall = found?;
        let (at, next_offset) = (change.timestamp(), change.offset());
        // What the clock shows at the change, by the old time and by the new one.
        let (ends, begins) = (offset.to_datetime(at), next_offset.to_datetime(at));
        if wall < ends {
            return instant(offset, wall);
        }
        if begins > ends && wall < begins {
            if !expression.hourly() {
                return Some(at);
            }
            found = expression.next_wall(begins, true);
        } else if begins < ends && expression.hourly() {
            found = expression.next_wall(begins, true);
        }
        offset = next_offset;
    }
    instant(offset, found?)
}

/// Up to which wall time `after` lies in a repetition of what was before, for expressions that do not happen twice.
fn repeated_until(expression: &Expression, zone: &TimeZone, after: Timestamp) -> Option<DateTime> {
    if expression.hourly() {
        return None;
    }
    // `preceding` leaves the instant itself out.
    let just_after = after.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
    let change = zone.preceding(just_after).next()?;
    let before = change
        .timestamp()
        .checked_sub(jiff::SignedDuration::from_secs(1))
        .ok()?;
    Some(zone.to_offset(before).to_datetime(change.timestamp()))
}

fn instant(offset: Offset, wall: DateTime) -> Option<Timestamp> {
    offset.to_timestamp(wall).ok()
}
