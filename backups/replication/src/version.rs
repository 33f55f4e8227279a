//! Versions of servers.

use std::fmt;
use std::str::FromStr;

use crate::lsn::Malformed;

/// A server's version as one number, as `server_version_num` has it: 150006 is 15.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion(pub u32);

impl ServerVersion {
    /// The major version: data of one is not read by another. 9 for all that came before 10.
    pub const fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// The minor version: how many times that major version was mended.
    pub const fn minor(self) -> u32 {
        self.0 % 10_000
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.major() {
            major @ ..10 => write!(f, "{major}.{}.{}", self.minor() / 100, self.minor() % 100),
            major => write!(f, "{major}.{}", self.minor()),
        }
    }
}

impl FromStr for ServerVersion {
    type Err = Malformed;

    /// Reads what a server says at the start: `15.6 (Debian 15.6-0+deb12u1)`, `9.6.24`, `18beta2`.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong = || Malformed::new("a version of PostgreSQL", text);
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let mut parts = text[..end]
            .split('.')
            .map(|part| part.parse::<u32>().ok().filter(|part| *part < 10_000));
        let mut part = || parts.next().unwrap_or(Some(0)).ok_or_else(wrong);
        match (part()?, part()?, part()?) {
            (0, ..) => Err(wrong()),
            (major @ ..10, middle @ ..100, minor @ ..100) => Ok(Self(major * 10_000 + middle * 100 + minor)),
            (major @ 10.., minor, _) => Ok(Self(major * 10_000 + minor)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_say_them() {
        let read = |text: &str| text.parse::<ServerVersion>().map(|version| version.0);
        assert_eq!(read("15.6 (Debian 15.6-0+deb12u1)"), Ok(150_006));
        assert_eq!(read("18beta2"), Ok(180_000));
        assert_eq!(read("19devel"), Ok(190_000));
        assert_eq!(read("9.6.24"), Ok(90_624));
        assert_eq!(read("14.13"), Ok(140_013));
        for wrong in ["", "x", "0.1", "99999999999", "9.100.0", ".5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ServerVersion(150_006).to_string(), "15.6");
        assert_eq!(ServerVersion(90_624).to_string(), "9.6.24");
        assert_eq!(ServerVersion(180_000).major(), 18);
    }
}
