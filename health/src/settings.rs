//! The settings `health.*`, from TOML and from the environment. What a service says in code is the default, TOML goes
//! before it, the environment before both. Whether they make sense for this service is checked by
//! [`HealthBuilder::build`](crate::HealthBuilder::build) and [`Lifecycle::install`](crate::Lifecycle::install).
//!
//! ```toml
//! [health]
//! listen = "0.0.0.0:8099"                      # HEALTH_LISTEN: probes on a thread of their own
//! drain = { delay = "5s", timeout = "18s" }    # DRAIN_DELAY, DRAIN_TIMEOUT; also flush and grace
//! details = { listener = "all", token_env = "HEALTH_TOKEN" }
//! groups = { paying = ["database", "payments"] }
//! [health.checks.database]                     # HEALTH_CHECKS__DATABASE__TIMEOUT=500ms
//! timeout = "500ms"
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Error as _, IntoDeserializer as _};
use serde::{Deserialize, Deserializer};

use crate::lifecycle::Drain;
use crate::spec::{OnDown, Role, Scope};

/// What an operator says of a service's health. Everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where probes are also answered, HTTP and gRPC without TLS, by a thread of their own; see
    /// [`HealthBuilder::listen`](crate::HealthBuilder::listen).
    pub listen: Option<SocketAddr>,
    /// Changes to checks, by the name that the service gave them. From the environment names come in upper case with `_`
    /// for what is neither letter nor digit; they match all the same.
    pub checks: BTreeMap<String, CheckSettings>,
    /// Groups of checks, each answered at `/health/NAME`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Times of the end: give them to [`Lifecycle::install`](crate::Lifecycle::install).
    pub drain: Drain,
    /// Who may see details.
    pub details: DetailsSettings,
}

/// What an operator says of one check; what is absent stays as the service said it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "each is the method of Spec that has its name; kind is its Role"
)]
pub struct CheckSettings {
    pub kind: Option<Role>,
    pub scope: Option<Scope>,
    #[serde(deserialize_with = "optional_length")]
    pub interval: Option<Duration>,
    #[serde(deserialize_with = "optional_length")]
    pub timeout: Option<Duration>,
    pub failures: Option<u32>,
    pub successes: Option<u32>,
    pub on_down: Option<OnDown>,
    pub required_at_start: Option<bool>,
}

/// Who may see `/health/details`. The admin listener always may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetailsSettings {
    /// Which listeners have the path.
    pub listener: DetailsListener,
    /// Name of the variable that holds the token for listeners other than the admin's; read by [`Settings::from_env`].
    pub token_env: Option<String>,
    /// The token itself, at least 16 characters.
    #[serde(skip)]
    pub token: Option<Token>,
}

/// Which listeners have `/health/details`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetailsListener {
    /// The admin listener, which looks after access itself.
    #[default]
    Admin,
    /// Also those that answer probes, for callers that show the token (`Authorization: Bearer …`).
    All,
}

/// A secret that a caller must show. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub(crate) String);

impl Token {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The text does not have the right form; the source says where.
    #[cfg(feature = "config")]
    #[error("the health settings cannot be read")]
    Text {
        /// Line, column and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A variable of the environment is unknown or has a value of the wrong form.
    #[error("{name}={text}: {problem}")]
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Settings {
    /// The table `[health]` of a TOML text; without one, the defaults. Other tables are not looked at.
    ///
    /// # Errors
    /// Text of the wrong form, unknown keys.
    #[cfg(feature = "config")]
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            health: Settings,
        }
        toml::from_str::<Document>(text)
            .map(|document| document.health)
            .map_err(|source| SettingsError::Text {
                source: Box::new(source),
            })
    }

    /// With what the environment says: `HEALTH_LISTEN`, `HEALTH_DETAILS_LISTENER`, `HEALTH_DETAILS_TOKEN_ENV` and the
    /// variable that it names, `HEALTH_CHECKS__NAME__KEY` for every key of a check, and the four of [`Drain::from_env`].
    ///
    /// # Errors
    /// A value of the wrong form, a key that no check has.
    pub fn from_env(self) -> Result<Self, SettingsError> {
        // A variable that is not Unicode is none of ours.
        let all =
            std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        self.with_variables(&all.collect())
    }

    fn with_variables(mut self, all: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        for (name, text) in all {
            let wrong = |problem: String| SettingsError::Variable {
                name: name.clone(),
                text: text.clone(),
                problem,
            };
            match name.as_str() {
                "HEALTH_LISTEN" => {
                    let problem = |_| wrong("it is no address such as 0.0.0.0:8099".to_owned());
                    self.listen = Some(text.parse().map_err(problem)?);
                }
                "HEALTH_DETAILS_LISTENER" => self.details.listener = word(text).map_err(wrong)?,
                "HEALTH_DETAILS_TOKEN_ENV" => self.details.token_env = Some(text.clone()),
                _ => {
                    if let Some(path) = name.strip_prefix("HEALTH_CHECKS__") {
                        let Some((check, key)) = path.split_once("__") else {
                            return Err(wrong("it must be HEALTH_CHECKS__NAME__KEY".to_owned()));
                        };
                        self.check(check).set(key, text).map_err(wrong)?;
                    }
                }
            }
        }
        self.drain.with_variables(|name| all.get(name).cloned())?;
        if let Some(name) = &self.details.token_env {
            self.details.token = all.get(name).map(Token::new);
        }
        Ok(self)
    }

    /// The entry of a check that the environment calls `variable`.
    fn check(&mut self, variable: &str) -> &mut CheckSettings {
        let name = self.checks.keys().find(|name| as_variable(name) == variable);
        let name = name.cloned().unwrap_or_else(|| variable.to_owned());
        self.checks.entry(name).or_default()
    }
}

