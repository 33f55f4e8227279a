//! How a service calls its peers, as TOML: the text that is compiled in, or the file that was named in its place. And a
//! breaker's state as a health check. What a policy does is `resilience`'s matter; the service calls it itself.

use std::path::Path;
use std::time::Duration;

use health::{BreakerCheck, Circuit, Spec};
use resilience::{Breaker, Pipeline, PipelineSettings, State};
use telemetry::{PolicyEvents, Telemetry};

use crate::start::Misconfigured;

/// A text of `[policy.NAME]` tables, and where it comes from.
#[derive(Debug, Clone)]
pub struct Policies {
    text: String,
    origin: String,
    events: PolicyEvents,
}

impl Policies {
    /// The file, if one is named, as a whole in place of the text that is compiled in. What happens in the policies is
    /// told in the log and the spans of `telemetry`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(telemetry: &Telemetry, compiled_in: &str, file: Option<&Path>) -> Result<Self, Misconfigured> {
        let events = telemetry.policy_events();
        let Some(file) = file else {
            return Ok(Self {
                text: compiled_in.to_owned(),
                origin: "the policies that are compiled in".to_owned(),
                events,
            });
        };
        let origin = format!("POLICIES_FILE={}", file.display());
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Self { text, origin, events }),
            Err(error) => Err(Misconfigured(format!("{origin}: it cannot be read: {error}"))),
        }
    }

    /// The policy `[policy.NAME]`.
    ///
    /// # Errors
    /// No such table, an unknown key or a value that makes no sense; the message says which and why.
    pub fn policy(&self, name: &str) -> Result<Pipeline, Misconfigured> {
        let built = PipelineSettings::from_toml(&self.text, name).and_then(|settings| {
            let policy = Pipeline::from_settings(name, settings).listener(self.events.clone());
            Ok(policy.build()?)
        });
        built.map_err(|error| {
            let mut told = format!("{}: {error}", self.origin);
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                told.push_str(": ");
                told.push_str(&error.to_string());
                cause = error.source();
            }
            // The parser draws the line over several lines.
            Misconfigured(told.split_whitespace().collect::<Vec<_>>().join(" "))
        })
    }
}

/// The breaker's state as the check `breaker:NAME`: it reads memory, asks nobody, and degrades the service at once while
/// calls are refused; a service that works without one of its peers still takes traffic. One that a person forced closed
/// is a warning. A policy without a breaker always passes.
pub fn breaker_check(policy: &Pipeline) -> Spec {
    let (name, policy) = (format!("breaker:{}", policy.name()), policy.clone());
    let check = BreakerCheck::new(move || match policy.breaker().map_or(State::Closed, Breaker::state) {
        State::Closed => Circuit::Closed,
        State::HalfOpen => Circuit::HalfOpen,
        State::Open => Circuit::Open,
        State::ForcedOpen => Circuit::ForcedOpen,
        State::ForcedClosed => Circuit::ForcedClosed,
    });
    Spec::degraded(name, check.fail_when_open())
        .interval(Duration::from_secs(1))
        .timeout(Duration::from_millis(500))
        .down_after(1)
        .up_after(1)
}

#[cfg(test)]
mod tests {
    use health::Health;

    use super::*;

    const TEXT: &str =
        "[policy.payments]\ntimeout = { total = \"4s\", attempt = \"1s\" }\nbreaker = { open = \"1s\" }\n";

    #[test]
    fn a_file_stands_in_the_place_of_what_is_compiled_in() {
        let telemetry = Telemetry::test();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policies.toml");
        std::fs::write(&file, "[policy.other]\n").unwrap();
        let compiled = Policies::read(&telemetry, TEXT, None).unwrap();
        assert_eq!(compiled.policy("payments").unwrap().name(), "payments");
        let named = Policies::read(&telemetry, TEXT, Some(&file)).unwrap();
        assert_eq!(named.policy("other").unwrap().name(), "other");
        let error = named.policy("payments").unwrap_err().to_string();
        assert!(
            error.contains("policies.toml: there is no [policy.payments]"),
            "{error}"
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_key_on_one_line() {
        let telemetry = Telemetry::test();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policies.toml");
        for (text, words) in [
            (
                "[policy.payments]\ntimeot = { total = \"4s\" }\n",
                "unknown field `timeot`",
            ),
            ("[policy.payments]\ntimeout = { total = \"soon\" }\n", "line 2"),
            (
                "[policy.payments]\ntimeout = { total = \"1s\", attempt = \"2s\" }\n",
                "timeout.attempt",
            ),
            (
                "[policy.payments]\nbreaker = { failure_ratio = 0.0 }\n",
                "breaker.failure_ratio",
            ),
            ("[policy.payments\n", "line 1"),
        ] {
            std::fs::write(&file, text).unwrap();
            let policies = Policies::read(&telemetry, TEXT, Some(&file)).unwrap();
            let error = policies.policy("payments").unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("POLICIES_FILE="),
                "{words:?} is not in {error:?}"
            );
            assert!(!error.contains('\n'), "{error:?}");
        }
        let gone = Policies::read(&telemetry, TEXT, Some(&folder.path().join("gone"))).unwrap_err();
        assert!(gone.to_string().contains("it cannot be read"), "{gone}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_breaker_degrades_and_never_takes_the_service_out_of_balance() {
        let telemetry = Telemetry::test();
        let policy = Policies::read(&telemetry, TEXT, None)
            .unwrap()
            .policy("payments")
            .unwrap();
        let health = Health::builder().check(breaker_check(&policy)).build().unwrap();
        let breaker = policy.breaker().unwrap();
        let check = || health.snapshot().checks[0].clone();
        health.wait_until(|state| state == health::State::Ready).await;
        assert_eq!(check().name, "breaker:payments");
        for (step, state, status) in [
            (
                Breaker::force_open as fn(&Breaker),
                health::State::Degraded,
                health::Status::Fail,
            ),
            (Breaker::release, health::State::Ready, health::Status::Pass),
            (Breaker::force_closed, health::State::Degraded, health::Status::Warn),
            (Breaker::release, health::State::Ready, health::Status::Pass),
        ] {
            step(breaker);
            health.wait_until(|seen| seen == state).await;
            assert_eq!(check().status, status);
        }
    }
}
