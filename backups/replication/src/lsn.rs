//! What PostgreSQL counts its write-ahead log by: positions, timelines, and the number that a cluster was made with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not what it should be. The text is shown as it was, so it is never used for secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct Malformed {
    /// What it should be, with its article: "a position such as 16/B374D848".
    pub what: &'static str,
    /// The text, at most 80 characters of it.
    pub text: String,
}

impl Malformed {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        let text = text.chars().take(80).collect();
        Self { what, text }
    }
}

/// A position in the write-ahead log: how many bytes of it lie before. Written as PostgreSQL does, `16/B374D848`: two
/// halves of 32 bits in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything; PostgreSQL's "invalid" position, which no record has.
    pub const ZERO: Self = Self(0);

    /// The position `bytes` further on; the last one where there is none.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// How many bytes lie between `earlier` and this one; none if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let half = |half: &str| (half.len() <= 8).then(|| hex(half)).flatten();
        let halves = text
            .split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| Malformed::new("a position such as 16/B374D848", text))?;
        Ok(Self(high << 32 | low))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A history of a cluster, which a promotion or a recovery to a point ends and another one begins: 1, 2, 3…; never 0 on
/// a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The one that `initdb` begins with.
    pub const FIRST: Self = Self(1);

    /// The name of its file of history, `00000002.history`. The first timeline has none.
    pub fn history_file(self) -> String {
        format!("{:08X}.history", self.0)
    }

    /// The timeline of the file of history that has this name.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn of_history_file(name: &str) -> Result<Self, Malformed> {
        let digits = name.strip_suffix(".history").filter(|digits| digits.len() == 8);
        let number = digits.and_then(upper_hex).filter(|number| *number != 0);
        let number = number.ok_or_else(|| Malformed::new("a name such as 00000002.history", name))?;
        Ok(Self(number as u32))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Timeline {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let number = decimal(text).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| *number != 0);
        number
            .map(Self)
            .ok_or_else(|| Malformed::new("the number of a timeline", text))
    }
}

/// The number that `initdb` gave to a cluster, which its standbys and copies share. JSON has it as text, since it is
/// larger than what every reader takes for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let number = decimal(text).map(Self);
        number.ok_or_else(|| Malformed::new("a system identifier", text))
    }
}

impl Serialize for SystemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SystemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A number of decimal digits and nothing else: no sign, no space.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A number of hexadecimal digits and nothing else.
fn hex(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The same as names of files have it: in capitals, so that one number has one name.
pub(crate) fn upper_hex(text: &str) -> Option<u64> {
    let capitals = text.bytes().all(|byte| !byte.is_ascii_lowercase());
    capitals.then(|| hex(text)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn(0x1_0000_0028).to_string(), "1/28");
        assert_eq!("0/0".parse(), Ok(Lsn::ZERO));
        assert_eq!("16/b374d848".parse(), Ok(Lsn(0x16_B374_D848)));
        for wrong in [
            "",
            "/",
            "1/",
            "/1",
            "1",
            "1/2/3",
            "+1/2",
            " 1/2",
            "123456789/0",
            "0/123456789",
            "g/0",
        ] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&Lsn(0x2_0000_0001)).unwrap(), "\"2/1\"");
        assert_eq!(serde_json::from_str::<Lsn>("\"2/1\"").unwrap(), Lsn(0x2_0000_0001));
    }

    #[test]
    fn histories_have_one_name_each() {
        assert_eq!(Timeline(0x1A).history_file(), "0000001A.history");
        assert_eq!(Timeline::of_history_file("0000001A.history"), Ok(Timeline(0x1A)));
        for wrong in [
            "0000001a.history",
            "1A.history",
            "0000001A",
            "00000000.history",
            "../00001A.history",
            "+000001A.history",
        ] {
            assert!(Timeline::of_history_file(wrong).is_err(), "{wrong}");
        }
        assert!("0".parse::<Timeline>().is_err());
        assert!("4294967296".parse::<Timeline>().is_err());
    }

    #[test]
    fn a_system_identifier_keeps_all_of_its_digits_in_json() {
        let id = SystemId(18_446_744_073_709_551_615);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"18446744073709551615\"");
        assert_eq!(serde_json::from_str::<SystemId>(&json).unwrap(), id);
        assert!("-1".parse::<SystemId>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(number: u64, timeline in 1..=u32::MAX) {
            prop_assert_eq!(Lsn(number).to_string().parse(), Ok(Lsn(number)));
            prop_assert_eq!(SystemId(number).to_string().parse(), Ok(SystemId(number)));
            let timeline = Timeline(timeline);
            prop_assert_eq!(timeline.to_string().parse(), Ok(timeline));
            prop_assert_eq!(Timeline::of_history_file(&timeline.history_file()), Ok(timeline));
        }
    }
}
