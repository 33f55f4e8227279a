//! Routes of the Gateway API as carriers of a split: which of them lead to a service, and the patch of their rules. The lead
//! is an HTTPRoute, if there is one.

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

use super::route::{self, Backends, Base};
use super::{BASE, Carriers, ambiguous, carrying};
use crate::kube::edit::{Patch, Target, annotation};
use crate::kube::{KubePlatform, Workload};
use crate::{PlatformError, Result};

const KINDS: [&str; 2] = ["HTTPRoute", "GRPCRoute"];
const GROUP: &str = "gateway.networking.k8s.io";
const VERSION: &str = "v1";
const RULES: &str = "/spec/rules";

impl Workload {
    fn backends<'a>(&'a self, canary: &'a str) -> Backends<'a> {
        Backends {
            namespace: &self.namespace,
            stable: &self.service,
            canary,
        }
    }
}

/// The routes of a service: those that it names, else those that lead to its Service.
pub(super) async fn find(platform: &KubePlatform, workload: &Workload) -> Result<Carriers> {
    let mut found: Vec<(Target, DynamicObject)> = Vec::new();
    if workload.routes.is_empty() {
        let mut is_known = false;
        for kind in KINDS {
            let Some(routes) = list(platform, &workload.namespace, kind).await? else {
                continue;
            };
            is_known = true;
            let leading = routes
                .into_iter()
                .filter(|route| leads_to(route, workload))
                .map(|route| {
                    (
                        target(workload, kind, route.metadata.name.as_deref().unwrap_or_default()),
                        route,
                    )
                });
            let leading = carrying(leading.collect());
            if let [(one, _), (two, _), ..] = leading.as_slice() {
                return Err(ambiguous(workload, kind, &one.name, &two.name));
            }
            found.extend(leading);
        }
        if !is_known {
            return Err(PlatformError::Missing {
                what: format!("the Gateway API on this cluster ({GROUP}/{VERSION}: HTTPRoute, GRPCRoute)"),
            });
        }
    } else {
        for named in &workload.routes {
            let (kind, name) = named.split_once('/').unwrap_or((KINDS[0], named));
            let target = target(workload, kind, name);
            let object = platform.read(&target).await?.ok_or_else(|| PlatformError::Missing {
                what: format!("{kind} `{name}` in namespace `{}`", workload.namespace),
            })?;
            found.push((target, object));
        }
        found.sort_by_key(|(target, _)| target.resource.kind != KINDS[0]);
    }
    let mut found = found.into_iter();
    let (lead, object) = found.next().ok_or_else(|| PlatformError::Missing {
        what: format!(
            "an HTTPRoute or GRPCRoute in namespace `{}` that leads to the Service `{}`",
            workload.namespace, workload.service
        ),
    })?;
    Ok(Carriers {
        lead,
        object,
        followers: found.map(|(target, _)| target).collect(),
    })
}

/// The routes that lead to services of one namespace, HTTPRoutes first.
pub(super) async fn leads<'a>(
    platform: &KubePlatform,
    namespace: &str,
    workloads: &[&'a Workload],
) -> Result<Vec<(&'a Workload, DynamicObject)>> {
    let mut leads = Vec::new();
    for kind in KINDS {
        for route in list(platform, namespace, kind).await?.unwrap_or_default() {
            let led = workloads.iter().filter(|workload| leads_to(&route, workload));
            leads.extend(led.map(|workload| (*workload, route.clone())));
        }
    }
    Ok(leads)
}

/// Puts the share into the rules of a route; false when it has it.
pub(super) fn put(object: &DynamicObject, patch: &mut Patch<'_>, workload: &Workload, percent: u8) -> Result<bool> {
    let canary = workload.canary_service();
    let backends = workload.backends(&canary);
    let rules = rules_of(object);
    let known: Option<Vec<Base>> = annotation(object, BASE).and_then(|text| serde_json::from_str(text).ok());
    let bases = known
        .clone()
        .unwrap_or_else(|| route::bases(rules, backends, workload.mark.as_ref()));
    let new = route::with_share(rules, backends, &bases, percent);
    let new = new.map_err(|why| PlatformError::Refused {
        what: format!("{percent} % of the traffic of `{}` for a canary", workload.name),
        why,
    })?;
    let same = new.as_slice() == rules;
    if !same {
        patch.set(RULES, new);
    }
    match (percent, known) {
        (0, Some(_)) => patch.annotate(BASE, None),
        (1.., None) => {
            let text = serde_json::to_string(&bases).expect("numbers are JSON");
            patch.annotate(BASE, Some(&text));
        }
        _ => return Ok(!same),
    }
    Ok(true)
}

/// The share that the rules of a route give the canary; absent when they differ.
pub(super) fn percent(object: &DynamicObject, workload: &Workload) -> Option<u8> {
    route::percent(rules_of(object), workload.backends(&workload.canary_service()))
}

/// The first name of an HTTPRoute that is not a pattern.
pub(super) fn hostname(object: &DynamicObject) -> Option<String> {
    object.types.as_ref().filter(|types| types.kind == KINDS[0])?;
    let names = object.data.pointer("/spec/hostnames")?.as_array()?;
    let mut names = names.iter().filter_map(Value::as_str);
    names.find(|name| !name.starts_with('*')).map(str::to_owned)
}

fn leads_to(route: &DynamicObject, workload: &Workload) -> bool {
    let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
    route::lead_to(
        rules_of(route),
        namespace,
        workload.backends(&workload.canary_service()),
    )
}

fn rules_of(object: &DynamicObject) -> &[Value] {
    let rules = object.data.pointer(RULES).and_then(Value::as_array);
    rules.map_or(&[], Vec::as_slice)
}

fn target(workload: &Workload, kind: &str, name: &str) -> Target {
    Target {
        resource: resource(kind),
        namespace: Some(workload.namespace.clone()),
        name: name.to_owned(),
    }
}

pub(in crate::kube) fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind))
}

/// All routes of a kind; absent where that kind is not known.
async fn list(platform: &KubePlatform, namespace: &str, kind: &str) -> Result<Option<Vec<DynamicObject>>> {
    let api: Api<DynamicObject> = Api::namespaced_with(platform.clients.calls.clone(), namespace, &resource(kind));
    let mut all = Vec::new();
    let listed = platform.each(&api, ListParams::default(), |route| all.push(route.clone()));
    match listed.await {
        Ok(()) => Ok(Some(all)),
        Err(PlatformError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
