//! A share of requests, exact: 99.9% is 0.999 and what is left of it 0.001, not 0.0010000000000000009.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// So many parts make a whole: `99.9999999%` is the finest promise.
const WHOLE: u64 = 1_000_000_000;

/// A share between 0 and 1, to nine digits. Shown as the shortest decimal, `0.999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio(u64);

impl Ratio {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// All.
    pub const ONE: Self = Self(WHOLE);

    /// The nearest share; none for what is not between 0 and 1.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0)
            .contains(&value)
            .then(|| Self((value * WHOLE as f64).round() as u64))
    }

    /// So many of a thousand.
    pub const fn permille(parts: u64) -> Self {
        Self(if parts < 1000 { parts * (WHOLE / 1000) } else { WHOLE })
    }

    /// What is left of one: the budget of an objective.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(WHOLE - self.0)
    }

    /// As a number.
    pub fn as_f64(self) -> f64 {
        // Both are exact, so that the quotient is the number nearest to the decimal.
        self.0 as f64 / WHOLE as f64
    }

    /// In percent: `99.9%`.
    pub fn percent(self) -> String {
        format!("{}%", decimal(self.0, WHOLE / 100))
    }

    /// Times `numerator / denominator`, as the shortest decimal, exact to nine digits: a threshold.
    pub fn times(self, numerator: u64, denominator: u64) -> Scaled {
        let scaled = u128::from(self.0) * u128::from(numerator);
        let denominator = u128::from(denominator.max(1));
        Scaled(u64::try_from((scaled + denominator / 2) / denominator).unwrap_or(u64::MAX))
    }
}

/// A multiple of a share; may be above 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scaled(u64);

impl Scaled {
    /// Whether no share of anything can be above it.
    pub const fn unreachable(self) -> bool {
        self.0 >= WHOLE
    }

    /// As a number.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / WHOLE as f64
    }
}

/// `parts / whole` without zeros at the end; `whole` is a power of ten.
fn decimal(parts: u64, whole: u64) -> String {
    let digits = whole.ilog10() as usize;
    let (units, rest) = (parts / whole, parts % whole);
    let rest = format!("{rest:0digits$}");
    match rest.trim_end_matches('0') {
        "" => units.to_string(),
        rest => format!("{units}.{rest}"),
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(self.0, WHOLE))
    }
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(self.0, WHOLE))
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value).ok_or_else(|| de::Error::custom("a share is between 0 and 1"))
    }
}
