//! What is decided about a drill, without I/O: whether an answer keeps its bound, what time a row tells, how much would
//! have been lost, and what all checks together come to.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::record::{Check, Group, Objectives, Outcome, RpoBasis, Verdict};

/// An answer of a database: the first column of the first row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No row, or a row without a value.
    Nothing,
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes, of which only the length is told.
    Bytes(usize),
}

/// Answers are told up to so many characters.
const SHOWN: usize = 200;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Text(text) if text.chars().count() > SHOWN => {
                write!(f, "{:?}…", text.chars().take(SHOWN).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(length) => write!(f, "{length} bytes"),
        }
    }
}

impl Value {
    /// The number that it is.
    pub fn number(&self) -> Option<Number> {
        match self {
            Self::Integer(number) => Some(Number::Integer(*number)),
            Self::Real(number) => Some(Number::Real(*number)),
            Self::Nothing | Self::Text(_) | Self::Bytes(_) => None,
        }
    }
}

/// A number of a bound or an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole one.
    Integer(i64),
    /// Any other.
    Real(f64),
}

impl Number {
    /// As it is written in records.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    /// Whole numbers are compared exactly, however large.
    fn at_least(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a >= b,
            (a, b) => a.as_f64() >= b.as_f64(),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

/// What an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// This number or a larger one.
    AtLeast(Number),
    /// This number or a smaller one.
    AtMost(Number),
    /// One of these two numbers, or between them.
    Between(Number, Number),
    /// This number.
    EqualsNumber(Number),
    /// This text.
    EqualsText(String),
}

impl Bound {
    /// Whether an answer keeps it. No answer keeps none.
    pub fn holds(&self, value: &Value) -> bool {
        match (self, value, value.number()) {
            (Self::AtLeast(low), _, Some(number)) => number.at_least(*low),
            (Self::AtMost(high), _, Some(number)) => high.at_least(number),
            (Self::Between(low, high), _, Some(number)) => number.at_least(*low) && high.at_least(number),
            (Self::EqualsNumber(equal), _, Some(number)) => number.at_least(*equal) && equal.at_least(number),
            (Self::EqualsText(equal), Value::Text(text), _) => text == equal,
            _ => false,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(low) => write!(f, "at least {low}"),
            Self::AtMost(high) => write!(f, "at most {high}"),
            Self::Between(low, high) => write!(f, "between {low} and {high}"),
            Self::EqualsNumber(equal) => write!(f, "{equal}"),
            Self::EqualsText(equal) => write!(f, "{equal:?}"),
        }
    }
}

/// The time that a row tells: text as RFC 3339 or as SQLite writes it (UTC), or a number since 1970 in seconds,
/// milliseconds, microseconds or nanoseconds, told apart by its size.
pub fn time_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Text(text) => {
            let text = text.trim();
            text.parse::<Timestamp>().ok().or_else(|| {
                let civil: DateTime = text.parse().ok()?;
                civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
            })
        }
        Value::Integer(number) => {
            let nanoseconds = match number.unsigned_abs() {
                // Seconds reach the year 5138 here, milliseconds begin in 1973.
                0..100_000_000_000 => i128::from(*number) * 1_000_000_000,
                100_000_000_000..100_000_000_000_000 => i128::from(*number) * 1_000_000,
                100_000_000_000_000..100_000_000_000_000_000 => i128::from(*number) * 1000,
                _ => i128::from(*number),
            };
            Timestamp::from_nanosecond(nanoseconds).ok()
        }
        Value::Real(seconds) if seconds.is_finite() && seconds.abs() < 1e11 => {
            Timestamp::from_nanosecond((seconds * 1e9) as i128).ok()
        }
        Value::Real(_) | Value::Nothing | Value::Bytes(_) => None,
    }
}

/// How much would have been lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// In seconds; absent when it cannot be told.
    pub seconds: Option<f64>,
    /// What told it.
    pub basis: RpoBasis,
    /// In words.
    pub told: String,
}

/// What was brought back, and when the original was like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A snapshot.
    Snapshot(Timestamp),
    /// A snapshot and the changes that were shipped after it.
    Shipped(Timestamp),
}

/// A row from so far beyond the moment is written as quickly as that after it; more is a clock that is wrong.
const SKEW_SECONDS: f64 = 300.0;

/// How much is lost when a snapshot is brought back after a disaster at `moment`. `newest` is the answer of the canary's
/// query, or why there is none; without a canary the time of what was brought back counts.
pub fn loss(moment: Timestamp, state: State, newest: Option<Result<Value, String>>) -> Loss {
    let known = |basis, what: &str, newest: Timestamp| {
        let seconds = moment.duration_since(newest).as_secs_f64();
        if seconds < -SKEW_SECONDS {
            return Loss {
                seconds: None,
                basis,
                told: format!(
                    "{what} is of {newest}, {:.0} s after the moment to recover: a clock is wrong",
                    -seconds
                ),
            };
        }
        Loss {
            seconds: Some(seconds.max(0.0)),
            basis,
            told: format!("{what} is of {newest}"),
        }
    };
    let unknown = |told: String| Loss {
        seconds: None,
        basis: RpoBasis::Canary,
        told,
    };
    match newest {
        None => match state {
            State::Snapshot(time) => known(RpoBasis::Snapshot, "the snapshot", time),
            State::Shipped(time) => known(RpoBasis::Shipped, "the state that was shipped", time),
        },
        Some(Err(why)) => unknown(format!("the canary's query failed: {why}")),
        Some(Ok(Value::Nothing)) => unknown("the canary's query found no row".to_owned()),
        Some(Ok(value)) => match time_of(&value) {
            Some(newest) => known(RpoBasis::Canary, "the newest row", newest),
            None => unknown(format!("the canary's query answered {value}, which is no time")),
        },
    }
}

