//! Locks of runs: a `coordination.k8s.io` Lease each, taken, prolonged and given back by compare-and-set on its resource
//! version. Where its time is over, it is never taken silently: see [`Platform::replace_lease`](crate::Platform::replace_lease).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::KubePlatform;
use super::client::doubtful;
use super::edit::MANAGER;
use super::record::{MANAGED_BY, RUN};
use crate::{Lease, LeaseHolder, LeaseOutcome, PlatformError, Result};

/// The lease's true name, which need not be one that an object may have.
const NAME: &str = "opsctl.dev/lock";
/// Milliseconds; the Lease itself knows whole seconds only.
const DURATION: &str = "opsctl.dev/lease-milliseconds";
/// Somebody may be faster so often before we give up.
const ROUNDS: usize = 8;

impl KubePlatform {
    fn leases(&self, name: &str) -> Api<Object> {
        let service = name.strip_prefix("service-");
        let namespace = service
            .and_then(|service| self.settings.workload(service))
            .map_or(&self.settings.namespace, |workload| &workload.namespace);
        Api::namespaced(self.clients.calls.clone(), namespace)
    }

    async fn read_lease(&self, name: &str) -> Result<Option<Lease>> {
        let object = self.leases(name).get_opt(&object_name(name)).await;
        object
            .map_err(|error| self.error(error))?
            .map(|object| parse(name, &object))
            .transpose()
    }

    pub(super) async fn find_lease(&self, name: &str) -> Result<Option<Lease>> {
        self.read_lease(name).await
    }

    /// Writes the lease over `old`, or makes it. `None`: somebody was faster, or the answer was lost; look again.
    async fn write_lease(
        &self,
        name: &str,
        old: Option<&Lease>,
        holder: &LeaseHolder,
        ttl: Duration,
    ) -> Result<Option<Lease>> {
        let now = self.clients.now();
        let acquired = old
            .filter(|old| old.holder == *holder)
            .map_or(now, |old| old.acquired_at);
        let object: Object = serde_json::from_value(json!({
            "metadata": {
                "name": object_name(name),
                "resourceVersion": old.map(|old| old.revision.to_string()),
                "labels": { MANAGED_BY: MANAGER, RUN: label(&holder.run) },
                "annotations": { NAME: name, DURATION: ttl.as_millis().to_string() },
            },
            "spec": {
                "holderIdentity": identity(holder),
                "leaseDurationSeconds": ttl.as_millis().div_ceil(1000).clamp(1, i32::MAX as u128) as i32,
                "acquireTime": micros(acquired),
                "renewTime": micros(now),
            },
        }))
        .expect("it is a Lease");
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let api = self.leases(name);
        let written = match old {
            Some(_) => api.replace(&object_name(name), &params, &object).await,
            None => api.create(&params, &object).await,
        };
        match written {
            Ok(object) => parse(name, &object).map(Some),
            // Changed, made, or deleted by somebody else.
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && old.is_some()) => Ok(None),
            Err(error) => {
                let error = self.error(error);
                // Done or not, who holds it now can be read.
                if doubtful(&error) { Ok(None) } else { Err(error) }
            }
        }
    }

    pub(super) async fn take_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        for _ in 0..ROUNDS {
            let old = self.read_lease(name).await?;
            if let Some(other) = old.as_ref().filter(|old| old.holder != *holder) {
                return Ok(LeaseOutcome::Held(other.clone()));
            }
            if let Some(lease) = self.write_lease(name, old.as_ref(), holder, ttl).await? {
                return Ok(LeaseOutcome::Acquired(lease));
            }
        }
        Err(self.restless(name))
    }

    pub(super) async fn take_over_lease(
        &self,
        old: &Lease,
        holder: &LeaseHolder,
        ttl: Duration,
    ) -> Result<LeaseOutcome> {
        for _ in 0..ROUNDS {
            let now = self.read_lease(&old.name).await?;
            match &now {
                // Ours already, by a write whose answer was lost.
                Some(lease) if lease.holder == *holder && lease.revision > old.revision => {
                    return Ok(LeaseOutcome::Acquired(lease.clone()));
                }
                Some(lease) if lease.revision != old.revision => return Ok(LeaseOutcome::Held(lease.clone())),
                _ => {}
            }
            if let Some(lease) = self.write_lease(&old.name, now.as_ref(), holder, ttl).await? {
                return Ok(LeaseOutcome::Acquired(lease));
            }
        }
        Err(self.restless(&old.name))
    }

    pub(super) async fn prolong_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease> {
        for _ in 0..ROUNDS {
            let old = self.read_lease(name).await?.filter(|old| old.holder == *holder);
            let Some(old) = old else {
                return Err(PlatformError::LeaseLost { name: name.to_owned() });
            };
            if let Some(lease) = self.write_lease(name, Some(&old), holder, ttl).await? {
                return Ok(lease);
            }
        }
        Err(self.restless(name))
    }

    pub(super) async fn give_lease_back(&self, name: &str, holder: &LeaseHolder) -> Result<()> {
        for _ in 0..ROUNDS {
            let old = self.read_lease(name).await?.filter(|old| old.holder == *holder);
            let Some(old) = old else { return Ok(()) };
            let unchanged = DeleteParams {
                preconditions: Some(Preconditions {
                    resource_version: Some(old.revision.to_string()),
                    uid: None,
                }),
                ..DeleteParams::default()
            };
            match self.leases(name).delete(&object_name(name), &unchanged).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Err(self.restless(name))
    }

    fn restless(&self, name: &str) -> PlatformError {
        PlatformError::Unreachable {
            what: self.clients.server.to_string(),
            source: format!("the lease `{name}` could not be written").into(),
        }
    }
}

