//! When something is to happen, as people write it: `0 2 * * MON-FRI`. Read here, iterated by the crate `cron`, which is
//! handed numbers and names that it cannot misread. What an expression means in a time zone is in `occurrences`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime as ChronoDateTime, Datelike as _, Timelike as _, Utc};
use jiff::civil::DateTime;

use super::field::{Field, Unit, WEEKDAYS};

/// Why something is no expression. One sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Not 5, 6 or 7 fields.
    #[error(
        "{count} fields: expected five (minute, hour, day, month, day of the week), six with the second first, or seven with the year last"
    )]
    Fields {
        /// How many there are.
        count: usize,
    },
    /// A field that cannot be read.
    #[error("{0}")]
    Field(String),
    /// `@something` that means nothing.
    #[error("`{name}` is not known: expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually")]
    Nickname {
        /// As written.
        name: String,
    },
    /// `TZ=…` in front.
    #[error("the time zone does not belong into the expression: it has a key of its own")]
    TimeZone,
    /// Longer than any that means something.
    #[error("the expression is longer than {} characters", Expression::LONGEST)]
    Long,
    /// No day fits, such as 30 February.
    #[error("it never happens: no month that it names has such a day")]
    Never,
    /// The iterator does not take it; a fault of ours.
    #[error("the expression cannot be iterated: {0}")]
    Iterator(String),
}

/// An expression: five fields as in a crontab, six with seconds first, seven with years last, or a nickname.
///
/// Days: with both day fields restricted a day that fits *either* fits, as crontab(5) has it. Weekdays: names, or in five
/// fields the numbers of crontab, where 0 and 7 are Sunday; with seconds a number is refused, because the world is of two
/// minds about it.
#[derive(Debug, Clone)]
pub struct Expression {
    source: String,
    pub(super) fields: Fields,
    /// One, or one for each day field.
    iterated: Vec<cron::Schedule>,
}

/// What the fields admit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) second: Field,
    pub(super) minute: Field,
    pub(super) hour: Field,
    pub(super) day: Field,
    pub(super) month: Field,
    pub(super) weekday: Field,
    pub(super) year: Field,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for Expression {}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let source = text.trim();
        if source.len() > Self::LONGEST {
            return Err(ExpressionError::Long);
        }
        let written = if source.starts_with('@') {
            nickname(source)?
        } else {
            source
        };
        let words: Vec<&str> = written.split_ascii_whitespace().collect();
        if words.first().is_some_and(|word| word.contains('=')) {
            return Err(ExpressionError::TimeZone);
        }
        let fields = Fields::parse(&words)?;
        if !fields.possible() {
            return Err(ExpressionError::Never);
        }
        let iterated = fields
            .iterated()
            .into_iter()
            .map(|text| text.parse::<cron::Schedule>())
            .collect::<Result<_, _>>()
            .map_err(|error| ExpressionError::Iterator(error.to_string()))?;
        Ok(Self {
            source: source.to_owned(),
            fields,
            iterated,
        })
    }
}

fn nickname(name: &str) -> Result<&'static str, ExpressionError> {
    match name.to_ascii_lowercase().as_str() {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * SUN"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        _ => Err(ExpressionError::Nickname { name: name.to_owned() }),
    }
}

impl Expression {
    /// Characters of the longest expression that is read.
    pub const LONGEST: usize = 512;

    /// Whether it happens in every hour of its days, so that it goes by the time that passes rather than by the clock on
    /// the wall: an hour that the clock repeats has its runs twice, one that it leaves out has none.
    pub(super) fn hourly(&self) -> bool {
        self.fields.hour.values.len() == 24
    }

    /// Wall times after `after`, or at it, ascending, each once. Ends with the year 2100.
    pub(super) fn next_wall(&self, after: DateTime, inclusive: bool) -> Option<DateTime> {
        let after = if inclusive {
            after.checked_sub(jiff::SignedDuration::from_secs(1)).ok()?
        } else {
            after
        };
        let posing = posing(after)?;
        self.iterated
            .iter()
            .filter_map(|schedule| schedule.after(&posing).next())
            .min()
            .and_then(wall)
    }

