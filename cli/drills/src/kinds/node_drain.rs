//! `node-drain`: has everything leave a node, as before its maintenance, and watches whether the services that ran there
//! are whole elsewhere.
//!
//! The node takes nothing new ([`Field::unschedulable`]), which is undone only where this run did it; then one tenant after
//! another is evicted, and asked for again while a disruption budget forbids it. Daemons and what the node itself runs
//! stay.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use opsctl_platform::run::RunError;
use opsctl_platform::{Field, Keeper, Platform, PlatformError, ServiceState, Tenant};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Kind;
use crate::course::{
    self, Course, Effect, Fault, Mutation, PlanError, Seen, Terms, WorkError, also_lock, beside, seconds, survey,
};
use crate::figures::{self, Check};
use crate::report::Report;

/// Between two rounds of asking for what a budget forbade.
const PAUSE: Duration = Duration::from_secs(1);

/// What this kind is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// The node.
    pub node: String,
    /// Evict also what loses data with its place.
    pub lose_local_data: bool,
    /// How long budgets may forbid evictions.
    #[serde(rename = "evict_within_seconds", with = "seconds")]
    pub evict_within: Duration,
    /// Who leaves; chosen by [`plan`].
    #[serde(default)]
    pub leaving: Vec<Tenant>,
}

/// What would be done.
pub type Plan = course::Plan<Drain>;

/// Finds who is on the node and checks the guards. `terms.service` is the service that is judged first; empty: the one with
/// the most instances there.
pub async fn plan(platform: &dyn Platform, mut terms: Terms, mut drain: Drain) -> Result<Plan, PlanError> {
    let unfit = |why: String| PlanError::Unfit { why };
    let nodes = platform.nodes().await?;
    let node = &drain.node;
    if nodes.is_empty() {
        let why = "there are no nodes here: services run on this machine alone".to_owned();
        return Err(PlanError::Impossible { why });
    }
    if nodes.iter().all(|known| known.name != *node) {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(unfit(format!(
            "there is no node `{node}`; there are {}",
            names.join(", ")
        )));
    }
    if !nodes
        .iter()
        .any(|other| other.name != *node && other.ready && !other.unschedulable)
    {
        let why = format!("no other node takes what leaves `{node}`");
        return Err(PlanError::Impossible { why });
    }
    let tenants = platform.tenants(node).await?;
    let (leaving, staying): (Vec<Tenant>, Vec<Tenant>) = tenants.into_iter().partition(Tenant::moves);
    if let Some(lost) = leaving.iter().find(|tenant| tenant.kept_by == Keeper::Nobody) {
        let why = format!("`{}` has no controller: it would not come back", told(lost));
        return Err(PlanError::Impossible { why });
    }
    if let Some(lost) = leaving
        .iter()
        .find(|tenant| tenant.local_data && !drain.lose_local_data)
    {
        return Err(PlanError::LocalData { tenant: told(lost) });
    }
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for service in leaving.iter().filter_map(|tenant| tenant.service.as_deref()) {
        *count.entry(service).or_default() += 1;
    }
    let mut services: Vec<(&str, usize)> = count.into_iter().collect();
    services.sort_by_key(|(_, instances)| std::cmp::Reverse(*instances));
    if terms.service.is_empty() {
        let most = services.first().map(|(service, _)| (*service).to_owned());
        terms.service = most.ok_or_else(|| PlanError::Impossible {
            why: format!("no service of the catalogue has an instance on `{node}`: nothing could be observed"),
        })?;
    }
    let mut ground = survey(platform, &mut terms).await?;
    ground.whole()?;
    for (service, _) in services {
        if service == terms.service {
            continue;
        }
        also_lock(platform, service, &mut terms).await?;
        let other = beside(platform, service, &terms).await?;
        terms.others.push(other);
    }
    terms.locks.push(format!("node-{node}"));
    if nodes.iter().any(|known| known.name == *node && known.unschedulable) {
        ground
            .notes
            .push(format!("`{node}` takes nothing new already, and will not afterwards"));
    }
    if !staying.is_empty() {
        let names: Vec<String> = staying.iter().map(told).collect();
        ground.notes.push(format!("stays: {}", names.join(", ")));
    }
    drain.leaving = leaving;
    let of_service = drain
        .leaving
        .iter()
        .filter(|tenant| tenant.service.as_ref() == Some(&terms.service));
    let left = ground.ready.saturating_sub(of_service.count() as u32);
    let closed = nodes
        .iter()
        .any(|known| known.name == drain.node && known.unschedulable);
    let mut mutations = Vec::new();
    if !closed {
        mutations.push(Mutation::set(Field::unschedulable(&drain.node), true.into(), None));
    }
    mutations.extend(drain.leaving.iter().map(Mutation::evict));
    Ok(Plan::new(Kind::NodeDrain, terms, drain, ground, left).with(mutations))
}

fn told(tenant: &Tenant) -> String {
    if tenant.namespace.is_empty() {
        tenant.name.clone()
    } else {
        format!("{}/{}", tenant.namespace, tenant.name)
    }
}

/// The drain.
pub(super) struct NodeDrain {
    drain: Drain,
    field: Field,
    /// Why each that is still there may not leave.
    forbidden: BTreeMap<String, String>,
    left: usize,
    /// Ready instances that each service needs.
    wanted: BTreeMap<String, u32>,
    /// When all of a service's were ready again while the node was drained, seconds.
    whole: BTreeMap<String, f64>,
    /// One instance of each service that was ready on the node itself when all were ready.
    back: BTreeMap<String, String>,
}

