//! Faults on what goes through a Service: for a while the Service leads to a hop, a pod of opsctl that passes everything on
//! to a copy of the Service with the old selector (`<service>-origin`), and plays the fault meanwhile.
//!
//! The Deployment of the hop holds the field's value, so the field is present from before the first request takes the
//! detour until after the last object is gone; every step in between may be repeated. The fault itself has a time to live
//! in the hop, which passes everything on when that is over. Connections that were made before go past it.

mod detour;
mod objects;

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::DynamicObject;
use opsctl_proxy_control::ControlError;
use serde_json::Value;
use tokio::time::Instant;

use super::KubePlatform;
use super::edit::{Change, Target, annotation};
use super::field::invalid;
use super::outpost::{Outpost, POLL, creating, database_url, unless_there};
use crate::run::RunRecord;
use crate::{Cas, Fault, Fence, Field, PlatformError, Result};

/// The fault, on the hop's Deployment.
const FAULT: &str = "opsctl.dev/fault";
/// How long a fault lives that nobody keeps up.
const TTL: Duration = Duration::from_secs(30);
/// How long nodes may still lead connections where a Service led before.
const SETTLE: Duration = Duration::from_secs(2);
/// How long sessions may come back that are ended.
const SESSIONS: Duration = Duration::from_secs(10);

/// A Service that faults are played on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) namespace: String,
    pub(super) service: String,
}

impl Front {
    /// The hop before it.
    pub(super) fn hop(&self) -> Outpost {
        Outpost {
            namespace: self.namespace.clone(),
            name: format!("{}-hop", self.service),
        }
    }

    /// The copy of the Service.
    pub(super) fn origin(&self) -> String {
        format!("{}-origin", self.service)
    }

    fn service(&self) -> Target {
        Target::of::<Service>(&self.namespace, &self.service)
    }
}

impl KubePlatform {
    /// The Service that a field is a fault of; none when it is another field, or the service is not known.
    pub(super) fn front(&self, field: &Field) -> Option<Front> {
        if field.pointer != "/fault" {
            return None;
        }
        if let Some(service) = field.service() {
            let workload = self.settings.workload(service)?;
            return Some(Front {
                namespace: workload.namespace.clone(),
                service: workload.service.clone(),
            });
        }
        let (namespace, service) = field.object.strip_prefix("endpoint/")?.split_once('/')?;
        Some(Front {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
        })
    }
}

/// The objects that the field lives in.
pub(super) fn targets(front: &Front) -> Vec<Target> {
    vec![front.service(), front.hop().deployment()]
}

pub(super) async fn get(on: &KubePlatform, front: &Front) -> Result<Option<Value>> {
    let Some(deployment) = on.read(&front.hop().deployment()).await? else {
        // A Service that there is not has no faults, and none can be played on it.
        return match on.read(&front.service()).await? {
            Some(_) => Ok(None),
            None => Err(missing(front)),
        };
    };
    Ok(fault_of(&deployment).map(|fault| fault.value()))
}

fn fault_of(deployment: &DynamicObject) -> Option<Fault> {
    serde_json::from_str(annotation(deployment, FAULT)?).ok()
}

fn missing(front: &Front) -> PlatformError {
    PlatformError::Missing {
        what: format!("the Service `{}` in namespace `{}`", front.service, front.namespace),
    }
}

fn refused(front: &Front, why: &str) -> PlatformError {
    PlatformError::Refused {
        what: format!("a fault on the Service `{}`", front.service),
        why: why.to_owned(),
    }
}

pub(super) async fn set(on: &KubePlatform, front: &Front, change: &Change<'_>) -> Result<Cas> {
    let parsed = change.new.map(|new| serde_json::from_value::<Fault>(new.clone()));
    let new = parsed
        .transpose()
        .map_err(|error| invalid(change.field, &error.to_string()))?;
    let record = on.admit(change.by).await?;
    let actual = get(on, front).await?;
    if actual.as_ref() != change.expect {
        return Ok(Cas::Conflict { actual });
    }
    match (actual.is_some(), new) {
        (false, None) => Ok(Cas::Applied),
        (false, Some(fault)) => Box::pin(begin(on, front, change, record.as_ref(), &fault)).await,
        (true, Some(_)) => Err(invalid(
            change.field,
            "one fault is played at a time: take it away first",
        )),
        (true, None) => end(on, front, change).await,
    }
}

