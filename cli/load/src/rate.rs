//! A constant arrival rate as a ratio of integers, and the schedule that follows from it. Not a pacer.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::plan::LoadError;

/// So many arrivals in so much time, exact: `1000/min` is not rounded to a whole number a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    arrivals: u64,
    period: Duration,
}

impl Rate {
    /// The highest rate that is accepted, per second.
    pub const MAX_PER_SECOND: u64 = 10_000_000;

    /// `arrivals` in every `period`.
    ///
    /// # Errors
    /// [`LoadError::InvalidRate`] when either is zero or the rate is above [`Rate::MAX_PER_SECOND`].
    pub fn new(arrivals: u64, period: Duration) -> Result<Self, LoadError> {
        let invalid = |reason| LoadError::InvalidRate {
            text: format!("{arrivals} per {period:?}"),
            reason,
        };
        if arrivals == 0 || period.is_zero() {
            return Err(invalid("must be more than zero"));
        }
        if arrivals as f64 / period.as_secs_f64() > Self::MAX_PER_SECOND as f64 {
            return Err(invalid("is more than ten million a second"));
        }
        Ok(Self { arrivals, period })
    }

    /// Arrivals a second.
    pub fn per_second(self) -> f64 {
        self.arrivals as f64 / self.period.as_secs_f64()
    }

    /// When arrival `index` (from 0) is due, from the start of the run: `index * period / arrivals`, rounded down to
    /// a nanosecond. Computed from the index alone, so it cannot drift.
    pub fn due(self, index: u64) -> Duration {
        let nanos = u128::from(index) * self.period.as_nanos() / u128::from(self.arrivals);
        Duration::new(
            u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX),
            (nanos % 1_000_000_000) as u32,
        )
    }

    /// How many arrivals are due before `duration` has passed, which is the index of the first that is not.
    pub fn arrivals_in(self, duration: Duration) -> u64 {
        // due(i) < d  <=>  floor(i * p / a) < d  <=>  i * p < d * a, all in nanoseconds.
        let scaled = duration.as_nanos() * u128::from(self.arrivals);
        u64::try_from(scaled.div_ceil(self.period.as_nanos())).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = LoadError;

    /// Reads `200/s`, `1000/min`, `0.5/s`, `20/h`; without a unit, per second.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        let invalid = |reason| LoadError::InvalidRate {
            text: text.to_owned(),
            reason,
        };
        let (number, unit) = text.trim().split_once('/').unwrap_or((text.trim(), "s"));
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            _ => return Err(invalid("the unit must be s, min or h")),
        };
        let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(invalid("the number must be decimal, such as 200 or 0.5"));
        }
        if fraction.len() > 6 {
            return Err(invalid("at most six decimal places"));
        }
        let scale = 10_u64.pow(fraction.len() as u32);
        let arrivals: u64 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| invalid("the number is too large"))?;
        Self::new(arrivals, Duration::from_secs(seconds * scale)).map_err(|error| match error {
            LoadError::InvalidRate { reason, .. } => invalid(reason),
            other => other,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (seconds, unit) in [(1, "s"), (60, "min"), (3600, "h")] {
            let scaled = u128::from(self.arrivals) * u128::from(seconds as u64) * 1_000_000_000;
            if scaled % self.period.as_nanos() == 0 {
                return write!(f, "{}/{unit}", scaled / self.period.as_nanos());
            }
        }
        write!(f, "{:.6}/s", self.per_second())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_usual_ways_of_writing_a_rate() {
        for (text, per_second, shown) in [
            ("200/s", 200.0, "200/s"),
            ("1000/min", 1000.0 / 60.0, "1000/min"),
            ("20", 20.0, "20/s"),
            ("0.5/s", 0.5, "30/min"),
            ("2.5 / min", 2.5 / 60.0, "150/h"),
            ("7200/h", 2.0, "2/s"),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert!((rate.per_second() - per_second).abs() < 1e-9, "{text}");
            assert_eq!(rate.to_string(), shown);
        }
        for text in [
            "",
            "/s",
            "0/s",
            "-1/s",
            "1e3/s",
            "5/day",
            "20000000/s",
            ".",
            "1.2345678/s",
            "99999999999999999999/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_schedule_is_even_exact_and_agrees_with_its_count(
            arrivals in 1_u64..2_000_000,
            period_ms in 1_u64..7_200_000,
            index in 0_u64..1_000_000_000,
        ) {
            let period = Duration::from_millis(period_ms);
            let Ok(rate) = Rate::new(arrivals, period) else { return Ok(()) };
            // Exact at whole periods, however far out.
            prop_assert_eq!(rate.due(arrivals * 1000), period * 1000);
            // Monotonic, and no gap differs from the ideal by more than the rounding.
            let gap = rate.due(index + 1).as_nanos() - rate.due(index).as_nanos();
            let ideal = period.as_nanos() / u128::from(arrivals);
            prop_assert!(gap == ideal || gap == ideal + 1, "{} {}", gap, ideal);
            // arrivals_in(d) is the first index that is not due before d.
            let at = rate.due(index);
            let next = rate.arrivals_in(at + Duration::from_nanos(1));
            prop_assert!(rate.due(next) > at);
            prop_assert!(next == 0 || rate.due(next - 1) <= at);
            prop_assert!(rate.arrivals_in(at) <= index);
        }
    }
}
