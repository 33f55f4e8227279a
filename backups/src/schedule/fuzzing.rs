//! What holds for the readers of expressions, zones and quiet hours.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::quiet::put_off;
use super::{Expression, Occurrences, QuietHours};
use crate::fuzzing::{Target, halves};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "schedule",
        seeds: || {
            let seeds = [
                "0 2 * * MON-FRI\nEurope/Berlin\n2026-03-29T00:30:00Z",
                "*/15 30 2,14 1-7 JAN,OCT-DEC * 2027-2031\nAmerica/New_York\n2026-10-25T00:30:00Z",
                "@monthly\nAustralia/Lord_Howe\n1969-12-31T23:59:59.5Z",
                "0 0 29 2 7\nUTC\n2099-01-01T00:00:00Z",
                "@hourly\nCET-1CEST,M3.5.0,M10.5.0/3\n2026-10-25T00:30:00Z",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: schedule,
    },
    Target {
        name: "quiet_hours",
        seeds: || {
            let seeds = [
                "22:00-06:00\n2026-03-29T00:30:00Z",
                "MON-FRI 08:00-18:00\n2026-10-25T00:30:00Z",
                "SAT,SUN 00:00-24:00\n2026-10-25T00:30:00Z",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: quiet_hours,
    },
];

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// An expression, a zone by name or by rule, and a time.
fn schedule(input: &[u8]) {
    let (expression, rest) = halves(input);
    let (zone, time) = halves(rest);
    let Ok(expression) = text(expression).parse::<Expression>() else {
        return;
    };
    assert_eq!(expression.to_string().parse::<Expression>().as_ref(), Ok(&expression));
    if let Some(crontab) = expression.crontab() {
        let same: Expression = crontab.parse().expect("a crontab's form is read");
        assert_eq!(same.crontab(), Some(crontab));
    }
    let zone = text(zone);
    let zone = TimeZone::posix(&zone)
        .or_else(|_| TimeZone::get(&zone))
        .unwrap_or(TimeZone::UTC);
    let after = text(time).parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let mut last = after;
    for next in Occurrences::after(&expression, &zone, after).take(3) {
        assert!(next > last && next.subsec_nanosecond() == 0, "{next} after {last}");
        last = next;
    }
}

fn quiet_hours(input: &[u8]) {
    let (window, time) = halves(input);
    let Ok(window) = text(window).parse::<QuietHours>() else {
        return;
    };
    let shown = window.to_string();
    let same: QuietHours = shown.parse().expect("what is shown can be read");
    assert_eq!(same.to_string(), shown);
    let at = text(time).parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let windows = [window];
    let until = put_off(&windows, &TimeZone::UTC, at);
    assert!(until >= at);
    if super::Timing::check_quiet(&windows).is_ok() {
        assert_eq!(put_off(&windows, &TimeZone::UTC, until), until, "then it is not quiet");
    }
}
