//! What an operator says about the database: its URL, how many connections, how old they get. Nothing that is said or
//! shown here contains the URL, since the password is part of it.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::start::Misconfigured;

/// How long the server lets a statement run, and wait for a lock, and how long it keeps a transaction that does nothing.
const LIMITS: &str = "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s";
/// How long a connection may be silent before it is asked whether it lives, and how long what was sent may go
/// unacknowledged.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What a URL looks like.
const FORM: &str = "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, with reserved characters as %XX";

/// How the database is reached.
#[derive(Clone)]
pub struct Settings {
    pub(super) config: Box<Config>,
    pub(super) connections: usize,
    pub(super) max_age: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        f.debug_struct("Settings")
            .field("hosts", &hosts)
            .field("database", &self.config.get_dbname())
            .field("connections", &self.connections)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// For `service`, from environment variables: `DATABASE_URL`, or `DATABASE_URL_FILE` with the same in a file;
    /// `DATABASE_CONNECTIONS`, the most at one time (default 10); `DATABASE_CONNECTION_AGE`, after which one is made anew
    /// (default `1m`). `None` when there is no URL.
    pub fn read(service: &str, read: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Misconfigured> {
        let text = |name: &'static str| {
            read(name)
                .map(|value| value.into_string().map_err(|_| wrong(name, "is not UTF-8")))
                .transpose()
        };
        let (name, url) = match (text("DATABASE_URL")?, text("DATABASE_URL_FILE")?) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "DATABASE_URL",
                    "stands beside DATABASE_URL_FILE: say one of them",
                ));
            }
            (Some(url), None) => ("DATABASE_URL", url),
            (None, Some(file)) => {
                let url = std::fs::read_to_string(Path::new(&file))
                    .map_err(|error| wrong("DATABASE_URL_FILE", &format!("`{file}` cannot be read: {error}")))?;
                ("DATABASE_URL_FILE", url.trim().to_owned())
            }
        };
        let connections = match text("DATABASE_CONNECTIONS")? {
            None => 10,
            Some(text) => match text.parse() {
                Ok(number @ 1..=1000) => number,
                _ => return Err(wrong("DATABASE_CONNECTIONS", "expected a number from 1 to 1000")),
            },
        };
        let max_age = match text("DATABASE_CONNECTION_AGE")? {
            None => Duration::from_mins(1),
            Some(text) => match humantime::parse_duration(&text) {
                Ok(age) if age >= Duration::from_secs(1) => age,
                _ => {
                    return Err(wrong(
                        "DATABASE_CONNECTION_AGE",
                        "expected a time of at least 1s, such as 5m",
                    ));
                }
            },
        };
        Ok(Some(Self {
            config: Box::new(config(service, name, &url)?),
            connections,
            max_age,
        }))
    }
}

fn config(service: &str, name: &str, url: &str) -> Result<Config, Misconfigured> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong(name, FORM));
    }
    if ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"]
        .iter()
        .any(|mode| url.contains(mode))
    {
        return Err(wrong(
            name,
            "asks for TLS (sslmode), which this build does not speak to databases: say sslmode=disable, on a network \
             that may see the traffic",
        ));
    }
    // What the parser says may quote the password.
    let mut config: Config = url.parse().map_err(|_| wrong(name, FORM))?;
    if config.get_hosts().is_empty() || config.get_user().is_none() {
        return Err(wrong(name, FORM));
    }
    config.ssl_mode(SslMode::Disable);
    if config.get_application_name().is_none() {
        config.application_name(service);
    }
    // What the URL says comes later, and wins.
    let options = config
        .get_options()
        .map_or(LIMITS.to_owned(), |own| format!("{LIMITS} {own}"));
    config
        .options(options)
        .keepalives_idle(KEEPALIVE)
        .tcp_user_timeout(KEEPALIVE);
    Ok(config)
}

fn wrong(name: &str, why: &str) -> Misconfigured {
    Misconfigured(format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "postgres://shop:hunter2@db.internal:6432/orders";

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, Misconfigured> {
        Settings::read("orders", |name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).into())
        })
    }

    #[test]
    fn a_url_is_enough_and_may_stand_in_a_file() {
        assert!(read(&[("DATABASE_CONNECTIONS", "5")]).unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, format!("{URL}\n")).unwrap();
        for variables in [("DATABASE_URL", URL), ("DATABASE_URL_FILE", file.to_str().unwrap())] {
            let settings = read(&[variables, ("DATABASE_CONNECTION_AGE", "5m")]).unwrap().unwrap();
            assert_eq!((settings.connections, settings.max_age), (10, Duration::from_mins(5)));
            assert_eq!(settings.config.get_dbname(), Some("orders"));
            assert_eq!(settings.config.get_application_name(), Some("orders"));
            let shown = format!("{settings:?}");
            assert!(shown.contains("db.internal") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_without_the_url() {
        for (variables, names) in [
            (&[("DATABASE_URL", "")][..], "DATABASE_URL: expected postgres://"),
            (
                &[("DATABASE_URL", "mysql://shop:hunter2@db/orders")],
                "expected postgres://",
            ),
            (
                &[("DATABASE_URL", "postgres://shop:hunter2@db/orders?hunter2=1")],
                "expected postgres://",
            ),
            (
                &[("DATABASE_URL", "postgres:///orders?password=hunter2")],
                "expected postgres://",
            ),
            (
                &[("DATABASE_URL", "postgres://shop:hunter2@db/orders?sslmode=require")],
                "TLS",
            ),
            (
                &[("DATABASE_URL", "postgres://shop:hunter2@db/orders?sslmode=verify-full")],
                "TLS",
            ),
            (&[("DATABASE_URL", URL), ("DATABASE_URL_FILE", "x")], "say one of them"),
            (
                &[("DATABASE_URL_FILE", "/no/such/file")],
                "`/no/such/file` cannot be read",
            ),
            (&[("DATABASE_URL", URL), ("DATABASE_CONNECTIONS", "0")], "1 to 1000"),
            (
                &[("DATABASE_URL", URL), ("DATABASE_CONNECTION_AGE", "0s")],
                "at least 1s",
            ),
        ] {
            let error = read(variables).unwrap_err().to_string();
            assert!(
                error.contains(names) && !error.contains("hunter2"),
                "{variables:?}: {error}"
            );
        }
    }
}
