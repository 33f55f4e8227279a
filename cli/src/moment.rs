//! Moments as people type them: a time, or so long ago. Not schedules.

use std::time::Duration;

use jiff::Timestamp;

/// A moment as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A time.
    Time(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// When that is, or was.
    pub(crate) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Ago(time) => now.checked_sub(time).unwrap_or(Timestamp::MIN),
        }
    }
}

/// Reads `2026-03-01T12:00:05Z` (with any offset, never without), `10m ago`, and as Grafana writes it `now`, `now-10m`, `-10m`.
pub(crate) fn parse(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Some(ago) = text.strip_suffix("ago") {
        return humantime::parse_duration(ago.trim())
            .map(Moment::Ago)
            .map_err(|error| error.to_string());
    }
    // As Grafana has them.
    if let Some(ago) = text.strip_prefix("now").unwrap_or(text).strip_prefix('-') {
        return humantime::parse_duration(ago)
            .map(Moment::Ago)
            .map_err(|error| error.to_string());
    }
    if text == "now" {
        return Ok(Moment::Ago(Duration::ZERO));
    }
    let told = "expected a time with its zone such as 2026-03-01T12:00:05Z, or \"10m ago\"";
    text.parse().map(Moment::Time).map_err(|_| told.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_so_long_ago() {
        let now: Timestamp = "2026-03-01T12:10:05Z".parse().unwrap();
        let cases = [
            ("2026-03-01T12:00:05Z", "2026-03-01T12:00:05Z"),
            ("2026-03-01 12:00:05.25Z", "2026-03-01T12:00:05.25Z"),
            ("2026-03-01T14:00:05+02:00", "2026-03-01T12:00:05Z"),
            ("10m ago", "2026-03-01T12:00:05Z"),
            (" 1h 30s ago", "2026-03-01T11:09:35Z"),
            ("1s ago", "2026-03-01T12:10:04Z"),
            ("now", "2026-03-01T12:10:05Z"),
            ("now-10m", "2026-03-01T12:00:05Z"),
            ("-1h30s", "2026-03-01T11:09:35Z"),
        ];
        for (text, time) in cases {
            assert_eq!(
                parse(text).map(|moment| moment.time(now)),
                Ok(time.parse().unwrap()),
                "{text}"
            );
        }
        for text in [
            "",
            "ago",
            "10 ago",
            "2026-03-01T12:00:05",
            "2026-03-01",
            "yesterday",
            "-5m ago",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Moment::Ago(Duration::MAX).time(now), Timestamp::MIN);
    }
}