/// What was measured against what was promised. A canary that tells nothing leaves the verdict open, declared objective
/// or not.
pub fn objectives(objectives: &Objectives, rto_seconds: Option<f64>, loss: &Loss) -> Vec<Check> {
    let check = |name: &str, objective: Option<f64>, figure: Option<f64>, observed: String| Check {
        group: Group::Objective,
        name: name.to_owned(),
        expected: objective.map_or_else(
            || "to be told".to_owned(),
            |limit| format!("at most {}", seconds(limit)),
        ),
        observed,
        figure,
        outcome: figure.map_or(Outcome::Unknown, |figure| {
            Outcome::of(objective.is_none_or(|limit| figure <= limit))
        }),
    };
    let mut checks = Vec::new();
    if objectives.rto_seconds.is_some() {
        let observed = rto_seconds.map_or_else(|| "the data did not come back".to_owned(), seconds);
        checks.push(check("rto", objectives.rto_seconds, rto_seconds, observed));
    }
    if objectives.rpo_seconds.is_some() || loss.seconds.is_none() {
        let observed = match loss.seconds {
            Some(lost) => format!("{}: {}", seconds(lost), loss.told),
            None => loss.told.clone(),
        };
        checks.push(check("rpo", objectives.rpo_seconds, loss.seconds, observed));
    }
    checks
}

/// What all checks come to: one that does not hold refutes, one that is not known leaves it open, none say nothing, and
/// neither do those that were skipped.
pub fn verdict(checks: &[Check]) -> Verdict {
    let any = |outcome| checks.iter().any(|check| check.outcome == outcome);
    if any(Outcome::NotMet) {
        Verdict::NotProved
    } else if any(Outcome::Unknown) || !any(Outcome::Met) {
        Verdict::Inconclusive
    } else {
        Verdict::Proved
    }
}

