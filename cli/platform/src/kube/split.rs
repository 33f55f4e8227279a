//! How the traffic of a service is split between its versions. One object is the lead and says in annotations who has which
//! share until when; what carries the weights follows it: rules of routes (`split/gateway.rs`), a second Ingress
//! (`split/nginx.rs`), labels of pods (`split/replicas.rs`).
//!
//! The lead is changed first when a share is given and last when it is taken: while anything gives the canary traffic, the
//! lead says so, and whoever undoes it finds everything. Nothing in Kubernetes lets a share lapse: [`lapse`] does, called by
//! every watchdog.

mod gateway;
mod nginx;
pub(super) mod owners;
mod replicas;
mod route;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::edit::{Change, Patch, Patched, Target, annotation};
use super::mark::Carrier;
use super::versions::capacity;
use super::{KubePlatform, Provider, Workload};
use crate::{Cas, Fence, Field, PlatformError, Result, Weight};

/// On the lead: a [`Granted`].
const WEIGHT: &str = "opsctl.dev/weight";
/// On the lead: the version that has all traffic although the stable Deployment has another.
const STABLE: &str = "opsctl.dev/stable-version";
/// On whatever carries a share: what it had before.
const BASE: &str = "opsctl.dev/base-weights";
/// On what follows the lead: the weight that we gave it last. One that it has besides is somebody else's.
const GIVEN: &str = "opsctl.dev/given-weight";
/// How long a share lives that an undo gives back.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// The canary's share while the stable pods get back the number that they had.
const HALF: u8 = 50;

/// A kind of route.
pub(super) use gateway::resource as route_kind;

/// What the routes of a service say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// The version that all traffic goes to which no canary takes, when that is not the stable Deployment's.
    pub(super) stable_version: Option<String>,
    /// The canary's share, unless its lease is over.
    pub(super) canary: Option<Weight>,
    /// The name by which the HTTPRoute tells the service from others, if it has one that is not a pattern.
    pub(super) hostname: Option<String>,
}

impl Split {
    /// This one; what it does not say, says `other`.
    fn or(self, other: Self) -> Self {
        let hostname = self.hostname.clone().or_else(|| other.hostname.clone());
        let shares = if self.stable_version.is_some() || self.canary.is_some() {
            self
        } else {
            other
        };
        Self { hostname, ..shares }
    }
}

/// A share and the end of its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Granted {
    #[serde(flatten)]
    weight: Weight,
    until: Timestamp,
}

/// What carries the split of one service.
struct Carriers {
    lead: Target,
    /// The lead as it was read.
    object: DynamicObject,
    /// Other routes, which have the same share.
    followers: Vec<Target>,
}

/// The split of one service. A service without routes, and a cluster without the Gateway API, have none.
pub(super) async fn read(platform: &KubePlatform, workload: &Workload) -> Result<Split> {
    match find(platform, workload).await {
        Ok(carriers) => Ok(split_of(&carriers.object, workload, platform.clients.now())),
        // Which of two routes is meant must be said before anything is changed; without a change there is no share.
        Err(PlatformError::Missing { .. } | PlatformError::Refused { .. }) => Ok(Split::default()),
        Err(error) => Err(error),
    }
}

/// The splits of all services of one namespace that have one, by service name; one list for each kind of route.
pub(super) async fn read_all(
    platform: &KubePlatform,
    namespace: &str,
    workloads: &[&Workload],
) -> Result<BTreeMap<String, Split>> {
    let now = platform.clients.now();
    let (routed, others): (Vec<_>, Vec<_>) = workloads
        .iter()
        .copied()
        .partition(|workload| workload.provider == Provider::Gateway);
    let mut splits = BTreeMap::new();
    if !routed.is_empty() {
        for (workload, route) in gateway::leads(platform, namespace, &routed).await? {
            let known: &mut Split = splits.entry(workload.name.clone()).or_default();
            *known = std::mem::take(known).or(split_of(&route, workload, now));
        }
    }
    for workload in others {
        splits.insert(workload.name.clone(), read(platform, workload).await?);
    }
    Ok(splits)
}

