//! Secrets stay out of lines and spans: values of fields with telling names, and the user-info of URLs.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands instead of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// Parts of field names whose values are never written.
const SECRET: [&str; 9] = [
    "authorization",
    "password",
    "passwd",
    "secret",
    "token",
    "cookie",
    "api_key",
    "api-key",
    "apikey",
];

/// Knows which names are secret. Clones share.
#[derive(Debug, Clone)]
pub(crate) struct Redact {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// No other has it.
    id: u64,
    /// Lower case.
    parts: Vec<String>,
    /// For each lower-case letter with which a part begins, those that come second: nearly every name is let through
    /// by this alone.
    second: [u128; 128],
    /// Whether a part has one character or does not begin with ASCII, which `second` cannot hold.
    odd: bool,
}

impl Default for Redact {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Redact {
    /// The usual names and those that contain one of `more`, without regard to case.
    pub(crate) fn new(more: &[String]) -> Self {
        let usual = SECRET.iter().map(ToString::to_string);
        let parts: Vec<String> = usual.chain(more.iter().map(|part| part.to_ascii_lowercase())).collect();
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let mut second = [0; 128];
        let mut odd = false;
        for part in &parts {
            match *part.as_bytes() {
                [a, b, ..] if a.is_ascii() && b.is_ascii() => second[a as usize] |= 1 << b,
                _ => odd = true,
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            inner: Arc::new(Inner { id, parts, second, odd }),
        }
    }

    /// Those of one id keep the same names secret.
    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    /// Whether the value of a field of this name must not be written.
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        let inner = &*self.inner;
        let name = name.as_bytes();
        let mut before = 0;
        let suspect = inner.odd
            || name.iter().any(|byte| {
                let byte = byte.to_ascii_lowercase();
                let pair = byte < 128 && inner.second[before] >> byte & 1 == 1;
                before = usize::from(byte & 127);
                pair
            });
        suspect
            && inner.parts.iter().any(|part| {
                name.windows(part.len())
                    .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
            })
    }

    /// Takes `user:password@` out of URLs.
    #[expect(
        clippy::unused_self,
        reason = "what is cleaned may become a setting, as the names are"
    )]
    pub(crate) fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(first) = url(text) else {
            return text.into();
        };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut next = Some(first);
        while let Some(start) = next {
            let (head, tail) = rest.split_at(start + 3);
            out.push_str(head);
            let authority = tail.find(|c: char| c == '/' || c == '?' || c == '#' || c == '"' || c.is_whitespace());
            let authority = &tail[..authority.unwrap_or(tail.len())];
            rest = match authority.rfind('@') {
                Some(at) => {
                    out.push_str(REDACTED);
                    &tail[at..]
                }
                None => tail,
            };
            next = url(rest);
        }
        out.push_str(rest);
        out.into()
    }
}

/// Where `://` begins. Most texts have no colon at all, and looking for one byte is quick.
fn url(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b':', &text.as_bytes()[from..]) {
        let at = from + found;
        if text[at..].starts_with("://") {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The first `limit` bytes, cut between characters.
pub(crate) fn limited(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    //! Names and URLs.

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn telling_names_are_secret_in_any_case_and_anywhere() {
        let redact = Redact::new(&["Iban".to_owned()]);
        for name in [
            "password",
            "db.PassWord",
            "Authorization_header",
            "x-api-key",
            "set-cookie",
            "IBANs",
            "tOkEn",
        ] {
            assert!(redact.is_secret(name), "{name}");
        }
        for name in ["", "p", "status", "order_id", "pass", "tok", "ä", "cooking"] {
            assert!(!redact.is_secret(name), "{name}");
        }
        assert!(Redact::new(&["x".to_owned()]).is_secret("ax"), "one letter");
        assert!(Redact::new(&["ä".to_owned()]).is_secret("ä"), "beyond ASCII");
    }

    #[test]
    fn user_info_is_taken_out_of_every_url() {
        for (text, wanted) in [
            ("no url", "no url"),
            ("http://host/a@b", "http://host/a@b"),
            ("x://u:p@h and y://:p@h2/z", "x://[redacted]@h and y://[redacted]@h2/z"),
            ("://", "://"),
            ("a://u:p@w@h", "a://[redacted]@h"),
        ] {
            assert_eq!(Redact::default().clean(text), wanted);
        }
    }

    proptest! {
        #[test]
        fn the_quick_look_misses_nothing(name in "[a-zA-Z_.äé-]{0,12}(pass|TOKEN|tokäen|apikey|)[a-z]{0,4}") {
            let lower = name.to_ascii_lowercase();
            let expected = SECRET.iter().any(|part| lower.contains(part));
            prop_assert_eq!(Redact::default().is_secret(&name), expected);
        }
    }
}
