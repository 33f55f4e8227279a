//! Quiet hours: windows of local time in which nothing is begun. What falls into one is put off to its end.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use super::field::{Field, Unit, WEEKDAYS, runs};

/// Why something is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuietError {
    /// Not of the form.
    #[error("`{text}` is no window: expected for example \"22:00-06:00\" or \"MON-FRI 08:00-18:00\"")]
    Form {
        /// As written.
        text: String,
    },
    /// Its days cannot be read.
    #[error("{0}")]
    Days(String),
    /// It begins when it ends.
    #[error("`{text}` begins when it ends; a whole day is \"00:00-24:00\"")]
    Empty {
        /// As written.
        text: String,
    },
    /// All windows together leave no time at all.
    #[error("the quiet hours leave no time in the whole week")]
    Always,
}

/// A window such as `MON-FRI 08:00-18:00`. One that ends before it begins goes on into the next day; its days are those
/// on which it begins. The end is not quiet any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    /// From Sunday = 0.
    days: BTreeSet<u16>,
    /// Minutes since midnight, 0 to 1439.
    from: i64,
    /// Minutes since the midnight of the day on which it begins, up to 2 days.
    until: i64,
}

const DAY: i64 = 24 * 60;
const WEEK: i64 = 7 * DAY;

impl FromStr for QuietHours {
    type Err = QuietError;

    fn from_str(text: &str) -> Result<Self, QuietError> {
        let form = || QuietError::Form { text: text.to_owned() };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (days, hours) = match words.as_slice() {
            [hours] => (Field::all(Unit::Weekday), *hours),
            [days, hours] => (
                Field::parse(days, Unit::Weekday, false).map_err(QuietError::Days)?,
                *hours,
            ),
            _ => return Err(form()),
        };
        let (from, until) = hours.split_once('-').ok_or_else(form)?;
        let (from, mut until) = (minutes(from).ok_or_else(form)?, minutes(until).ok_or_else(form)?);
        if from == until || from == DAY {
            return Err(QuietError::Empty { text: text.to_owned() });
        }
        if until < from {
            until += DAY;
        }
        Ok(Self {
            days: days.values,
            from,
            until,
        })
    }
}

/// `07:30` as minutes; `24:00` is the end of the day.
fn minutes(text: &str) -> Option<i64> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        (text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<i64>().ok())
            .flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
    let whole = hour * 60 + minute;
    (minute < 60 && whole <= DAY).then_some(whole)
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.len() < 7 {
            let words: Vec<String> = runs(&self.days)
                .into_iter()
                .map(|(first, last)| {
                    let name = |day: u16| WEEKDAYS[usize::from(day) % 7];
                    if first == last {
                        name(first).to_owned()
                    } else {
                        format!("{}-{}", name(first), name(last))
                    }
                })
                .collect();
            write!(f, "{} ", words.join(","))?;
        }
        let until = if self.until > DAY { self.until - DAY } else { self.until };
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            self.from / 60,
            self.from % 60,
            until / 60,
            until % 60
        )
    }
}

impl QuietHours {
    /// When the window ends that a wall time is in, if it is in one.
    fn end(&self, wall: DateTime) -> Option<DateTime> {
        let minute = i64::from(wall.hour()) * 60 + i64::from(wall.minute());
        // The window of today, and that of yesterday which goes on.
        [(0, minute), (1, minute + DAY)].into_iter().find_map(|(back, minute)| {
            let begun = wall.date().checked_sub(jiff::Span::new().days(back)).ok()?;
            let day = u16::try_from(begun.weekday().to_sunday_zero_offset()).ok()?;
            if !self.days.contains(&day) || !(self.from..self.until).contains(&minute) {
                return None;
            }
            begun
                .to_datetime(Time::midnight())
                .checked_add(jiff::Span::new().minutes(self.until))
                .ok()
        })
    }

    /// The minutes of the week that it covers.
    fn minutes(&self) -> impl Iterator<Item = i64> + '_ {
        self.days
            .iter()
            .flat_map(|day| (self.from..self.until).map(move |minute| (i64::from(*day) * DAY + minute) % WEEK))
    }
}

/// Refuses windows that leave no time at all.
pub fn check(windows: &[QuietHours]) -> Result<(), QuietError> {
    let covered: BTreeSet<i64> = windows.iter().flat_map(QuietHours::minutes).collect();
    if i64::try_from(covered.len()) == Ok(WEEK) {
        return Err(QuietError::Always);
    }
    Ok(())
}

/// The first instant from `at` on that is not quiet: `at` itself, or the end of the windows that it is in.
pub fn put_off(windows: &[QuietHours], zone: &TimeZone, at: Timestamp) -> Timestamp {
    let mut at = at;
    // Windows that touch each other may go round a week, and each round passes one.
    for _ in 0..=windows.len().saturating_mul(16) {
        let wall = zone.to_datetime(at);
        let Some(end) = windows.iter().filter_map(|window| window.end(wall)).max() else {
            return at;
        };
        let ambiguous = zone.to_ambiguous_timestamp(end);
        let next = [ambiguous.earlier(), ambiguous.later()]
            .into_iter()
            .filter_map(Result::ok)
            .filter(|instant| *instant > at)
            .min();
        let Some(next) = next else { return at };
        at = next;
    }
    at
}
