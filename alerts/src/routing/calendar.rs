//! Alertmanager's time intervals at an instant. A running Alertmanager knows no time but the present, so that this is
//! decided here; in the tests Alertmanager judges it, at the present. Pure.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

/// One entry of a time interval. What is not said holds always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Minutes of the day, the second one excluded.
    times: Option<Vec<(i64, i64)>>,
    /// From Sunday, 0.
    weekdays: Option<Vec<(i64, i64)>>,
    /// Negative: from the end of the month.
    days: Option<Vec<(i64, i64)>>,
    months: Option<Vec<(i64, i64)>>,
    years: Option<Vec<(i64, i64)>>,
    zone: Option<TimeZone>,
}

const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl Entry {
    /// Reads an entry of `time_intervals[].time_intervals`.
    pub fn read(value: &Value) -> Result<Self, String> {
        let mut entry = Self::default();
        let map = value.as_object().ok_or("a time interval is a map")?;
        for (key, value) in map {
            let ranges = |part: fn(&str) -> Option<i64>| ranges(key, value, part);
            match key.as_str() {
                "times" => entry.times = times(value)?,
                "weekdays" => entry.weekdays = ranges(|text| word(text, &WEEKDAYS, 0))?,
                "days_of_month" => entry.days = ranges(day)?,
                "months" => entry.months = ranges(month)?,
                "years" => entry.years = ranges(|text| text.parse().ok())?,
                "location" => {
                    let name = value.as_str().ok_or("`location` is the name of a time zone")?;
                    // Go's word for the machine's own.
                    let zone = if name == "Local" {
                        Ok(TimeZone::system())
                    } else {
                        TimeZone::get(name)
                    };
                    entry.zone = Some(zone.map_err(|_| format!("there is no time zone `{name}`"))?);
                }
                other => return Err(format!("a time interval has no `{other}`")),
            }
        }
        Ok(entry)
    }

    /// Whether an instant is in it.
    pub fn contains(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone().unwrap_or(TimeZone::UTC)).datetime();
        let date = local.date();
        let minute = i64::from(local.hour()) * 60 + i64::from(local.minute());
        let weekday = i64::from(date.weekday().to_sunday_zero_offset());
        let within = |ranges: &Option<Vec<(i64, i64)>>, value: i64| {
            ranges
                .as_ref()
                .is_none_or(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&value)))
        };
        self.times
            .as_ref()
            .is_none_or(|times| times.iter().any(|(from, to)| (*from..*to).contains(&minute)))
            && self
                .days
                .as_ref()
                .is_none_or(|days| days.iter().any(|range| day_within(*range, date)))
            && within(&self.weekdays, weekday)
            && within(&self.months, i64::from(date.month()))
            && within(&self.years, i64::from(date.year()))
    }
}

/// A range of days, cut to the month that it is in.
fn day_within((from, to): (i64, i64), date: Date) -> bool {
    let days = i64::from(date.days_in_month());
    let place = |day: i64| if day < 0 { days + day + 1 } else { day };
    let (from, to) = (place(from), place(to));
    from <= days && (from..=to.min(days)).contains(&i64::from(date.day()))
}

/// `a` or `a:b`, in a list; absent where there is none.
fn ranges(key: &str, value: &Value, part: impl Fn(&str) -> Option<i64>) -> Result<Option<Vec<(i64, i64)>>, String> {
    let Some(list) = list(key, value)? else { return Ok(None) };
    let read = |value: &Value| {
        let text = match value {
            Value::String(text) => text.to_lowercase(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let (from, to) = text.split_once(':').unwrap_or((&text, &text));
        let (from, to) = (part(from.trim())?, part(to.trim())?);
        // From the end of a month it may only go on to its end.
        let ordered = if (from < 0) == (to < 0) { from <= to } else { from > 0 };
        ordered.then_some((from, to))
    };
    let ranges = list
        .iter()
        .map(|value| read(value).ok_or_else(|| format!("`{value}` is nothing that `{key}` takes")));
    ranges.collect::<Result<_, _>>().map(Some)
}

fn list<'a>(key: &str, value: &'a Value) -> Result<Option<&'a Vec<Value>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Array(list) => Ok(Some(list)),
        _ => Err(format!("`{key}` is a list")),
    }
}

fn word(text: &str, words: &[&str], first: i64) -> Option<i64> {
    words
        .iter()
        .zip(first..)
        .find(|(word, _)| **word == text)
        .map(|(_, number)| number)
}

