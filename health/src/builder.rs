//! [`HealthBuilder`]: the description of a service's health, and whether it makes sense. What runs then is `schedule`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, Entry, Group, Probe};
use crate::check::Check;
use crate::health::Health;
use crate::listener::Listener;
use crate::live::{Beat, Heartbeat};
use crate::schedule::{Lanes, look, run_check};
use crate::settings::{DetailsListener, Settings, as_variable};
use crate::spec::Spec;
use crate::state::Record;

/// Paths under `/health/` and names of grpc.health.v1 that are ours.
const TAKEN: [&str; 6] = ["live", "ready", "startup", "details", "liveness", "readiness"];
/// How often the runtime shows that it runs, when probes have a thread of their own.
const BEAT: Duration = Duration::from_secs(1);
/// How long the runtime may stand still.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Describes the health of a service; see [`Health::builder`].
#[derive(Default)]
pub struct HealthBuilder {
    specs: Vec<Spec>,
    liveness: Vec<Liveness>,
    groups: Vec<(String, Vec<String>)>,
    services: Vec<(String, Option<String>)>,
    listen: Option<SocketAddr>,
    standstill: Option<Duration>,
    settings: Settings,
}

/// A liveness check.
pub(crate) struct Liveness {
    pub(crate) name: String,
    pub(crate) check: Box<dyn Fn() -> Beat + Send + Sync>,
}

impl HealthBuilder {
    /// A check with its own times and rules.
    #[must_use]
    pub fn check(mut self, spec: Spec) -> Self {
        self.specs.push(spec);
        self
    }

    /// [`Spec::critical`] with the default times.
    #[must_use]
    pub fn critical(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check(Spec::critical(name, check))
    }

    /// [`Spec::degraded`] with the default times.
    #[must_use]
    pub fn degraded(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check(Spec::degraded(name, check))
    }

    /// [`Spec::informative`] with the default times.
    #[must_use]
    pub fn informative(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check(Spec::informative(name, check))
    }

    /// A liveness check: `Dead` means that only a restart helps. It runs inside each liveness probe, so it must return at
    /// once; it is synchronous so that no network call fits in. See also [`Heartbeat`].
    #[must_use]
    pub fn liveness(mut self, name: impl Into<String>, check: impl Fn() -> Beat + Send + Sync + 'static) -> Self {
        self.liveness.push(Liveness {
            name: name.into(),
            check: Box::new(check),
        });
        self
    }

    /// A group of checks, answered at `/health/NAME`: `fail` when a critical one of them fails, `warn` when another one
    /// does. It tells of the checks alone, not of the service's life.
    #[must_use]
    pub fn group<N: Into<String>>(mut self, name: impl Into<String>, checks: impl IntoIterator<Item = N>) -> Self {
        self.groups
            .push((name.into(), checks.into_iter().map(Into::into).collect()));
        self
    }

    /// A name that grpc.health.v1 knows besides `""`, `readiness`, `liveness` and `startup`: the full name of a service
    /// that is served. It follows readiness.
    #[must_use]
    pub fn grpc_name(mut self, service: impl Into<String>) -> Self {
        self.services.push((service.into(), None));
        self
    }

    /// A name that grpc.health.v1 knows and that follows a group while the service takes traffic.
    #[must_use]
    pub fn grpc_name_of_group(mut self, service: impl Into<String>, group: impl Into<String>) -> Self {
        self.services.push((service.into(), Some(group.into())));
        self
    }

    /// Answers probes, HTTP and gRPC without TLS, on `address` by a thread of its own. A runtime that stands still (a task
    /// that blocks, a deadlock) can then not keep probes waiting: they are answered in time, liveness with `fail` once the
    /// runtime has stood still for ten seconds, or as long as [`HealthBuilder::standstill`] says. The setting
    /// `health.listen` is the same and wins.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// How long the runtime may stand still before liveness fails, with [`HealthBuilder::listen`]. Default 10 s.
    #[must_use]
    pub fn standstill(mut self, limit: Duration) -> Self {
        self.standstill = Some(limit);
        self
    }

    /// What an operator says; it goes before what the service says.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Starts the checks, and the listener if there is to be one. Until every required check has passed, the service is
    /// not ready. Needs a runtime.
    ///
    /// # Errors
    /// A name twice, settings that make no sense (named by their key), an address that cannot be listened on, no runtime.
    pub fn build(self) -> Result<Health, BuildError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let settings = self.settings;
        let names: Vec<String> = self.specs.iter().map(|spec| spec.name.clone()).collect();
        check_names(&names, &settings)?;
        let mut entries = Vec::new();
        for spec in self.specs {
            let (name, variable) = (spec.name.clone(), as_variable(&spec.name));
            let said = settings
                .checks
                .iter()
                .find(|(key, _)| **key == name || **key == variable);
            let spec = match said {
                Some((_, said)) => spec.with(said),
                None => spec,
            };
            let record = Record::new(spec.rule()?);
            let entry = Entry {
                name: spec.name,
                check: spec.check,
                interval: spec.interval,
                timeout: spec.timeout,
                slow_while: spec.slow_while,
            };
            entries.push((entry, record));
        }
        let groups = resolve(self.groups.into_iter().chain(settings.groups), &names)?;
        let mut services = Vec::new();
        for (service, group) in self.services {
            let probe = match group {
                None => Probe::Ready,
                Some(name) => {
                    let place = groups.iter().position(|group| group.name == name);
                    Probe::Group(place.ok_or(BuildError::NoSuchGroup { name })?)
                }
            };
            services.push((service, probe));
        }
        let token = match (settings.details.listener, settings.details.token) {
            (DetailsListener::Admin, _) => None,
            (DetailsListener::All, Some(token)) if token.0.len() >= 16 => Some(token),
            (DetailsListener::All, Some(_)) => {
                return Err(BuildError::setting(
                    "health.details.token_env",
                    "the token is shorter than 16 characters",
                ));
            }
            (DetailsListener::All, None) => {
                let problem = "details on the listeners of probes need a token, and the variable named here has none";
                return Err(BuildError::setting("health.details.token_env", problem));
            }
        };

