//! The unit of change: one field of one object, and the answer of a compare-and-set. Not the stores that hold them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One value that a run may change: an object and a JSON pointer (RFC 6901) into it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Field {
    /// `service/<name>`, `node/<name>`, `secret/<namespace>/<name>`.
    pub object: String,
    /// `/stable_version`, `/versions/<v>`, `/versions/<v>/replicas`, `/canary`, `/hold`, `/fault`, `/cut` …
    pub pointer: String,
}

impl Field {
    /// A field by object and pointer.
    pub fn new(object: impl Into<String>, pointer: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            pointer: pointer.into(),
        }
    }

    /// Which version gets the traffic that no canary takes: a string.
    pub fn stable_version(service: &str) -> Self {
        Self::new(format!("service/{service}"), "/stable_version")
    }

    /// A version that runs: a [`VersionSpec`](crate::VersionSpec) as JSON.
    pub fn version(service: &str, version: &str) -> Self {
        Self::new(format!("service/{service}"), format!("/versions/{}", escape(version)))
    }

    /// How many instances of a version run: a number.
    pub fn replicas(service: &str, version: &str) -> Self {
        Self::new(
            format!("service/{service}"),
            format!("/versions/{}/replicas", escape(version)),
        )
    }

    /// The canary's share: a [`Weight`](crate::Weight) as JSON. Absent when no version has a share; it becomes absent
    /// by itself when its lease lapses.
    pub fn canary(service: &str) -> Self {
        Self::new(format!("service/{service}"), "/canary")
    }

    /// Held down: a [`Hold`](crate::Hold) as JSON; instances are stopped and not restarted, requests get 503.
    pub fn hold(service: &str) -> Self {
        Self::new(format!("service/{service}"), "/hold")
    }

    /// A fault that is played on what is sent to a service (`service/<name>`) or, on Kubernetes, to whatever is behind a
    /// Service of a namespace (`endpoint/<namespace>/<name>`): a [`Fault`](crate::Fault) as JSON. It becomes absent by itself unless [`Platform::renew_fault`](crate::Platform)
    /// keeps it up. A platform that cannot play one there does not know the field.
    pub fn fault(object: &str) -> Self {
        Self::new(object, "/fault")
    }

    /// Whether a service's instances may not reach what is behind a Service of a namespace: a [`Cut`](crate::Cut) as JSON.
    /// On Kubernetes alone, by a NetworkPolicy, which nobody may be there to enforce; it stays until it is undone.
    pub fn cut(service: &str) -> Self {
        Self::new(format!("service/{service}"), "/cut")
    }

    /// When a service's instances were last restarted by somebody who said so: text that a new one is different from. On
    /// Kubernetes alone, as `kubectl rollout restart` does it; instances are replaced a few at a time.
    pub fn restarted(service: &str) -> Self {
        Self::new(format!("service/{service}"), "/restarted")
    }

    /// The name of the database that the address in a key of a Secret leads to: a string. On Kubernetes alone.
    pub fn database_of(namespace: &str, secret: &str, key: &str) -> Self {
        Self::new(format!("secret/{namespace}/{secret}"), format!("/{}", escape(key)))
    }

    /// Whether a node takes no new instances: `true`, or absent.
    pub fn unschedulable(node: &str) -> Self {
        Self::new(format!("node/{node}"), "/unschedulable")
    }

    /// The node whose [`Field::unschedulable`] this is, if it is one.
    pub fn node(&self) -> Option<&str> {
        let name = self.object.strip_prefix("node/")?;
        (self.pointer == "/unschedulable" && !name.is_empty()).then_some(name)
    }

    /// The service that the object is, if it is one.
    pub fn service(&self) -> Option<&str> {
        self.object.strip_prefix("service/").filter(|name| !name.is_empty())
    }

    /// The pointer's parts, unescaped.
    pub fn parts(&self) -> Vec<String> {
        self.pointer
            .split('/')
            .skip(1)
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect()
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.object, self.pointer)
    }
}

/// One part of a JSON pointer.
pub(crate) fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

/// The answer of a compare-and-set.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a conflict means that nothing was changed"]
pub enum Cas {
    /// The field has the new value.
    Applied,
    /// The field had another value, which stays.
    Conflict {
        /// What it had.
        actual: Option<Value>,
    },
}

impl Cas {
    /// Whether the change was made.
    pub fn applied(&self) -> bool {
        matches!(self, Self::Applied)
    }
}

/// The right of one worker to change things for a run. A new epoch (take-over, watchdog) makes older ones powerless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The run's id.
    pub run: String,
    /// The record's epoch when the worker began.
    pub epoch: u64,
}

impl Fence {
    /// A fence for a run's worker.
    pub fn new(run: impl Into<String>, epoch: u64) -> Self {
        Self { run: run.into(), epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_a_slash_is_one_part() {
        let field = Field::replicas("orders", "a/b~c");
        assert_eq!(field.parts(), ["versions", "a/b~c", "replicas"]);
        assert_eq!(field.service(), Some("orders"));
    }
}
