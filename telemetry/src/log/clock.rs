//! The stamp of a line: RFC 3339 in UTC with nanoseconds. What is the same for a whole second is kept.

use std::fmt::Write as _;

const SECOND: u64 = 1_000_000_000;

/// Whole seconds of such a time.
pub(crate) fn seconds(nanos: u64) -> u64 {
    nanos / SECOND
}

/// Writes time stamps; one for each thread.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    second: Option<u64>,
    text: String,
}

impl Stamps {
    /// Appends a time as `2026-01-02T03:04:05.000000006Z`.
    pub(crate) fn append(&mut self, out: &mut String, nanos: u64) {
        let second = seconds(nanos);
        if self.second != Some(second) {
            self.text.clear();
            let whole = jiff::Timestamp::from_second(second.cast_signed()).unwrap_or_default();
            let _ = write!(self.text, "{}", whole.strftime("%Y-%m-%dT%H:%M:%S."));
            self.second = Some(second);
        }
        out.push_str(&self.text);
        // A digit before them keeps the leading zeros.
        let mut digits = itoa::Buffer::new();
        out.push_str(&digits.format(SECOND + nanos % SECOND)[1..]);
        out.push('Z');
    }
}

#[cfg(test)]
mod tests {
    //! Against jiff's own words.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stamps_are_what_jiff_writes(seconds in proptest::collection::vec(0..4_000_000_000_u64, 1..5), nanos in 0..SECOND) {
            let mut stamps = Stamps::default();
            for second in seconds {
                let nanos = second * SECOND + nanos;
                let at = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap();
                let mut text = String::new();
                stamps.append(&mut text, nanos);
                prop_assert_eq!(text, format!("{at:.9}"));
            }
        }
    }
}
