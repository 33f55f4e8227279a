//! The name of a datastore as it stands in the keys of what is shipped of it.

use std::fmt;

use crate::error::Error;
use crate::store::StoreKey;

/// The name under which a datastore is shipped: letters, digits and `._-`, up to 200, no dot first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datastore(String);

impl Datastore {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let sound = name.len() <= 200 && !name.contains('/') && StoreKey::new(name.as_str()).is_ok();
        if sound {
            Ok(Self(name))
        } else {
            Err(Error::Invalid(format!("{name:?} is no name of a datastore")))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its objects of a kind lie: what all their keys begin with.
    pub(super) fn folder(&self, kind: &str) -> String {
        format!("{kind}/{}/", self.0)
    }
}

impl fmt::Display for Datastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let long = "a".repeat(201);
        for bad in [
            "", ".", "..", "../x", "a/b", "/a", "a/", ".a", "a b", "a\0", "a\nb", "ä", "a\\b", &long,
        ] {
            assert!(Datastore::new(bad).is_err(), "{bad:?}");
        }
        let longest = "a".repeat(200);
        for good in ["a", "local.pg-main", "a..b", "A_1", &longest] {
            assert_eq!(Datastore::new(good).unwrap().folder("wal"), format!("wal/{good}/"));
        }
    }
}