impl CheckSettings {
    fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let number = |text: &str| text.parse::<u32>().map(Some).map_err(|error| error.to_string());
        match key {
            "KIND" => self.kind = Some(word(text)?),
            "SCOPE" => self.scope = Some(word(text)?),
            "ON_DOWN" => self.on_down = Some(word(text)?),
            "INTERVAL" => self.interval = Some(duration(text)?),
            "TIMEOUT" => self.timeout = Some(duration(text)?),
            "FAILURES" => self.failures = number(text)?,
            "SUCCESSES" => self.successes = number(text)?,
            "REQUIRED_AT_START" => {
                self.required_at_start = Some(text.parse().map_err(|_| "it must be true or false".to_owned())?);
            }
            _ => return Err(format!("a check has no key {}", key.to_lowercase())),
        }
        Ok(())
    }
}

/// A check's name as it stands in a variable: upper case, `_` for what is neither letter nor digit.
pub(crate) fn as_variable(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    name.chars().map(plain).collect()
}

/// One of an enum's words.
fn word<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    let deserializer: StrDeserializer<'a, ValueError> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|error| error.to_string())
}

/// A duration: seconds (`0.2`), or with a unit (`200ms`, `5s`, `1m`, `1h`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = units
        .iter()
        .find_map(|(unit, scale)| Some((trimmed.strip_suffix(unit)?, *scale)));
    let (number, scale) = unit.unwrap_or((trimmed, 1.0));
    number
        .trim()
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * scale).ok())
        .ok_or_else(|| "it is no duration such as 5s or 200ms".to_owned())
}

/// A duration as [`duration`] reads it, for fields of settings.
pub(crate) fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map_err(|problem| D::Error::custom(format!("{text}: {problem}")))
}

/// [`length`] for a field that may be absent.
fn optional_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    length(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(all: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let all = all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let mut settings = Settings::default();
        settings.checks.insert("my-db".to_owned(), CheckSettings::default());
        settings.with_variables(&all.collect())
    }

    #[test]
    fn the_environment_says_everything_and_reaches_checks_by_their_names() {
        let settings = variables(&[
            ("HEALTH_LISTEN", "127.0.0.1:9"),
            ("HEALTH_DETAILS_LISTENER", "all"),
            ("HEALTH_DETAILS_TOKEN_ENV", "MY_TOKEN"),
            ("MY_TOKEN", "hidden"),
            ("DRAIN_DELAY", "1m"),
            ("DRAIN_FLUSH", "0.5"),
            ("HEALTH_CHECKS__MY_DB__TIMEOUT", "200ms"),
            ("HEALTH_CHECKS__MY_DB__ON_DOWN", "not_ready"),
            ("HEALTH_CHECKS__OTHER__FAILURES", "7"),
            (
                "HEALTH_CHECK_PORT",
                "what Kubernetes says of a service called health-check",
            ),
        ])
        .unwrap();
        assert_eq!(settings.listen, Some("127.0.0.1:9".parse().unwrap()));
        assert_eq!(settings.details.token, Some(Token::new("hidden")));
        assert!(!format!("{settings:?}").contains("hidden"));
        assert_eq!(settings.drain.delay, Duration::from_secs(60));
        assert_eq!(settings.drain.flush, Duration::from_millis(500));
        let check = &settings.checks["my-db"];
        assert_eq!(
            (check.timeout, check.on_down),
            (Some(Duration::from_millis(200)), Some(OnDown::NotReady))
        );
        assert_eq!(settings.checks["OTHER"].failures, Some(7));
    }

    #[test]
    fn a_wrong_variable_is_told_by_its_name() {
        for (name, text, problem) in [
            ("HEALTH_LISTEN", "8080", "no address"),
            ("HEALTH_DETAILS_LISTENER", "public", "unknown variant"),
            ("DRAIN_TIMEOUT", "soon", "no duration"),
            ("DRAIN_DELAY", "-1s", "no duration"),
            ("HEALTH_CHECKS__DB", "1", "HEALTH_CHECKS__NAME__KEY"),
            ("HEALTH_CHECKS__DB__KIND", "vital", "unknown variant"),
            ("HEALTH_CHECKS__DB__COLOUR", "red", "no key colour"),
            ("HEALTH_CHECKS__DB__FAILURES", "-1", "invalid digit"),
        ] {
            let error = variables(&[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(problem), "{error}");
        }
    }

    #[cfg(feature = "config")]
    #[test]
    fn toml_says_the_same_and_knows_its_keys() {
        let settings = Settings::from_toml(
            r#"
            [other]
            x = 1
            [health]
            listen = "0.0.0.0:8099"
            drain = { delay = "2s", grace = "40s" }
            details = { listener = "all", token_env = "T" }
            groups = { paying = ["db"] }
            [health.checks.db]
            kind = "critical"
            scope = "local"
            interval = "5s"
            timeout = "500ms"
            failures = 2
            successes = 1
            on_down = "degrade"
            required_at_start = false
            "#,
        )
        .unwrap();
        assert_eq!(settings.drain.delay, Duration::from_secs(2));
        assert_eq!(settings.drain.timeout, Drain::default().timeout);
        assert_eq!(settings.checks["db"].scope, Some(Scope::Local));
        assert_eq!(settings.groups["paying"], ["db"]);
        assert_eq!(Settings::from_toml("").unwrap(), Settings::default());
        for wrong in [
            "[health]\nport = 1",
            "[health.drain]\nwait = \"1s\"",
            "[health.checks.db]\nretries = 1",
            "[health.details]\ntoken = \"secret\"",
            "[health.drain]\ndelay = \"soon\"",
        ] {
            assert!(Settings::from_toml(wrong).is_err(), "{wrong}");
        }
    }
}
