//! The time stamp of a line: RFC 3339 in UTC with nanoseconds. What is the same for a whole second is kept.

use std::fmt::Write as _;

/// Writes time stamps; one for each thread.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    second: Option<i64>,
    text: String,
}

impl Stamps {
    /// Appends `at` as `2026-01-02T03:04:05.000000006Z`.
    pub(crate) fn append(&mut self, out: &mut String, at: jiff::Timestamp) {
        // Before 1970 the parts are negative; no clock of a service says so.
        let (second, nanos) = (at.as_second(), at.subsec_nanosecond().unsigned_abs());
        if self.second != Some(second) {
            self.text.clear();
            let whole = jiff::Timestamp::from_second(second).unwrap_or_default();
            let _ = write!(self.text, "{}", whole.strftime("%Y-%m-%dT%H:%M:%S."));
            self.second = Some(second);
        }
        out.push_str(&self.text);
        // A digit before them keeps the leading zeros.
        let mut digits = itoa::Buffer::new();
        out.push_str(&digits.format(1_000_000_000 + nanos)[1..]);
        out.push('Z');
    }
}

/// Nanoseconds since the Unix epoch, 0 before it.
pub(crate) fn nanos(at: jiff::Timestamp) -> u64 {
    let (seconds, nanos) = (at.as_second().max(0), at.subsec_nanosecond().max(0));
    seconds.unsigned_abs() * 1_000_000_000 + u64::from(nanos.unsigned_abs())
}

#[cfg(test)]
mod tests {
    //! Against jiff's own words.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stamps_are_what_jiff_writes(seconds in proptest::collection::vec(0..4_000_000_000_i64, 1..5), nanos in 0..1_000_000_000_i32) {
            let mut stamps = Stamps::default();
            for second in seconds {
                let at = jiff::Timestamp::new(second, nanos).unwrap();
                let mut text = String::new();
                stamps.append(&mut text, at);
                prop_assert_eq!(text, format!("{at:.9}"));
            }
        }
    }
}
