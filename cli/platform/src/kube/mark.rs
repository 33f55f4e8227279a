//! What marks a request for the canary, whatever its share: a header or a cookie with a value that its testers know. How
//! a route tells it apart is in `split`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longer names and values are refused.
const LONGEST: usize = 128;
/// What headers are called that everybody sends, or that proxies need.
const TAKEN: [&str; 4] = ["x-forwarded-", "x-real-ip", "x-request-id", "x-envoy-"];

/// `header:NAME=VALUE` or `cookie:NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mark {
    /// Where a request has it.
    pub carrier: Carrier,
    /// The name of the header, in lower case, or of the cookie.
    pub name: String,
    /// Its whole value.
    pub value: String,
}

/// Where a request has its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A header. It is taken off requests with another value, so that nobody behind the route is fooled.
    Header,
    /// A cookie.
    Cookie,
}

/// Why a text is no mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// It has another form.
    #[error("`{0}` is no mark: expected header:NAME=VALUE or cookie:NAME=VALUE")]
    Form(String),
    /// The name cannot be one.
    #[error("`{0}` is no name of a header or cookie")]
    Name(String),
    /// The header is taken off requests without the mark.
    #[error(
        "`{0}` cannot be a mark: it is taken off all other requests, so use a header of your own, such as x-canary"
    )]
    Header(String),
    /// The value has characters that headers or cookies cannot have.
    #[error("`{0}` cannot be the value of a mark: expected up to 128 visible characters without , ; \" \\")]
    Value(String),
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let form = || MarkError::Form(text.to_owned());
        let (carrier, rest) = text.split_once(':').ok_or_else(form)?;
        let (name, value) = rest.split_once('=').ok_or_else(form)?;
        let carrier = match carrier {
            "header" => Carrier::Header,
            "cookie" => Carrier::Cookie,
            _ => return Err(form()),
        };
        let in_name = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(in_name) {
            return Err(MarkError::Name(name.to_owned()));
        }
        let in_value = |c: char| c.is_ascii_graphic() && !",;\"\\".contains(c);
        if value.is_empty() || value.len() > LONGEST || !value.chars().all(in_value) {
            return Err(MarkError::Value(value.to_owned()));
        }
        let name = match carrier {
            Carrier::Header => name.to_ascii_lowercase(),
            Carrier::Cookie => name.to_owned(),
        };
        let is_taken = !name.starts_with("x-") || TAKEN.iter().any(|taken| name.starts_with(taken));
        if carrier == Carrier::Header && is_taken {
            return Err(MarkError::Header(name));
        }
        Ok(Self {
            carrier,
            name,
            value: value.to_owned(),
        })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carrier = match self.carrier {
            Carrier::Header => "header",
            Carrier::Cookie => "cookie",
        };
        write!(f, "{carrier}:{}={}", self.name, self.value)
    }
}

impl TryFrom<String> for Mark {
    type Error = MarkError;

    fn try_from(text: String) -> Result<Self, MarkError> {
        text.parse()
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_written_as_it_is_read() {
        let mark: Mark = "header:X-Canary=k.7=".parse().expect("a mark");
        assert_eq!((mark.name.as_str(), mark.value.as_str()), ("x-canary", "k.7="));
        assert_eq!(mark.to_string(), "header:x-canary=k.7=");
        let mark: Mark = "cookie:Tester=yes".parse().expect("a mark");
        assert_eq!((mark.carrier, mark.name.as_str()), (Carrier::Cookie, "Tester"));
        let text = serde_json::to_string(&mark).expect("a string");
        assert_eq!(serde_json::from_str::<Mark>(&text).expect("a mark"), mark);
    }

    #[test]
    fn what_would_harm_other_requests_or_can_never_match_is_none() {
        let refused = |text: &str| text.parse::<Mark>().expect_err(text);
        for text in ["", "x-canary=k", "header:x-canary", "query:canary=1"] {
            assert!(matches!(refused(text), MarkError::Form(_)), "{text}");
        }
        for text in ["header:cookie=k", "header:Authorization=k", "header:x-request-id=k"] {
            assert!(matches!(refused(text), MarkError::Header(_)), "{text}");
        }
        assert!(matches!(refused("cookie:a b=k"), MarkError::Name(_)));
        for text in ["cookie:a=", "cookie:a=b;c", "header:x-a=b c"] {
            assert!(matches!(refused(text), MarkError::Value(_)), "{text}");
        }
    }
}