/// The objects that hold the split of a service, the lead first: for the fence and the notes of undo.
pub(super) async fn targets(platform: &KubePlatform, workload: &Workload) -> Result<Vec<Target>> {
    match find(platform, workload).await {
        Ok(carriers) => Ok(std::iter::once(carriers.lead).chain(carriers.followers).collect()),
        Err(PlatformError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Changes [`Field::canary`](crate::Field::canary) from `expect` to `new`. `lease` is that of a share that is given; an
/// undo that gives one back has none and gets 30 s.
pub(super) async fn set(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    expect: Option<&Weight>,
    new: Option<&Weight>,
    lease: Option<Duration>,
    dry_run: bool,
) -> Result<Cas> {
    let carriers = find(platform, workload).await?;
    let granted = new.filter(|weight| weight.percent > 0).map(|weight| Granted {
        weight: weight.clone(),
        until: end(platform.clients.now(), lease.unwrap_or(GIVEN_BACK)),
    });
    let is_given = granted.is_some();
    let now = platform.clients.now();
    let conflict = || {
        let canary = split_of(&carriers.object, workload, now).canary;
        Cas::Conflict {
            actual: canary.as_ref().and_then(value_of),
        }
    };
    if is_given && (by.is_some() || dry_run) {
        markable(workload)?;
        owners::check(&carriers.object, workload.take_ownership, owners::Part::Rules)?;
        if is_foreign(platform, workload, &carriers).await? {
            return Ok(conflict());
        }
    }
    let field = Field::canary(&workload.name);
    let (expect, value) = (expect.and_then(value_of), new.and_then(value_of));
    let change = Change {
        by,
        field: &field,
        expect: expect.as_ref(),
        new: value.as_ref(),
        dry_run,
    };
    let read = |object: &DynamicObject| split_of(object, workload, now).canary.as_ref().and_then(value_of);
    let percent_of = |object: &DynamicObject| match (annotation(object, STABLE), &granted) {
        (Some(_), _) => 100,
        (None, Some(granted)) => granted.weight.percent,
        (None, None) => 0,
    };
    let percent = percent_of(&carriers.object);
    if workload.provider == Provider::Replicas && is_given {
        replicas::check(platform, workload, percent, dry_run).await?;
    }
    let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
        put(object, patch, workload, percent_of(object))?;
        let text = granted.as_ref().map(Granted::text);
        patch.annotate(WEIGHT, text.as_deref());
        Ok(())
    };
    let shift = Shift {
        platform,
        by,
        workload,
        carriers: &carriers,
        percent,
        dry_run,
    };
    if !is_given {
        // Only if the lead has what is to be taken away: else a conflict would have changed the followers.
        if read(&carriers.object) == expect {
            if workload.provider == Provider::Gateway && is_foreign(platform, workload, &carriers).await? {
                return Ok(conflict());
            }
            shift.follow().await?;
        }
        return platform.edit(&carriers.lead, &change, read, write).await;
    }
    shift.prepare(read(&carriers.object) == expect).await?;
    let cas = platform.edit(&carriers.lead, &change, read, write).await?;
    if cas.applied() {
        shift.follow().await?;
    }
    Ok(cas)
}

/// Prolongs the share of the run `by`. Errors: [`PlatformError::WeightLost`].
pub(super) async fn renew(platform: &KubePlatform, by: &Fence, workload: &Workload, lease: Duration) -> Result<()> {
    let lost = || PlatformError::WeightLost {
        service: workload.name.clone(),
    };
    loop {
        let carriers = match find(platform, workload).await {
            Err(PlatformError::Missing { .. }) => return Err(lost()),
            carriers => carriers?,
        };
        platform.admit(Some(by)).await?;
        if is_foreign(platform, workload, &carriers).await? {
            return Err(lost());
        }
        let now = platform.clients.now();
        let canary = split_of(&carriers.object, workload, now).canary;
        let Some(weight) = canary.filter(|weight| weight.holder == by.run) else {
            return Err(lost());
        };
        let percent = annotation(&carriers.object, STABLE).map_or(weight.percent, |_| 100);
        let until = end(now, lease);
        let mut patch = Patch::new(&carriers.object);
        patch.annotate(WEIGHT, Some(&Granted { weight, until }.text()));
        match platform.patch(&carriers.lead, patch.into_ops(), false).await? {
            Patched::Done => {
                let shift = Shift {
                    platform,
                    by: Some(by),
                    workload,
                    carriers: &carriers,
                    percent,
                    dry_run: false,
                };
                return shift.follow().await;
            }
            Patched::Raced => {}
            Patched::Gone => return Err(lost()),
        }
    }
}

/// Takes away the share whose lease is over.
pub(super) async fn lapse(platform: &KubePlatform, workload: &Workload) -> Result<()> {
    loop {
        let carriers = match find(platform, workload).await {
            Err(PlatformError::Missing { .. } | PlatformError::Refused { .. }) => return Ok(()),
            carriers => carriers?,
        };
        let now = platform.clients.now();
        if granted_of(&carriers.object).is_none_or(|granted| now < granted.until) {
            return Ok(());
        }
        let percent = annotation(&carriers.object, STABLE).map_or(0, |_| 100);
        let shift = Shift {
            platform,
            by: None,
            workload,
            carriers: &carriers,
            percent,
            dry_run: false,
        };
        shift.follow().await?;
        let mut patch = Patch::new(&carriers.object);
        put(&carriers.object, &mut patch, workload, percent)?;
        patch.annotate(WEIGHT, None);
        match platform.patch(&carriers.lead, patch.into_ops(), false).await? {
            Patched::Done | Patched::Gone => return Ok(()),
            // It was prolonged, or somebody else was faster.
            Patched::Raced => {}
        }
    }
}

/// Changes [`Field::stable_version`](crate::Field::stable_version).
pub(super) async fn set_stable(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    expect: Option<&str>,
    new: Option<&str>,
    dry_run: bool,
) -> Result<Cas> {
    let carriers = find(platform, workload).await?;
    let own = platform.desired(workload, &workload.deployment).await?;
    let own = own.map(|deployment| deployment.version);
    let switched = new.filter(|new| own.as_deref() != Some(new));
    if switched.is_some() && (by.is_some() || dry_run) {
        owners::check(&carriers.object, workload.take_ownership, owners::Part::Rules)?;
    }
    let field = Field::stable_version(&workload.name);
    let (expect, value) = (expect.map(Value::from), new.map(Value::from));
    let change = Change {
        by,
        field: &field,
        expect: expect.as_ref(),
        new: value.as_ref(),
        dry_run,
    };
    let now = platform.clients.now();
    let read = |object: &DynamicObject| {
        let version = annotation(object, STABLE).map(str::to_owned).or_else(|| own.clone());
        version.map(Value::from)
    };
    let percent_of = |object: &DynamicObject| match switched {
        Some(_) => 100,
        None => granted_of(object)
            .filter(|granted| now < granted.until)
            .map_or(0, |granted| granted.weight.percent),
    };
    let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
        put(object, patch, workload, percent_of(object))?;
        patch.annotate(STABLE, switched);
        Ok(())
    };
    let shift = Shift {
        platform,
        by,
        workload,
        carriers: &carriers,
        percent: percent_of(&carriers.object),
        dry_run,
    };
    let is_due = read(&carriers.object) == expect;
    if switched.is_some() {
        if is_due && !dry_run {
            capacity::hold(platform, by, workload).await?;
        }
        shift.prepare(is_due).await?;
        let cas = platform.edit(&carriers.lead, &change, read, write).await?;
        if cas.applied() {
            shift.follow().await?;
        }
        return Ok(cas);
    }
    if is_due {
        let returns = annotation(&carriers.object, STABLE).is_some() && !dry_run;
        if returns && capacity::is_short(platform, workload).await? {
            // Half of it now; the rest when there are pods for it. The annotations stay as they are.
            let half = Shift { percent: HALF, ..shift };
            half.change(&carriers.lead, |_| {}).await?;
            half.follow().await?;
            capacity::regain(platform, workload).await?;
        }
        shift.follow().await?;
    }
    let cas = platform.edit(&carriers.lead, &change, read, write).await?;
    if cas.applied() && !dry_run {
        capacity::release(platform, by, workload).await?;
    }
    Ok(cas)
}

/// What carries the split, by its provider. Errors: [`PlatformError::Missing`] for nothing, [`PlatformError::Refused`] when
/// it is not clear what.
async fn find(platform: &KubePlatform, workload: &Workload) -> Result<Carriers> {
    match workload.provider {
        Provider::Gateway => gateway::find(platform, workload).await,
        Provider::IngressNginx => nginx::find(platform, workload).await,
        Provider::Replicas => replicas::find(platform, workload).await,
    }
}

/// Whether somebody else has changed the share, on the lead or on what follows it: it is not ours to set again.
async fn is_foreign(platform: &KubePlatform, workload: &Workload, carriers: &Carriers) -> Result<bool> {
    let Some(granted) = granted_of(&carriers.object) else {
        return Ok(false);
    };
    match workload.provider {
        Provider::Gateway if annotation(&carriers.object, STABLE).is_none() => {
            let mut is_foreign = gateway::percent(&carriers.object, workload) != Some(granted.weight.percent);
            for follower in &carriers.followers {
                // One that is gone leads nobody.
                let object = platform.read(follower).await?;
                is_foreign |= object.is_some_and(|object| {
                    let given = annotation(&object, GIVEN).and_then(|text| text.parse().ok());
                    given.is_some() && gateway::percent(&object, workload) != given
                });
            }
            Ok(is_foreign)
        }
        Provider::IngressNginx => nginx::is_foreign(platform, workload, &carriers.lead).await,
        Provider::Gateway | Provider::Replicas => Ok(false),
    }
}

/// Puts the share into a carrier, as far as that is where it stands; false when nothing was to be changed.
fn put(object: &DynamicObject, patch: &mut Patch<'_>, workload: &Workload, percent: u8) -> Result<bool> {
    match workload.provider {
        Provider::Gateway => gateway::put(object, patch, workload, percent),
        // The second Ingress has it.
        Provider::IngressNginx => Ok(false),
        Provider::Replicas => Ok(replicas::put(object, patch, percent)),
    }
}

/// One change of everything that carries a share.
#[derive(Clone, Copy)]
struct Shift<'a> {
    platform: &'a KubePlatform,
    by: Option<&'a Fence>,
    workload: &'a Workload,
    carriers: &'a Carriers,
    percent: u8,
    dry_run: bool,
}