impl NodeDrain {
    pub(super) fn new(drain: Drain) -> Self {
        Self {
            field: Field::unschedulable(&drain.node),
            drain,
            forbidden: BTreeMap::new(),
            left: 0,
            wanted: BTreeMap::new(),
            whole: BTreeMap::new(),
            back: BTreeMap::new(),
        }
    }

    /// Has everybody leave; asks again for whom a budget holds back.
    async fn evict_all(&mut self, course: &mut Course<'_>) -> Result<(), WorkError> {
        let deadline = Instant::now() + self.drain.evict_within;
        let mut there = self.drain.leaving.clone();
        loop {
            let mut back = Vec::new();
            for tenant in there {
                match course.run.evict(&tenant).await {
                    Ok(at) => {
                        self.left += 1;
                        self.forbidden.remove(&told(&tenant));
                        let at = course.subject.seconds(at);
                        course.moment(at, "evicted", format!("{} leaves", told(&tenant)));
                    }
                    Err(RunError::Platform(PlatformError::Gone { .. })) => self.left += 1,
                    Err(RunError::Platform(PlatformError::Refused { why, .. })) => {
                        self.forbidden.insert(told(&tenant), why);
                        back.push(tenant);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            there = back;
            if there.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            // What has left needs time to come back elsewhere; then the budget allows the next.
            if course.wait(PAUSE).await? {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Fault for NodeDrain {
    fn kind(&self) -> Kind {
        Kind::NodeDrain
    }

    fn noun(&self) -> &'static str {
        "the drain"
    }

    async fn admit(&mut self, course: &mut Course<'_>, state: &ServiceState) -> Result<(), String> {
        let mut wanted = vec![(state.name.clone(), course.subject.wanted)];
        wanted.extend(course.others.iter().map(|other| (other.service.clone(), other.wanted)));
        self.wanted = wanted.into_iter().collect();
        Ok(())
    }

    async fn inject(&mut self, course: &mut Course<'_>) -> Result<Option<f64>, WorkError> {
        let at = course.now();
        // Nothing to do, and nothing to undo, where somebody else did it before.
        course.run.change(&self.field, Some(true.into())).await?;
        course.moment(at, "injected", format!("`{}` takes nothing new", self.drain.node));
        self.evict_all(course).await?;
        Ok((self.left > 0).then_some(at))
    }

    async fn effect(&mut self, course: &mut Course<'_>, _state: Option<&ServiceState>) -> Option<Effect> {
        let now = course.now();
        let all = self.drain.leaving.len();
        course.moment(now, "effective", format!("{} of {all} have left", self.left));
        Some(Effect { first: now, whole: now })
    }

    async fn renew(&mut self, course: &mut Course<'_>) -> Result<bool, WorkError> {
        // Who tolerates a node that takes nothing new comes back to it, and is ready, but not elsewhere. Asked when it matters.
        let mut here: Option<Vec<Tenant>> = None;
        for observer in std::iter::once(&course.subject).chain(&course.others) {
            let Some(sample) = observer.samples.last() else {
                continue;
            };
            let service = &observer.service;
            let wanted = self.wanted.get(service).copied().unwrap_or(0);
            if sample.ready.is_none_or(|ready| ready < wanted) {
                self.whole.remove(service);
                continue;
            }
            if self.whole.contains_key(service) {
                continue;
            }
            let tenants = match here.take() {
                Some(tenants) => tenants,
                None => match course.run.platform().tenants(&self.drain.node).await {
                    Ok(tenants) => tenants,
                    // The next sample asks again.
                    Err(_) => return Ok(true),
                },
            };
            let tenants = here.insert(tenants);
            let mut back = tenants
                .iter()
                .filter(|tenant| tenant.moves() && tenant.service.as_ref() == Some(service));
            match back.next() {
                None => {
                    self.whole.insert(service.clone(), sample.at_seconds);
                    self.back.remove(service);
                }
                Some(tenant) => {
                    self.back.insert(service.clone(), told(tenant));
                }
            }
        }
        Ok(true)
    }

    fn checks(&self, seen: &Seen<'_>) -> Vec<Check> {
        let mut checks = vec![Check {
            name: "drained".to_owned(),
            expected: format!("{} leave", self.drain.leaving.len()),
            observed: match self.forbidden.iter().next() {
                None => format!("{} left", self.left),
                Some((tenant, why)) => format!("{} left; {tenant}: {why}", self.left),
            },
            met: Some(self.forbidden.is_empty()),
        }];
        for (service, wanted) in &self.wanted {
            let at = self.whole.get(service);
            checks.push(Check {
                name: format!("ready elsewhere ({service})"),
                expected: format!("{wanted} before the node is back"),
                observed: match (at, self.back.get(service)) {
                    (Some(at), _) => format!("all by {}", figures::duration(*at)),
                    (None, Some(tenant)) => format!("{tenant} is on the node"),
                    (None, None) => "fewer".to_owned(),
                },
                met: Some(at.is_some()),
            });
        }
        let since = seen.since();
        checks.extend(seen.objectives(since.clients, since.probe));
        for other in seen.others {
            let since = other.during.and(other.after);
            for (who, figures) in [("clients", since.clients), ("probe", since.probe)] {
                let who = format!("{who} of {}", other.service);
                checks.extend(figures::check_objectives(&who, figures, &other.objectives));
            }
        }
        checks
    }

    fn tell(&self, report: &mut Report) {
        report.drained = self.drain.leaving.iter().map(told).collect();
    }
}
