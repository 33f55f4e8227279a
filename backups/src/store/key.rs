//! The name of an object in a store: a relative path that is safe on every file system and in every bucket.

use std::fmt;

use super::StoreError;

/// A name such as `data/4f/4f1a…`: parts of `[A-Za-z0-9._-]`, none beginning with a dot, joined by `/`, up to 512 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey(String);

impl StoreKey {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        let sound = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if name.len() <= 512 && name.split('/').all(sound) {
            Ok(Self(name))
        } else {
            Err(StoreError::InvalidKey { key: name })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last `/`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_names_are_keys() {
        for good in ["config", "data/4f/4f1a", "wal/7301/1/0000000100000000000000A1.zst.age"] {
            assert_eq!(StoreKey::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(513);
        for bad in [
            "",
            "/config",
            "data/",
            "data//x",
            "../x",
            "data/../x",
            ".x",
            "a b",
            "a\0",
            "ä",
            long.as_str(),
        ] {
            assert!(StoreKey::new(bad).is_err(), "{bad:?}");
        }
    }
}