        let mut liveness = self.liveness;
        let listen = settings.listen.or(self.listen);
        let pulse = listen.map(|_| Heartbeat::new(self.standstill.unwrap_or(STANDSTILL)));
        if let Some(pulse) = pulse.clone() {
            liveness.push(Liveness {
                name: "runtime".to_owned(),
                check: Box::new(move || pulse.check()),
            });
        }
        let board = Arc::new(Board::new(entries, liveness, groups, services, token));
        let listener = match listen {
            // It has a handle of its own, which keeps no checks alive.
            Some(address) => Some(
                Listener::start(address, &Health::new(Arc::clone(&board)))
                    .map_err(|source| BuildError::Listen { address, source })?,
            ),
            None => None,
        };
        let lanes = Arc::new(Lanes::new());
        let mut tasks: Vec<_> = (0..board.entries.len())
            .map(|index| runtime.spawn(run_check(Arc::clone(&board), index, Arc::clone(&lanes))))
            .collect();
        tasks.push(runtime.spawn(look(Arc::clone(&board))));
        if let Some(pulse) = pulse {
            tasks.push(runtime.spawn(async move {
                loop {
                    pulse.beat();
                    tokio::time::sleep(BEAT.min(pulse.limit() / 3)).await;
                }
            }));
        }
        let health = Health::new(board);
        health.keep(tasks, listener);
        Ok(health)
    }
}

/// Every name is usable and there once, and the settings name none that is not there.
fn check_names(names: &[String], settings: &Settings) -> Result<(), BuildError> {
    for (place, name) in names.iter().enumerate() {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic() && !"\"\\{}".contains(c)) {
            return Err(BuildError::Name { name: name.clone() });
        }
        if names.iter().take(place).any(|other| other == name) {
            return Err(BuildError::NameTwice { name: name.clone() });
        }
    }
    for key in settings.checks.keys() {
        if !names.iter().any(|name| name == key || as_variable(name) == *key) {
            let problem = format!("there is no such check; there are: {}", names.join(", "));
            return Err(BuildError::setting(format!("health.checks.{key}"), problem));
        }
    }
    Ok(())
}

/// Groups by the places of their checks.
fn resolve(groups: impl Iterator<Item = (String, Vec<String>)>, names: &[String]) -> Result<Vec<Group>, BuildError> {
    let mut resolved: Vec<Group> = Vec::new();
    for (name, checks) in groups {
        let refuse = |problem: String| BuildError::setting(format!("health.groups.{name}"), problem);
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        {
            return Err(refuse(
                "a group's name has lower-case letters, digits, - and _ alone".to_owned(),
            ));
        }
        if TAKEN.contains(&name.as_str()) || resolved.iter().any(|group| group.name == name) {
            return Err(refuse("this name is taken".to_owned()));
        }
        if checks.is_empty() {
            return Err(refuse("it has no check".to_owned()));
        }
        let place = |check: &String| {
            let found = names.iter().position(|name| name == check);
            found.ok_or_else(|| refuse(format!("there is no check {check}; there are: {}", names.join(", "))))
        };
        let members = checks.iter().map(place).collect::<Result<_, _>>()?;
        resolved.push(Group { name, members });
    }
    Ok(resolved)
}

/// Why a [`HealthBuilder`] was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two checks have one name.
    #[error("there are two checks named {name}")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A check's name could not stand in a metric or a path.
    #[error("{name:?} is no name for a check: it has printable ASCII characters without spaces, quotes and braces")]
    Name {
        /// The name.
        name: String,
    },
    /// A name of grpc.health.v1 follows a group that is not there.
    #[error("there is no group {name}")]
    NoSuchGroup {
        /// The group.
        name: String,
    },
    /// A setting makes no sense, or not together with the others.
    #[error("{key}: {problem}")]
    Setting {
        /// Its key, whether it was set in code, TOML or the environment: `health.checks.db.timeout`.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The address for probes cannot be listened on.
    #[error("health.listen: cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Checks are tasks.
    #[error("health checks need a tokio runtime")]
    NoRuntime,
}

impl BuildError {
    pub(crate) fn setting(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Setting {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Debug for HealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBuilder")
            .field("checks", &self.specs)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