/// A time in words, to three digits or so.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let two = |unit: u64, one: &str, rest: u64, other: &str| match (whole % unit) / rest {
        0 => format!("{} {one}", whole / unit),
        more => format!("{} {one} {more:02} {other}", whole / unit),
    };
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => two(60, "min", 1, "s"),
        s if s < 172_800.0 => two(3600, "h", 60, "min"),
        _ => two(86_400, "d", 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn check(outcome: Outcome) -> Check {
        Check {
            group: Group::Assertion,
            name: "x".to_owned(),
            expected: String::new(),
            observed: String::new(),
            figure: None,
            outcome,
        }
    }

    fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        proptest::collection::vec(
            proptest::sample::select(vec![Outcome::Met, Outcome::NotMet, Outcome::Unknown, Outcome::Skipped]),
            0..8,
        )
    }

    proptest! {
        /// Proved means that something was expected and all of it held; adding an expectation never makes it better.
        #[test]
        fn a_verdict_is_as_good_as_its_worst_check(outcomes in outcomes(), more in outcomes()) {
            let mut checks: Vec<Check> = outcomes.iter().copied().map(check).collect();
            let before = verdict(&checks);
            prop_assert_eq!(
                before == Verdict::Proved,
                outcomes.contains(&Outcome::Met)
                    && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Met | Outcome::Skipped))
            );
            prop_assert_eq!(before == Verdict::NotProved, outcomes.contains(&Outcome::NotMet));
            checks.extend(more.into_iter().map(check));
            let after = verdict(&checks);
            prop_assert!(before != Verdict::NotProved || after == Verdict::NotProved);
            prop_assert!(!outcomes.contains(&Outcome::Unknown) || after != Verdict::Proved);
        }

        /// Each whole number is in exactly the bounds that arithmetic says, also where a float could not tell two apart.
        #[test]
        fn whole_numbers_are_compared_exactly(value: i64, low: i64, high: i64) {
            let answer = Value::Integer(value);
            let number = Number::Integer;
            prop_assert_eq!(Bound::AtLeast(number(low)).holds(&answer), value >= low);
            prop_assert_eq!(Bound::AtMost(number(high)).holds(&answer), value <= high);
            prop_assert_eq!(Bound::Between(number(low), number(high)).holds(&answer), (low..=high).contains(&value));
            prop_assert_eq!(Bound::EqualsNumber(number(low)).holds(&answer), value == low);
            prop_assert!(!Bound::EqualsNumber(number(value.wrapping_add(1))).holds(&answer));
        }

        /// Whatever a row says, the loss is a finite number of seconds from zero on, or not known.
        #[test]
        fn no_row_makes_a_loss_that_is_no_time(
            moment in -1_000_000_000_i64..10_000_000_000,
            integer: i64,
            real: f64,
            text in ".{0,40}",
        ) {
            for value in [Value::Integer(integer), Value::Real(real), Value::Text(text), Value::Bytes(3)] {
                let lost = loss(at(moment), State::Snapshot(at(moment)), Some(Ok(value)));
                prop_assert!(lost.seconds.is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0));
            }
        }

        /// The same instant in every spelling is the same instant.
        #[test]
        fn a_time_is_read_in_every_spelling(second in 1_000_000_000_i64..4_000_000_000) {
            let time = at(second);
            let civil = time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string();
            for value in [
                Value::Integer(second),
                Value::Integer(second * 1000),
                Value::Integer(second * 1_000_000),
                Value::Integer(second * 1_000_000_000),
                Value::Real(second as f64),
                Value::Text(time.to_string()),
                Value::Text(civil.replace(' ', "T")),
                Value::Text(civil),
            ] {
                prop_assert_eq!(time_of(&value), Some(time), "{}", value);
            }
        }
    }

    #[test]
    fn times_in_words() {
        for (time, words) in [
            (1e-9, "1 ns"),
            (0.000_797, "797 µs"),
            (0.4, "400 ms"),
            (59.96, "60.0 s"),
            (300.0, "5 min"),
            (301.0, "5 min 01 s"),
            (86_400.0, "24 h"),
            (7_500.0, "2 h 05 min"),
            (7.0 * 86_400.0, "7 d"),
            (1e12, "11574074 d 01 h"),
        ] {
            assert_eq!(seconds(time), words);
        }
    }

    #[test]
    fn an_answer_of_another_type_keeps_no_bound() {
        let one = Number::Integer(1);
        for bound in [
            Bound::AtLeast(one),
            Bound::AtMost(one),
            Bound::Between(one, one),
            Bound::EqualsNumber(one),
        ] {
            for value in [
                Value::Nothing,
                Value::Text("1".to_owned()),
                Value::Bytes(1),
                Value::Real(f64::NAN),
            ] {
                assert!(!bound.holds(&value), "{bound} {value}");
            }
        }
        assert!(Bound::EqualsText("paid".to_owned()).holds(&Value::Text("paid".to_owned())));
        assert!(!Bound::EqualsText("1".to_owned()).holds(&Value::Integer(1)));
        assert!(Bound::Between(Number::Real(0.5), one).holds(&Value::Real(0.5)));
    }

    #[test]
    fn what_is_lost_is_told_by_the_row_else_by_the_snapshot() {
        let lost = |newest| loss(at(1000), State::Snapshot(at(900)), newest);
        assert_eq!(lost(None).seconds, Some(100.0));
        assert_eq!(lost(None).basis, RpoBasis::Snapshot);
        let shipped = loss(at(1000), State::Shipped(at(998)), None);
        assert_eq!((shipped.seconds, shipped.basis), (Some(2.0), RpoBasis::Shipped));
        assert_eq!(lost(Some(Ok(Value::Integer(880)))).seconds, Some(120.0));
        // Written while the backup began: nothing is lost. Hours ahead: somebody's clock is wrong.
        assert_eq!(lost(Some(Ok(Value::Integer(1003)))).seconds, Some(0.0));
        let ahead = lost(Some(Ok(Value::Integer(9000))));
        assert_eq!(ahead.seconds, None);
        assert!(ahead.told.contains("a clock is wrong"), "{}", ahead.told);
        for unknown in [
            Ok(Value::Nothing),
            Ok(Value::Text("soon".to_owned())),
            Err("no such table".to_owned()),
        ] {
            let lost = lost(Some(unknown));
            assert_eq!((lost.seconds, lost.basis), (None, RpoBasis::Canary));
        }
    }

    #[test]
    fn objectives_are_kept_up_to_and_including_their_bound() {
        let promised = Objectives {
            rpo_seconds: Some(100.0),
            rto_seconds: Some(2.0),
            prove_every_seconds: None,
        };
        let lost = |seconds| Loss {
            seconds,
            basis: RpoBasis::Snapshot,
            told: String::new(),
        };
        let outcomes = |rto, rpo| {
            let checks = objectives(&promised, rto, &lost(rpo));
            checks.iter().map(|check| check.outcome).collect::<Vec<_>>()
        };
        assert_eq!(outcomes(Some(2.0), Some(100.0)), [Outcome::Met, Outcome::Met]);
        assert_eq!(outcomes(Some(2.01), Some(100.01)), [Outcome::NotMet, Outcome::NotMet]);
        assert_eq!(outcomes(None, None), [Outcome::Unknown, Outcome::Unknown]);
        let none = Objectives::default();
        assert!(objectives(&none, Some(1e9), &lost(Some(1e9))).is_empty());
        assert_eq!(objectives(&none, None, &lost(None))[0].outcome, Outcome::Unknown);
    }
}
