//! The steps of a canary: `10:15m,50:15m,100`, or one weight to hold at. Parsed and checked; not carried out here.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One step: a share of the traffic for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Share of the traffic, 1 to 99.
    pub percent: u8,
    /// How long it lasts at least, in whole seconds.
    #[serde(rename = "for_seconds", with = "seconds")]
    pub duration: Duration,
}

/// What the canary goes through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Steps in order, with rising shares; never empty.
    pub steps: Vec<Step>,
    /// Whether it is promoted after the last step (`100` at the end), or held at the last share.
    pub promote: bool,
}

/// Why a weight or a list of steps cannot be used. The words say what to use instead, without naming flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A weight of 0: the canary would see nothing, and nothing could be said about it.
    #[error("a weight of 0 sends the canary no traffic: use 1 to 99, or abort the canary to take its traffic away")]
    Zero,
    /// A weight of 100 or more.
    #[error("a weight of {percent} is not 1 to 99: to send everything to the new version, promote it")]
    TooLarge {
        /// What was asked for.
        percent: u64,
    },
    /// Not a number.
    #[error("`{text}` is no share of the traffic: use a whole number of percent, 1 to 99")]
    NotANumber {
        /// What was written.
        text: String,
    },
    /// A step without a duration, or with one that cannot be read.
    #[error("step `{step}` needs a duration such as `{percent}:15m`")]
    NoDuration {
        /// The step.
        step: String,
        /// Its share.
        percent: u8,
    },
    /// A duration at the promotion.
    #[error("`100` is the promotion and takes no duration; how long the old version is kept is the bake time")]
    DurationAtPromotion,
    /// Something after `100`.
    #[error("`100` must be the last step")]
    AfterPromotion,
    /// `100` alone.
    #[error("a canary needs a step before `100`: for example `10:15m,50:15m,100`")]
    OnlyPromotion,
    /// Shares that do not rise.
    #[error("steps must rise: {after} % comes after {before} %")]
    NotRising {
        /// The share before.
        before: u8,
        /// The share after it.
        after: u8,
    },
    /// No steps.
    #[error("there are no steps: for example `10:15m,50:15m,100`")]
    Empty,
}

impl Schedule {
    /// Hold at one share, judged for `judge_for` before the answer "not enough is known" is given.
    pub fn hold(percent: u8, judge_for: Duration) -> Result<Self, ScheduleError> {
        check_share(u64::from(percent))?;
        Ok(Self {
            steps: vec![Step {
                percent,
                duration: judge_for,
            }],
            promote: false,
        })
    }

    /// The time that all steps take at least.
    pub fn total(&self) -> Duration {
        self.steps.iter().map(|step| step.duration).sum()
    }

    /// Checks a schedule that was not parsed here.
    pub fn check(&self) -> Result<(), ScheduleError> {
        if self.steps.is_empty() {
            return Err(ScheduleError::Empty);
        }
        for step in &self.steps {
            check_share(u64::from(step.percent))?;
        }
        for pair in self.steps.windows(2) {
            let (before, after) = (pair[0].percent, pair[1].percent);
            if after <= before {
                return Err(ScheduleError::NotRising { before, after });
            }
        }
        Ok(())
    }
}

/// Reads a weight as typed: a whole number from 1 to 99.
pub fn parse_weight(text: &str) -> Result<u8, ScheduleError> {
    let plain = text.strip_suffix('%').unwrap_or(text).trim();
    let percent = plain
        .parse::<u64>()
        .map_err(|_| ScheduleError::NotANumber { text: text.to_owned() })?;
    check_share(percent)
}

fn check_share(percent: u64) -> Result<u8, ScheduleError> {
    match u8::try_from(percent) {
        Ok(0) => Err(ScheduleError::Zero),
        Ok(percent @ 1..=99) => Ok(percent),
        _ => Err(ScheduleError::TooLarge { percent }),
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        let mut schedule = Self {
            steps: Vec::new(),
            promote: false,
        };
        for part in parts {
            if schedule.promote {
                return Err(ScheduleError::AfterPromotion);
            }
            let (share, duration) = match part.split_once(':') {
                Some((share, duration)) => (share.trim(), Some(duration.trim())),
                None => (part, None),
            };
            if share.strip_suffix('%').unwrap_or(share) == "100" {
                if duration.is_some() {
                    return Err(ScheduleError::DurationAtPromotion);
                }
                schedule.promote = true;
                continue;
            }
            let percent = parse_weight(share)?;
            let duration = duration
                .and_then(|text| humantime::parse_duration(text).ok())
                .filter(|duration| !duration.is_zero());
            let Some(duration) = duration else {
                let step = part.to_owned();
                return Err(ScheduleError::NoDuration { step, percent });
            };
            schedule.steps.push(Step { percent, duration });
        }
        if schedule.steps.is_empty() {
            return Err(if schedule.promote {
                ScheduleError::OnlyPromotion
            } else {
                ScheduleError::Empty
            });
        }
        schedule.check()?;
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(
                f,
                "{comma}{}:{}",
                step.percent,
                humantime::format_duration(step.duration)
            )?;
        }
        if self.promote {
            f.write_str(",100")?;
        }
        Ok(())
    }
}

/// Durations as seconds in JSON.
pub(crate) mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_and_written_alike() {
        let schedule: Schedule = "10:15m, 50:15m ,100".parse().unwrap();
        assert!(schedule.promote);
        assert_eq!(schedule.steps[1].percent, 50);
        assert_eq!(schedule.total(), Duration::from_mins(30));
        assert_eq!(schedule.to_string(), "10:15m,50:15m,100");
        let held: Schedule = "5%:90s".parse().unwrap();
        assert!(!held.promote);
    }

    #[test]
    fn what_cannot_be_used_says_what_can() {
        let refuse = |text: &str| text.parse::<Schedule>().unwrap_err();
        assert_eq!(parse_weight("0"), Err(ScheduleError::Zero));
        assert_eq!(parse_weight("140"), Err(ScheduleError::TooLarge { percent: 140 }));
        assert_eq!(parse_weight("100"), Err(ScheduleError::TooLarge { percent: 100 }));
        assert!(matches!(parse_weight("ten"), Err(ScheduleError::NotANumber { .. })));
        assert!(matches!(parse_weight("-1"), Err(ScheduleError::NotANumber { .. })));
        assert_eq!(refuse(""), ScheduleError::Empty);
        assert_eq!(refuse("100"), ScheduleError::OnlyPromotion);
        assert_eq!(refuse("10:1m,100:1m"), ScheduleError::DurationAtPromotion);
        assert_eq!(refuse("10:1m,100,50:1m"), ScheduleError::AfterPromotion);
        assert_eq!(
            refuse("10,100"),
            ScheduleError::NoDuration {
                step: "10".to_owned(),
                percent: 10
            }
        );
        assert!(matches!(refuse("10:0s,100"), ScheduleError::NoDuration { .. }));
        assert_eq!(
            refuse("50:1m,10:1m"),
            ScheduleError::NotRising { before: 50, after: 10 }
        );
        assert_eq!(refuse("0:1m,100"), ScheduleError::Zero);
    }
}
