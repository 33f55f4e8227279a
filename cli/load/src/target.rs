//! The address that load is sent to. Not a general URL library: `http` with a host, a port and a path.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use crate::plan::LoadError;

/// An `http://` URL, split into what connecting and the request line need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// The host to resolve: a name or an address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 unless the URL has one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the `host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same place, asked for by another name: what a gateway tells its services apart by.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.authority);
        self
    }

    /// Path and query, at least `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for Target {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        let invalid = |reason| LoadError::InvalidTarget {
            text: text.to_owned(),
            reason,
        };
        let uri: Uri = text.parse().map_err(|_| invalid("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(invalid("TLS is not supported yet; use an http:// address"));
            }
            _ => return Err(invalid("it must begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| invalid("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("a user name and password in a URL are not sent"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(invalid("it has no host"));
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(invalid("port 0 cannot be connected to")),
            Some(port) => port,
            None if authority.as_str().len() > host.len() => {
                return Err(invalid("the port is no number up to 65535"));
            }
            None => 80,
        };
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_what_it_accepts_and_says_why_it_refuses() {
        let target: Target = "http://[::1]:8080/a?b=c".parse().expect("valid");
        assert_eq!((target.host(), target.port(), target.path()), ("::1", 8080, "/a?b=c"));
        assert_eq!(target.authority(), "[::1]:8080");
        let target: Target = "http://localhost".parse().expect("valid");
        assert_eq!((target.host(), target.port(), target.path()), ("localhost", 80, "/"));
        assert_eq!(target.to_string(), "http://localhost/");
        for (text, part) in [
            ("https://localhost/", "TLS"),
            ("localhost:80", "http://"),
            ("ftp://localhost", "http://"),
            ("http://u:p@localhost/", "password"),
            ("http://localhost:0/", "port 0"),
            ("http://", "URL"),
            ("http://local host/", "URL"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
