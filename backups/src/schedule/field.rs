//! One field of an expression: which numbers it admits. Lists, ranges, steps, names; every mistake says what was
//! expected. It knows nothing of time.

use std::collections::BTreeSet;

/// What a field is of, and what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    Year,
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const LONG_MONTHS: [&str; 12] = [
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];
/// From Sunday, which is 0.
pub(super) const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const LONG_WEEKDAYS: [&str; 7] = [
    "SUNDAY",
    "MONDAY",
    "TUESDAY",
    "WEDNESDAY",
    "THURSDAY",
    "FRIDAY",
    "SATURDAY",
];

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of the month",
            Self::Month => "month",
            Self::Weekday => "day of the week",
            Self::Year => "year",
        }
    }

    /// The numbers that may be written; 7 is Sunday as well as 0.
    const fn bounds(self) -> (u16, u16) {
        match self {
            Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::Day => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (0, 7),
            Self::Year => (1970, 2100),
        }
    }

    /// The highest number that is not another one's second name.
    pub(super) const fn last(self) -> u16 {
        match self {
            Self::Weekday => 6,
            other => other.bounds().1,
        }
    }

    fn name(self, word: &str) -> Option<u16> {
        let word = word.to_ascii_uppercase();
        let find = |short: &[&str], long: &[&str]| {
            let at = |names: &[&str]| names.iter().position(|name| *name == word);
            at(short).or_else(|| at(long)).and_then(|at| u16::try_from(at).ok())
        };
        match self {
            Self::Month => find(&MONTHS, &LONG_MONTHS).map(|at| at + 1),
            Self::Weekday => find(&WEEKDAYS, &LONG_WEEKDAYS),
            Self::Second | Self::Minute | Self::Hour | Self::Day | Self::Year => None,
        }
    }

    fn expected(self) -> String {
        let (least, most) = self.bounds();
        match self {
            Self::Month => format!("{least} to {most} or JAN to DEC"),
            Self::Weekday => format!("SUN to SAT, or {least} to {most} where 0 and 7 are Sunday"),
            _ => format!("{least} to {most}"),
        }
    }
}

/// Which numbers a field admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// In ascending order, never none; a Sunday is 0.
    pub(super) values: BTreeSet<u16>,
    /// It was written as `*` or `?`, so that it leaves the choice to the others.
    pub(super) star: bool,
}

impl Field {
    /// A field that admits one number.
    pub(super) fn only(value: u16) -> Self {
        Self {
            values: BTreeSet::from([value]),
            star: false,
        }
    }

    /// A field that admits all.
    pub(super) fn all(unit: Unit) -> Self {
        Self {
            values: (unit.bounds().0..=unit.last()).collect(),
            star: true,
        }
    }

    /// Reads a field. `names_only` refuses weekdays as numbers. Errors: one sentence.
    pub(super) fn parse(text: &str, unit: Unit, names_only: bool) -> Result<Self, String> {
        let mut values = BTreeSet::new();
        let mut star = false;
        for item in text.split(',') {
            star |= parse_item(item, unit, names_only, &mut values)?;
        }
        if unit == Unit::Weekday && values.remove(&7) {
            values.insert(0);
        }
        Ok(Self { values, star })
    }

    /// The numbers as a crontab writes them: `*`, or ranges and single numbers.
    pub(super) fn crontab(&self) -> String {
        if self.star {
            return "*".to_owned();
        }
        let words: Vec<String> = runs(&self.values)
            .into_iter()
            .map(|(first, last)| match last - first {
                0 => first.to_string(),
                1 => format!("{first},{last}"),
                _ => format!("{first}-{last}"),
            })
            .collect();
        words.join(",")
    }
}

/// The numbers as runs of neighbours, both ends included.
pub(super) fn runs(values: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *value => *last = *value,
            _ => runs.push((*value, *value)),
        }
    }
    runs
}

/// Reads one item of a list into `values`; whether it was a star without a step.
fn parse_item(item: &str, unit: Unit, names_only: bool, values: &mut BTreeSet<u16>) -> Result<bool, String> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let step: u16 = match step {
        None => 1,
        Some(text) => number(text)
            .filter(|step| *step > 0)
            .ok_or_else(|| format!("`{text}` is no step of the {}: expected 1 or more", unit.word()))?,
    };
    let stepped = item.contains('/');
    let (least, _) = unit.bounds();
    let (first, last) = if range == "*" || (range == "?" && matches!(unit, Unit::Day | Unit::Weekday)) {
        (least, unit.last())
    } else if let Some((first, last)) = range.split_once('-') {
        let (from, to) = (value(first, unit, names_only)?, value(last, unit, names_only)?);
        // A week may be counted from Monday, and so end on a Sunday.
        let to = if unit == Unit::Weekday && to == 0 && from > 0 && number(last).is_none() {
            7
        } else {
            to
        };
        if from > to {
            return Err(format!(
                "the range `{range}` of the {} ends before it begins: write two, such as `{first}-{},{}-{last}`",
                unit.word(),
                shown(unit, unit.last()),
                shown(unit, least)
            ));
        }
        (from, to)
    } else {
        let first = value(range, unit, names_only)?;
        if stepped && number(range).is_none() {
            return Err(format!("a step follows `*`, a range or a number, not `{range}`"));
        }
        (first, if stepped { unit.last().max(first) } else { first })
    };
    values.extend((first..=last).step_by(usize::from(step)));
    Ok(step == 1 && matches!(range, "*" | "?"))
}

fn shown(unit: Unit, value: u16) -> String {
    match unit {
        Unit::Weekday => WEEKDAYS[usize::from(value) % 7].to_owned(),
        _ => value.to_string(),
    }
}

/// A number of a few digits; nothing else, no sign.
fn number(text: &str) -> Option<u16> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn value(text: &str, unit: Unit, names_only: bool) -> Result<u16, String> {
    let (least, most) = unit.bounds();
    if let Some(value) = unit.name(text) {
        return Ok(value);
    }
    let Some(value) = number(text) else {
        let what = if text.is_empty() {
            "nothing".to_owned()
        } else {
            format!("`{text}`")
        };
        let foreign = text.contains('#') || text.ends_with(['L', 'l', 'W', 'w']);
        let hint = if foreign {
            "; `L`, `W` and `#` are not known here"
        } else {
            ""
        };
        return Err(format!(
            "{what} is no {}: expected {}{hint}",
            unit.word(),
            unit.expected()
        ));
    };
    if !(least..=most).contains(&value) {
        return Err(format!("{value} is no {}: expected {}", unit.word(), unit.expected()));
    }
    if names_only && unit == Unit::Weekday {
        return Err(format!(
            "`{text}` as a day of the week is {} in a crontab and {} where expressions have seconds: write the name",
            WEEKDAYS[usize::from(value) % 7],
            WEEKDAYS[(usize::from(value) + 6) % 7]
        ));
    }
    Ok(value)
}