impl Shift<'_> {
    /// What must be so before the lead gives a share.
    async fn prepare(&self, is_due: bool) -> Result<()> {
        if self.workload.provider == Provider::Replicas && is_due && !self.dry_run {
            replicas::prepare(self).await?;
        }
        Ok(())
    }

    /// Gives everything but the lead the lead's share.
    async fn follow(&self) -> Result<()> {
        match self.workload.provider {
            Provider::Gateway => {
                let given = (self.percent > 0).then(|| self.percent.to_string());
                for target in &self.carriers.followers {
                    self.change(target, |patch| patch.annotate(GIVEN, given.as_deref()))
                        .await?;
                }
                Ok(())
            }
            Provider::IngressNginx => nginx::follow(self).await,
            Provider::Replicas => replicas::follow(self).await,
        }
    }

    /// Puts the share into one carrier, with what `note` adds; one that has it is not touched.
    async fn change(&self, target: &Target, note: impl Fn(&mut Patch<'_>)) -> Result<()> {
        while let Some(object) = self.platform.read(target).await? {
            self.platform.admit(self.by).await?;
            let mut patch = Patch::new(&object);
            if !put(&object, &mut patch, self.workload, self.percent)? {
                break;
            }
            note(&mut patch);
            match self.platform.patch(target, patch.into_ops(), self.dry_run).await? {
                Patched::Done | Patched::Gone => break,
                Patched::Raced => {}
            }
        }
        Ok(())
    }
}