fn month(text: &str) -> Option<i64> {
    let number = word(text, &MONTHS, 1).or_else(|| text.parse().ok());
    number.filter(|month| (1..=12).contains(month))
}

fn day(text: &str) -> Option<i64> {
    text.parse().ok().filter(|day: &i64| (1..=31).contains(&day.abs()))
}

fn times(value: &Value) -> Result<Option<Vec<(i64, i64)>>, String> {
    let Some(list) = list("times", value)? else {
        return Ok(None);
    };
    let read = |value: &Value| {
        let part = |key: &str| minute(value.get(key)?.as_str()?);
        let (from, to) = (part("start_time")?, part("end_time")?);
        (from < to).then_some((from, to))
    };
    let times = list
        .iter()
        .map(|value| read(value).ok_or_else(|| format!("`{value}` is no range of times such as 08:00 to 24:00")));
    times.collect::<Result<_, _>>().map(Some)
}

fn minute(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| {
        (part.len() == 2)
            .then(|| part.parse::<u8>().ok())
            .flatten()
            .map(i64::from)
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let whole = hours == 24 && minutes == 0;
    (whole || (hours < 24 && minutes < 60)).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contains(entry: Value, at: &str) -> bool {
        Entry::read(&entry).unwrap().contains(at.parse().unwrap())
    }

    #[test]
    fn an_instant_is_in_what_is_said_of_it() {
        for (entry, at, inside) in [
            (json!({}), "2026-03-01T00:00:00Z", true),
            (
                json!({"times": [{"start_time": "09:00", "end_time": "17:00"}]}),
                "2026-03-02T16:59:59Z",
                true,
            ),
            (
                json!({"times": [{"start_time": "09:00", "end_time": "17:00"}]}),
                "2026-03-02T17:00:00Z",
                false,
            ),
            (
                json!({"times": [{"start_time": "22:00", "end_time": "24:00"}]}),
                "2026-03-02T23:59:59Z",
                true,
            ),
            (json!({"times": []}), "2026-03-02T23:59:59Z", false),
            (json!({"weekdays": ["monday:friday"]}), "2026-03-02T00:00:00Z", true),
            (json!({"weekdays": ["Monday:Friday"]}), "2026-03-01T00:00:00Z", false),
            (json!({"days_of_month": ["-1"]}), "2024-02-29T00:00:00Z", true),
            (json!({"days_of_month": ["-7:-1"]}), "2026-02-21T00:00:00Z", false),
            (json!({"days_of_month": ["31"]}), "2026-04-30T00:00:00Z", false),
            (json!({"days_of_month": ["25:31"]}), "2026-02-28T00:00:00Z", true),
            (json!({"days_of_month": ["20:-1"]}), "2026-02-28T00:00:00Z", true),
            (json!({"months": ["december", "1:2"]}), "2026-02-28T00:00:00Z", true),
            (json!({"years": ["2020:2025"]}), "2026-02-28T00:00:00Z", false),
            (json!({"years": [2026]}), "2026-02-28T00:00:00Z", true),
            // Sunday in UTC, Monday there.
            (
                json!({"weekdays": ["monday"], "location": "Australia/Sydney"}),
                "2026-03-01T20:00:00Z",
                true,
            ),
            // The clocks go forward at 02:00: the local time is 03:30.
            (
                json!({"times": [{"start_time": "03:00", "end_time": "04:00"}], "location": "Europe/Berlin"}),
                "2026-03-29T01:30:00Z",
                true,
            ),
        ] {
            assert_eq!(contains(entry.clone(), at), inside, "{entry} {at}");
        }
    }

    #[test]
    fn what_alertmanager_refuses_is_refused() {
        for entry in [
            json!({"times": [{"start_time": "9:00", "end_time": "17:00"}]}),
            json!({"times": [{"start_time": "17:00", "end_time": "09:00"}]}),
            json!({"times": [{"start_time": "00:00", "end_time": "24:01"}]}),
            json!({"weekdays": ["friday:monday"]}),
            json!({"weekdays": ["fri"]}),
            json!({"days_of_month": ["0"]}),
            json!({"days_of_month": ["-1:5"]}),
            json!({"months": ["13"]}),
            json!({"location": "Nowhere/Atlantis"}),
            json!({"hours": []}),
            json!([]),
        ] {
            assert!(Entry::read(&entry).is_err(), "{entry}");
        }
    }
}
