//! The one place of this crate that asks the operating system for the time of day, and how PostgreSQL counts it: in
//! microseconds since the year 2000.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From the beginning of 1970 to that of 2000: 30 years, 7 of them leap years.
const BETWEEN: Duration = Duration::from_hours(24 * (30 * 365 + 7));

/// The time now, as it is sent.
#[expect(clippy::disallowed_methods, reason = "the one clock of this crate")]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH + BETWEEN);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The moment that a server sent. One that the system cannot have is its first one.
pub(crate) fn moment(micros: i64) -> SystemTime {
    let since = Duration::from_micros(micros.unsigned_abs());
    let epoch = UNIX_EPOCH + BETWEEN;
    let moment = if micros < 0 {
        epoch.checked_sub(since)
    } else {
        epoch.checked_add(since)
    };
    moment.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_moment() {
        assert_eq!(moment(0), UNIX_EPOCH + BETWEEN);
        assert_eq!(moment(-1), UNIX_EPOCH + BETWEEN - Duration::from_micros(1));
        for extreme in [i64::MIN, i64::MAX] {
            let _ = moment(extreme);
        }
        assert!(now() > 0);
    }
}