/// What a lead says. A share that the weights do not have was taken by somebody else.
fn split_of(object: &DynamicObject, workload: &Workload, now: Timestamp) -> Split {
    let stable_version = annotation(object, STABLE).map(str::to_owned);
    let granted = granted_of(object).filter(|granted| now < granted.until);
    let actual = match workload.provider {
        Provider::Gateway if stable_version.is_none() => gateway::percent(object, workload),
        _ => None,
    };
    let canary = granted.map(|granted| Weight {
        percent: actual.unwrap_or(granted.weight.percent),
        ..granted.weight
    });
    Split {
        stable_version,
        canary: canary.filter(|weight| weight.percent > 0),
        hostname: gateway::hostname(object),
    }
}

/// Errors: [`PlatformError::Refused`] when the provider cannot tell marked requests apart.
fn markable(workload: &Workload) -> Result<()> {
    let why = match (workload.provider, &workload.mark) {
        (Provider::Replicas, Some(_)) => "numbers of pods tell no requests apart",
        (Provider::IngressNginx, Some(mark)) if mark.carrier == Carrier::Cookie => {
            "ingress-nginx compares the value of no cookie; use a header"
        }
        _ => return Ok(()),
    };
    Err(PlatformError::Refused {
        what: format!("a mark for the canary of `{}`", workload.name),
        why: why.to_owned(),
    })
}

/// Which of several candidates is meant: the one that carries a split already, whatever came beside it since.
fn carrying(found: Vec<(Target, DynamicObject)>) -> Vec<(Target, DynamicObject)> {
    let carries = |object: &DynamicObject| {
        [WEIGHT, STABLE, BASE]
            .iter()
            .any(|key| annotation(object, key).is_some())
    };
    if found.iter().any(|(_, object)| carries(object)) {
        return found.into_iter().filter(|(_, object)| carries(object)).collect();
    }
    found
}

/// Two objects are one too many.
fn ambiguous(workload: &Workload, kind: &str, one: &str, two: &str) -> PlatformError {
    PlatformError::Refused {
        what: format!("a split of the traffic of `{}`", workload.name),
        why: format!(
            "two objects lead to the Service `{}`: {kind} `{one}` and {kind} `{two}`; say which with routes = [\"{kind}/{one}\"]",
            workload.service
        ),
    }
}

impl Granted {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }
}

fn granted_of(object: &DynamicObject) -> Option<Granted> {
    serde_json::from_str(annotation(object, WEIGHT)?).ok()
}

fn value_of(weight: &Weight) -> Option<Value> {
    Weight::value(&weight.version, weight.percent, &weight.holder)
}

fn end(now: Timestamp, lease: Duration) -> Timestamp {
    let lease = SignedDuration::try_from(lease).unwrap_or(SignedDuration::MAX);
    now.checked_add(lease).unwrap_or(Timestamp::MAX)
}