fn parse(name: &str, object: &Object) -> Result<Lease> {
    let odd = |why: &str| PlatformError::Refused {
        what: format!("the lease `{name}`"),
        why: why.to_owned(),
    };
    let spec = object.spec.as_ref().ok_or_else(|| odd("it has no spec"))?;
    let holder = spec.holder_identity.as_deref().and_then(parse_identity);
    let renewed = spec.renew_time.as_ref().map(|time| time.0);
    let (Some(holder), Some(renewed)) = (holder, renewed) else {
        return Err(odd("it was not written by opsctl"));
    };
    let annotations = object.metadata.annotations.as_ref();
    let exact = annotations
        .and_then(|all| all.get(DURATION))
        .and_then(|text| text.parse().ok());
    let milliseconds = exact.unwrap_or_else(|| i64::from(spec.lease_duration_seconds.unwrap_or_default()) * 1000);
    let revision = object.metadata.resource_version.as_deref();
    Ok(Lease {
        name: name.to_owned(),
        holder,
        acquired_at: spec.acquire_time.as_ref().map_or(renewed, |time| time.0),
        renewed_at: renewed,
        expires_at: renewed + SignedDuration::from_millis(milliseconds),
        revision: revision
            .and_then(|version| version.parse().ok())
            .ok_or_else(|| odd("its resource version is no number"))?,
    })
}

fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// `run/host/pid/start_ticks`.
fn identity(holder: &LeaseHolder) -> String {
    format!("{}/{}/{}/{}", holder.run, holder.host, holder.pid, holder.start_ticks)
}

fn parse_identity(text: &str) -> Option<LeaseHolder> {
    let mut parts = text.rsplitn(4, '/');
    let start_ticks = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    let host = parts.next()?.to_owned();
    let run = parts.next()?.to_owned();
    Some(LeaseHolder {
        run,
        host,
        pid,
        start_ticks,
    })
}

/// `opsctl-<name>`; a name that no object may have is made one, told apart by a digest.
fn object_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .collect();
    if plain == name && name.len() < 200 && !name.ends_with('-') {
        return format!("opsctl-{name}");
    }
    let digest = hex::encode(&Sha256::digest(name.as_bytes())[..4]);
    format!("opsctl-{}-{digest}", &plain[..plain.len().min(200)])
}

/// What a label may hold of a run's id.
fn label(run: &str) -> &str {
    let fits = run.len() <= 63 && run.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits { run } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lock_has_a_name_that_an_object_may_have() {
        assert_eq!(object_name("service-orders"), "opsctl-service-orders");
        let odd = object_name("node-Worker_1/x");
        assert!(odd.starts_with("opsctl-node--orker-1-x-"), "{odd}");
        assert_ne!(object_name("a/b"), object_name("a_b"));
    }

    #[test]
    fn a_holder_is_read_back() {
        let holder = LeaseHolder {
            run: "20260314-092653-7f3a".to_owned(),
            host: "opsctl-run-x-abcde".to_owned(),
            pid: 12,
            start_ticks: 345,
        };
        assert_eq!(parse_identity(&identity(&holder)), Some(holder));
        assert_eq!(parse_identity("somebody"), None);
    }
}
