//! E-mail addresses and passwords: which are accepted, and when two addresses are the same. Pure.

use std::fmt;

/// The shortest and longest password, in bytes of UTF-8 (NIST SP 800-63B section 5.1.1.2: at least 8 characters, no rule
/// about their kinds). The upper end is there so that nobody lets us hash megabytes.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=128;

/// A normalised address: two that reach the same mailbox with any usual provider are equal. Spaces around it are dropped
/// and letters are small ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// Why something cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No address.
    #[error("email must be an address such as ada@example.org, of ASCII characters")]
    Email,
    /// No password that is accepted.
    #[error("password must have 8 to 128 bytes")]
    Password,
}

impl Email {
    /// Normalises. Accepted is what RFC 5321 calls `Dot-string@Domain`: no quotes, no comments, no address literals.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let text = text.trim_matches([' ', '\t']).to_ascii_lowercase();
        let (local, domain) = text.rsplit_once('@').ok_or(Refused::Email)?;
        let atom = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
        };
        let label = |part: &str| {
            (1..=63).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        let fits = local.len() <= 64
            && domain.len() <= 253
            && local.split('.').all(atom)
            && domain.contains('.')
            && domain.split('.').all(label);
        if fits { Ok(Self(text)) } else { Err(Refused::Email) }
    }

    /// As stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a new password.
pub fn check_password(password: &str) -> Result<(), Refused> {
    if PASSWORD_BYTES.contains(&password.len()) {
        Ok(())
    } else {
        Err(Refused::Password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mailbox_is_one_address() {
        for text in ["Ada.L+x@Example.ORG", " ada.l+x@example.org\t", "ADA.L+X@EXAMPLE.ORG"] {
            assert_eq!(Email::parse(text).unwrap().as_str(), "ada.l+x@example.org");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        for text in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@example",
            "a..b@example.org",
            ".a@example.org",
            "a b@example.org",
            "a@b@example.org",
            "a@-x.org",
            "a@x-.org",
            "a@x..org",
            "a@ex ample.org",
            "a\n@example.org",
            "ä@example.org",
            "a@exämple.org",
            "\"a b\"@example.org",
            "a@[127.0.0.1]",
            "a'); DROP TABLE users; --@x.org",
            &long,
        ] {
            assert_eq!(Email::parse(text), Err(Refused::Email), "{text:?}");
        }
    }

    #[test]
    fn passwords_are_bounded_and_otherwise_free() {
        for (password, accepted) in [
            ("1234567", false),
            ("12345678", true),
            ("pass wörd🔑", true),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
        ] {
            assert_eq!(check_password(password).is_ok(), accepted, "{password}");
        }
    }
}
