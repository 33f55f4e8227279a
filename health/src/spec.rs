//! How a check's answers are to be taken: its name, role and times. What they make of the service is `state`.

use std::fmt;
use std::time::Duration;

use crate::builder::BuildError;
use crate::check::Check;
use crate::settings::CheckSettings;

/// A check with its name, role and times. Made by [`Spec::critical`], [`Spec::degraded`], [`Spec::informative`].
pub struct Spec {
    pub(crate) name: String,
    pub(crate) check: Box<dyn Check>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) slow_while: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    role: Role,
    scope: Scope,
    on_down: Option<OnDown>,
    required_at_start: Option<bool>,
    down_after: u32,
    up_after: u32,
}

/// What a check means for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The service cannot start without it. What its failure means later is said by [`OnDown`].
    Critical,
    /// The service works worse without it; it never keeps traffic away.
    Degraded,
    /// Shown and measured, without effect on the service's state.
    Informative,
}

/// Whose the thing is that a check asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This instance's alone: its disk, its memory, its queue. Others can take its traffic.
    Local,
    /// All instances': a database, a broker. No other instance is better off.
    Shared,
}

/// What the failure of a critical check means once the service has been ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// Keep the traffic and say `degraded`: right for what all instances share, since taking all of them out of
    /// balance turns a brown-out into an outage. The default of [`Scope::Shared`].
    Degrade,
    /// Take this instance out of balance: right for what it has for itself. The default of [`Scope::Local`].
    NotReady,
}

impl Spec {
    fn new(name: impl Into<String>, role: Role, check: impl Check) -> Self {
        Self {
            name: name.into(),
            check: Box::new(check),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            slow_while: None,
            role,
            scope: Scope::Shared,
            on_down: None,
            required_at_start: None,
            down_after: 3,
            up_after: 2,
        }
    }

    /// A check that must pass before the service is ready. Once it was, a failure of what is shared degrades the
    /// service, and a failure of what is local takes it out of balance; see [`Spec::scope`] and [`Spec::on_down`].
    pub fn critical(name: impl Into<String>, check: impl Check) -> Self {
        Self::new(name, Role::Critical, check)
    }

    /// A check whose failure degrades the service.
    pub fn degraded(name: impl Into<String>, check: impl Check) -> Self {
        Self::new(name, Role::Degraded, check)
    }

    /// A check that is shown and measured only.
    pub fn informative(name: impl Into<String>, check: impl Check) -> Self {
        Self::new(name, Role::Informative, check)
    }

    /// Whose the thing is. Default [`Scope::Shared`].
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// What the failure of a critical check means after the start. Default: by its [`Spec::scope`].
    #[must_use]
    pub fn on_down(mut self, on_down: OnDown) -> Self {
        self.on_down = Some(on_down);
        self
    }

    /// Whether the service is not ready before this has passed. Default: critical checks are required, others not.
    #[must_use]
    pub fn required_at_start(mut self, required: bool) -> Self {
        self.required_at_start = Some(required);
        self
    }

    /// Time between two runs, spread by 20 %, at most a day. Default 10 s; 1 s (or less, if this is less) until the
    /// first success.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Time that one run may take; must be less than the interval. Default 1 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Failures in a row that make it fail. Default 3.
    #[must_use]
    pub fn down_after(mut self, failures: u32) -> Self {
        self.down_after = failures;
        self
    }

    /// Successes in a row that make it pass again. Default 2.
    #[must_use]
    pub fn up_after(mut self, successes: u32) -> Self {
        self.up_after = successes;
        self
    }

    /// The interval is three times as long while this says so: give it an open breaker, and the dependency that the
    /// breaker spares is spared by its check too. Asked after each run; it must not block.
    #[must_use]
    pub fn slow_while(mut self, slow: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.slow_while = Some(Box::new(slow));
        self
    }

    /// With what the settings say of it.
    pub(crate) fn with(mut self, settings: &CheckSettings) -> Self {
        if let Some(role) = settings.kind.filter(|role| *role != self.role) {
            self.role = role;
            // What the service said of it in its other role.
            self.on_down = None;
            self.required_at_start = None;
        }
        self.scope = settings.scope.unwrap_or(self.scope);
        self.on_down = settings.on_down.or(self.on_down);
        self.required_at_start = settings.required_at_start.or(self.required_at_start);
        self.interval = settings.interval.unwrap_or(self.interval);
        self.timeout = settings.timeout.unwrap_or(self.timeout);
        self.down_after = settings.failures.unwrap_or(self.down_after);
        self.up_after = settings.successes.unwrap_or(self.up_after);
        self
    }

    /// The rule of its answers, if all it says makes sense together.
    pub(crate) fn rule(&self) -> Result<Rule, BuildError> {
        let refuse =
            |key: &str, problem: &str| BuildError::setting(format!("health.checks.{}.{key}", self.name), problem);
        if self.interval.is_zero() || self.interval > LONGEST_INTERVAL {
            return Err(refuse("interval", "it must be above zero and at most a day"));
        }
        if self.timeout.is_zero() || self.timeout >= self.interval {
            let problem = format!(
                "it must be above zero and less than the interval of {:?}",
                self.interval
            );
            return Err(refuse("timeout", &problem));
        }
        if self.down_after == 0 {
            return Err(refuse("failures", "it must be at least 1"));
        }
        if self.up_after == 0 {
            return Err(refuse("successes", "it must be at least 1"));
        }
        if self.on_down.is_some() && self.role != Role::Critical {
            return Err(refuse("on_down", "only a critical check can say it"));
        }
        if self.required_at_start == Some(true) && self.role == Role::Informative {
            return Err(refuse(
                "required_at_start",
                "an informative check has no effect on the start",
            ));
        }
        let by_scope = match self.scope {
            Scope::Local => OnDown::NotReady,
            Scope::Shared => OnDown::Degrade,
        };
        Ok(Rule {
            role: self.role,
            on_down: self.on_down.unwrap_or(by_scope),
            required: self.required_at_start.unwrap_or(self.role == Role::Critical),
            down_after: self.down_after,
            up_after: self.up_after,
        })
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Longer ones would be no supervision any more.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How a check's answers are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) role: Role,
    pub(crate) on_down: OnDown,
    pub(crate) required: bool,
    pub(crate) down_after: u32,
    pub(crate) up_after: u32,
}