/// Makes the hop, waits until it is ready, gives it the fault, and leads the Service there.
async fn begin(
    on: &KubePlatform,
    front: &Front,
    change: &Change<'_>,
    record: Option<&RunRecord>,
    fault: &Fault,
) -> Result<Cas> {
    let Some(image) = &on.settings.image else {
        return Err(refused(
            front,
            "no image of opsctl is known to run as a hop: `image` of the cluster in opsctl.toml",
        ));
    };
    let service: Service = typed(on, front).await?.ok_or_else(|| missing(front))?;
    let sessions = match &fault.sessions_of {
        Some(of) => Some(database_url(on, &front.namespace, of).await?),
        None => None,
    };
    let made = objects::of(front, &service, image, fault, sessions.as_ref()).map_err(|why| refused(front, &why))?;
    detour::possible(on, front, &service).await?;
    let hop = front.hop();
    if hop.create_holder(on, change, record, made.deployment).await?.is_none() {
        let actual = get(on, front).await?;
        return Ok(Cas::Conflict { actual });
    }
    let began = async {
        let services: Api<Service> = Api::namespaced(on.clients.calls.clone(), &front.namespace);
        unless_there(services.create(&creating(change), &made.origin).await).map_err(|error| on.error(error))?;
        hop.create_secret(on, change, &made.secret).await?;
        if change.dry_run {
            return detour::there(on, front, change, &service).await;
        }
        hop.ready(on, change.by).await?;
        play(on, front, fault, TTL).await?;
        let led = detour::there(on, front, change, &service).await?;
        if led.applied() && fault.sessions_of.is_some() {
            end_sessions(on, front, change.by).await?;
        }
        Ok(led)
    };
    let began = began.await;
    if change.dry_run || matches!(began, Ok(Cas::Applied)) {
        return began;
    }
    // What cannot be removed now, the undo removes.
    let back = Change {
        by: None,
        expect: change.new,
        new: None,
        ..*change
    };
    if let Err(error) = end(on, front, &back).await {
        tracing::warn!(service = %front.service, error = %crate::run::message_of(&error), "could not remove a hop");
    }
    began
}

/// Ends the sessions at the database until none comes back: as long as a node leads to the database itself, they are made
/// anew past the hop, and until it leads to the copy, the hop does not get there.
async fn end_sessions(on: &KubePlatform, front: &Front, by: Option<&Fence>) -> Result<()> {
    let hop = front.hop();
    let begin = Instant::now();
    let mut all = 0;
    loop {
        let ended = hop.end_sessions(on).await;
        let over = begin.elapsed() >= SESSIONS;
        match ended {
            Ok(0) if begin.elapsed() >= SETTLE => break,
            Ok(ended) => all += ended,
            Err(error) if over => return Err(error),
            Err(error) => tracing::debug!(%error, "sessions are not ended yet"),
        }
        if over {
            tracing::warn!(service = %front.service, "sessions go past the hop");
            break;
        }
        tokio::time::sleep(POLL).await;
        // The run may have been lost meanwhile.
        on.admit(by).await?;
    }
    tracing::info!(sessions = all, service = %front.service, "sessions were ended");
    Ok(())
}

/// Leads the Service back, ends the fault, and lets the hop finish what it has.
async fn end(on: &KubePlatform, front: &Front, change: &Change<'_>) -> Result<Cas> {
    let back = detour::back(on, front, change).await?;
    if change.dry_run || !back.applied() {
        return Ok(back);
    }
    // What the fault holds until then would be carried through the hop from now on.
    tokio::time::sleep(SETTLE).await;
    // Best effort: it ends by itself, and with the hop.
    let hop = front.hop();
    if let (Ok(client), Ok(stream), Some(fault)) = (hop.client(on).await, hop.reach(on).await, change.expect)
        && let Some(holder) = fault["holder"].as_str()
    {
        let _ = client.delete_fault(stream, holder).await;
    }
    // The pod resolves the copy for new connections alone, and there are none any more.
    hop.remove(on, Target::of::<Service>(&front.namespace, &front.origin()))
        .await?;
    hop.close(on).await?;
    Ok(Cas::Applied)
}

/// How many connections the fault has met.
pub(super) async fn hits(on: &KubePlatform, front: &Front) -> Result<u64> {
    let hop = front.hop();
    let counted = hop.client(on).await?.counters(hop.reach(on).await?).await;
    let counted = counted.map_err(|error| hop.unreachable(error.into()))?;
    Ok(counted.reset + counted.swallowed + counted.delayed)
}

pub(super) async fn renew(on: &KubePlatform, by: &Fence, front: &Front, ttl: Duration) -> Result<()> {
    let deployment = on.read(&front.hop().deployment()).await?;
    let fault = deployment
        .as_ref()
        .and_then(fault_of)
        .filter(|fault| fault.holder == by.run);
    let fault = fault.ok_or_else(|| PlatformError::FaultLost {
        object: format!("endpoint/{}/{}", front.namespace, front.service),
    })?;
    play(on, front, &fault, ttl).await
}

/// Has the hop play the fault for `ttl`.
async fn play(on: &KubePlatform, front: &Front, fault: &Fault, ttl: Duration) -> Result<()> {
    let played = opsctl_proxy_control::Fault {
        id: fault.holder.clone(),
        service: front.service.clone(),
        kind: fault.kind,
        percent: fault.percent,
        ttl_seconds: ttl.as_secs().max(1),
        run: fault.holder.clone(),
        version: None,
    };
    let hop = front.hop();
    let put = hop.client(on).await?.put_fault(hop.reach(on).await?, &played).await;
    put.map_err(|error: ControlError| hop.unreachable(error.into()))
}

async fn typed(on: &KubePlatform, front: &Front) -> Result<Option<Service>> {
    let services: Api<Service> = Api::namespaced(on.clients.calls.clone(), &front.namespace);
    services.get_opt(&front.service).await.map_err(|error| on.error(error))
}
