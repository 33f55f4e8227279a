//! Durations (`10s`) and numbers of bytes (`16MiB`) as they stand in files and variables. For
//! `#[serde(with = "crate::builder::units::duration")]`.

/// The accepted form of durations.
pub(crate) const DURATION: &str = "a duration such as 10s or 250ms";
/// The accepted form of sizes.
pub(crate) const BYTES: &str = "a number of bytes such as 16MiB or 1048576";

/// Reads `512`, `64KiB`, `16MiB`, `1GiB`, and the decimal `kB`, `MB`, `GB`.
pub(crate) fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: usize = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// Durations as text.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| D::Error::custom(format!("`{text}` is not {}", super::DURATION)))
    }
}

/// Bytes as text with a unit, or as a plain number.
pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn serialize<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(*value as u64)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Bytes {
            Number(usize),
            Text(String),
        }
        match Bytes::deserialize(deserializer)? {
            Bytes::Number(number) => Ok(number),
            Bytes::Text(text) => {
                super::parse_bytes(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not {}", super::BYTES)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is read and what is refused.

    use super::parse_bytes;

    #[test]
    fn bytes_have_units() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("16MiB", Some(16 << 20)),
            ("64 KiB", Some(64 << 10)),
            ("2MB", Some(2_000_000)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("16mib", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_bytes(text), wanted, "{text}");
        }
    }
}
