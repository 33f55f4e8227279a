//! The files that the write-ahead log is cut into, and how they are named: `XLogFileName` of PostgreSQL's
//! `xlog_internal.h`.

use std::fmt;

use crate::lsn::{Lsn, Malformed, Timeline, upper_hex};

/// How long each file of the log is: a power of two from 1 MiB to 1 GiB, chosen by `initdb --wal-segsize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MiB, which nearly every cluster has.
    pub const DEFAULT: Self = Self(16 << 20);

    /// The size of so many bytes.
    ///
    /// # Errors
    /// [`Malformed`] if no cluster can have it.
    pub fn new(bytes: u64) -> Result<Self, Malformed> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            return Ok(Self(bytes as u32));
        }
        let what = "a size of WAL segments: a power of two from 1 MiB to 1 GiB, in bytes";
        Err(Malformed::new(what, &bytes.to_string()))
    }

    /// What `SHOW wal_segment_size` answers: `16MB`, `1GB`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn of_setting(text: &str) -> Result<Self, Malformed> {
        let units: [(&str, u64); 4] = [("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];
        let (digits, unit) = units
            .into_iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
            .unwrap_or((text, 1));
        let bytes = crate::lsn::decimal(digits).and_then(|number| number.checked_mul(unit));
        let what = "a size of WAL segments such as 16MB";
        Self::new(bytes.ok_or_else(|| Malformed::new(what, text))?).map_err(|_| Malformed::new(what, text))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// How many of them have the same middle eight digits in their names.
    const fn each(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// One file of the log. The same number exists on several timelines, with other contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Whose log it is.
    pub timeline: Timeline,
    /// How many lie before it: its start divided by the size.
    pub number: u64,
}

impl Segment {
    /// The one that holds the byte at `lsn`.
    pub const fn containing(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        let number = lsn.0 / size.bytes();
        Self { timeline, number }
    }

    /// The name of its file: 24 hexadecimal digits.
    pub fn file_name(self, size: SegmentSize) -> String {
        let (high, low) = (self.number / size.each(), self.number % size.each());
        format!("{:08X}{high:08X}{low:08X}", self.timeline.0)
    }

    /// The segment whose file has this name in a cluster of this size: 24 digits and nothing after them.
    ///
    /// # Errors
    /// [`Malformed`], also for a name that no segment of this size has.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Self, Malformed> {
        let part = |from: usize| upper_hex(name.get(from..from + 8)?);
        let parts = (name.len() == 24)
            .then(|| Some((part(0)?, part(8)?, part(16)?)))
            .flatten();
        match parts {
            Some((timeline, high, low)) if timeline != 0 && low < size.each() => Ok(Self {
                timeline: Timeline(timeline as u32),
                number: high * size.each() + low,
            }),
            _ => Err(Malformed::new("the name of a WAL segment of this cluster", name)),
        }
    }

    /// The position of its first byte.
    pub const fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number.saturating_mul(size.bytes()))
    }

    /// The position after its last byte: where the next one starts.
    pub const fn end(self, size: SegmentSize) -> Lsn {
        self.start(size).plus(size.bytes())
    }

    /// The one after it, on the same timeline.
    #[must_use]
    pub const fn next(self) -> Self {
        let number = self.number.saturating_add(1);
        Self { number, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        // `SELECT pg_walfile_name('16/B374D848')` on timeline 1 of a cluster with the default size.
        let segment = Segment::containing(Timeline(1), Lsn(0x16_B374_D848), SegmentSize::DEFAULT);
        assert_eq!(segment.file_name(SegmentSize::DEFAULT), "0000000100000016000000B3");
        assert_eq!(segment.start(SegmentSize::DEFAULT), Lsn(0x16_B300_0000));
        assert_eq!(segment.end(SegmentSize::DEFAULT), Lsn(0x16_B400_0000));
        assert_eq!(
            segment.next().file_name(SegmentSize::DEFAULT),
            "0000000100000016000000B4"
        );
        let largest = SegmentSize::new(1 << 30).unwrap();
        let segment = Segment::containing(Timeline(2), Lsn(0x1_C000_0000), largest);
        assert_eq!(segment.file_name(largest), "000000020000000100000003");
        assert_eq!(segment.next().file_name(largest), "000000020000000200000000");
    }

    #[test]
    fn other_names_are_no_segments() {
        let size = SegmentSize::DEFAULT;
        for wrong in [
            "",
            "0000000100000016000000B",
            "0000000100000016000000B3.partial",
            "0000000100000016000000b3",
            "000000010000001600000100",
            "0000000000000016000000B3",
            "0000000100000016000000+3",
            "0000000100000016000000Bé",
            "../../../../../etc/passw",
        ] {
            assert!(Segment::parse(wrong, size).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two_within_bounds() {
        for wrong in [0, 1, 1 << 19, (16 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert!(SegmentSize::new(wrong).is_err(), "{wrong}");
        }
        assert_eq!(SegmentSize::of_setting("16MB"), Ok(SegmentSize::DEFAULT));
        assert_eq!(SegmentSize::of_setting("1GB").unwrap().bytes(), 1 << 30);
        assert_eq!(SegmentSize::of_setting("16777216"), Ok(SegmentSize::DEFAULT));
        for wrong in ["", "MB", "16 MB", "16TB", "-16MB", "18446744073709551615GB"] {
            assert!(SegmentSize::of_setting(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn names_and_positions_lead_back(lsn: u64, timeline in 1..=u32::MAX, power in 20u32..=30) {
            let size = SegmentSize::new(1 << power).unwrap();
            let segment = Segment::containing(Timeline(timeline), Lsn(lsn), size);
            prop_assert_eq!(Segment::parse(&segment.file_name(size), size), Ok(segment));
            prop_assert!(segment.start(size) <= Lsn(lsn));
            prop_assert!(Lsn(lsn).since(segment.start(size)) < size.bytes());
            if segment.end(size).0 < u64::MAX {
                prop_assert_eq!(segment.next().start(size), segment.end(size));
                prop_assert!(segment.file_name(size) < segment.next().file_name(size));
            }
        }

        #[test]
        fn no_name_is_misread(name in "[0-9A-Fa-f.]{20,28}") {
            if let Ok(segment) = Segment::parse(&name, SegmentSize::DEFAULT) {
                prop_assert_eq!(segment.file_name(SegmentSize::DEFAULT), name);
            }
        }
    }
}