    /// The same as a crontab has it: five fields, weekdays as numbers from Sunday = 0. `None` when it needs seconds or
    /// years, which a crontab does not have.
    pub fn crontab(&self) -> Option<String> {
        let fields = &self.fields;
        let whole = fields.second == Field::only(0) && fields.year.star;
        whole.then(|| {
            [
                &fields.minute,
                &fields.hour,
                &fields.day,
                &fields.month,
                &fields.weekday,
            ]
            .map(Field::crontab)
            .join(" ")
        })
    }
}

/// A wall time that poses as UTC: the only thing that `cron` may see, since it is wrong about every change of the clock.
fn posing(wall: DateTime) -> Option<ChronoDateTime<Utc>> {
    let seconds = wall.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    ChronoDateTime::from_timestamp(seconds, 0)
}

fn wall(posing: ChronoDateTime<Utc>) -> Option<DateTime> {
    let part = |number: u32| i8::try_from(number).ok();
    DateTime::new(
        i16::try_from(posing.year()).ok()?,
        part(posing.month())?,
        part(posing.day())?,
        part(posing.hour())?,
        part(posing.minute())?,
        part(posing.second())?,
        0,
    )
    .ok()
}

impl Fields {
    fn parse(words: &[&str]) -> Result<Self, ExpressionError> {
        let (second, rest) = match words.len() {
            5 => (None, words),
            6 | 7 => (words.first(), &words[1..]),
            count => return Err(ExpressionError::Fields { count }),
        };
        let read = |text: &str, unit| Field::parse(text, unit, second.is_some()).map_err(ExpressionError::Field);
        Ok(Self {
            second: second.map_or_else(|| Ok(Field::only(0)), |text| read(text, Unit::Second))?,
            minute: read(rest[0], Unit::Minute)?,
            hour: read(rest[1], Unit::Hour)?,
            day: read(rest[2], Unit::Day)?,
            month: read(rest[3], Unit::Month)?,
            weekday: read(rest[4], Unit::Weekday)?,
            year: rest
                .get(5)
                .map_or_else(|| Ok(Field::all(Unit::Year)), |text| read(text, Unit::Year))?,
        })
    }

    /// Whether there is a day that fits, in any of the years.
    fn possible(&self) -> bool {
        if !self.weekday.star {
            return true;
        }
        let leap = |year: u16| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let longest = |month: u16| match month {
            2 if self.year.values.iter().any(|year| leap(*year)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let first = self.day.values.first().copied().unwrap_or(32);
        self.month.values.iter().any(|month| first <= longest(*month))
    }

    /// What `cron` is given: one expression, or one for each day field where either may fit. Its day fields must both fit,
    /// and it counts weekdays from Sunday = 1, hence the names.
    fn iterated(&self) -> Vec<String> {
        let list = |field: &Field| {
            if field.star {
                return "*".to_owned();
            }
            let words: Vec<String> = field.values.iter().map(ToString::to_string).collect();
            words.join(",")
        };
        let names: Vec<&str> = self
            .weekday
            .values
            .iter()
            .map(|day| WEEKDAYS[usize::from(*day) % 7])
            .collect();
        let (days, weekdays) = (list(&self.day), names.join(","));
        let text = |days: &str, weekdays: &str| {
            format!(
                "{} {} {} {days} {} {weekdays} {}",
                list(&self.second),
                list(&self.minute),
                list(&self.hour),
                list(&self.month),
                list(&self.year)
            )
        };
        match (self.day.star, self.weekday.star) {
            (true, true) => vec![text("*", "*")],
            (false, true) => vec![text(&days, "*")],
            (true, false) => vec![text("*", &weekdays)],
            (false, false) => vec![text(&days, "*"), text("*", &weekdays)],
        }
    }
}
