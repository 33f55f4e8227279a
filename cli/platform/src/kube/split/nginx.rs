//! ingress-nginx as the one who splits: a second Ingress beside the service's own, whose annotations say how much of its
//! traffic goes to the canary. ingress-nginx was retired in March 2026, but its annotations live on.
//!
//! Only the objects are held against a real API server: no controller that reads them is run in our tests.

use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::{Carriers, GIVEN, Shift, ambiguous, carrying};
use crate::kube::edit::{MANAGER, Patch, Patched, Target, annotation};
use crate::kube::record::MANAGED_BY;
use crate::kube::versions::{delete, make};
use crate::kube::{KubePlatform, Workload};
use crate::{PlatformError, Result};

const CANARY: &str = "nginx.ingress.kubernetes.io/canary";
const WEIGHT: &str = "nginx.ingress.kubernetes.io/canary-weight";
const BY_HEADER: &str = "nginx.ingress.kubernetes.io/canary-by-header";
const BY_HEADER_VALUE: &str = "nginx.ingress.kubernetes.io/canary-by-header-value";

/// The Ingress that leads to the Service, which is the lead.
pub(super) async fn find(platform: &KubePlatform, workload: &Workload) -> Result<Carriers> {
    let api: Api<DynamicObject> = Api::namespaced_with(
        platform.clients.calls.clone(),
        &workload.namespace,
        &Target::of::<Ingress>("", "").resource,
    );
    let mut found = Vec::new();
    let listed = platform.each(&api, ListParams::default(), |object| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let named =
            workload.routes.is_empty() || workload.routes.iter().any(|route| *route == format!("Ingress/{name}"));
        let leads = !backends(&object.data, &workload.service).is_empty();
        if named && leads && annotation(object, CANARY).is_none_or(|value| value != "true") {
            found.push((Target::of::<Ingress>(&workload.namespace, name), object.clone()));
        }
    });
    listed.await?;
    let mut found = carrying(found);
    if let [(one, _), (two, _), ..] = found.as_slice() {
        return Err(ambiguous(workload, "Ingress", &one.name, &two.name));
    }
    let (lead, object) = found.pop().ok_or_else(|| PlatformError::Missing {
        what: format!(
            "an Ingress in namespace `{}` that leads to the Service `{}`",
            workload.namespace, workload.service
        ),
    })?;
    Ok(Carriers {
        lead,
        object,
        followers: Vec::new(),
    })
}

/// Makes, changes or deletes the second Ingress.
pub(super) async fn follow(shift: &Shift<'_>) -> Result<()> {
    let (platform, workload) = (shift.platform, shift.workload);
    let name = format!("{}-canary", shift.carriers.lead.name);
    let target = Target::of::<Ingress>(&workload.namespace, &name);
    if shift.percent == 0 {
        platform.admit(shift.by).await?;
        return delete(platform, &target, shift.dry_run).await;
    }
    let primary = serde_json::to_value(&shift.carriers.object).unwrap_or_default();
    let wanted = canary(&primary, workload, &name, shift.percent);
    loop {
        platform.admit(shift.by).await?;
        let Some(object) = platform.read(&target).await? else {
            return make(platform, &target, &wanted, shift.dry_run).await;
        };
        let weight = shift.percent.to_string();
        if annotation(&object, WEIGHT) == Some(&weight) {
            return Ok(());
        }
        let mut patch = Patch::new(&object);
        patch.annotate(WEIGHT, Some(&weight));
        patch.annotate(GIVEN, Some(&weight));
        match platform.patch(&target, patch.into_ops(), shift.dry_run).await? {
            Patched::Done => return Ok(()),
            Patched::Raced | Patched::Gone => {}
        }
    }
}

/// Whether somebody else has changed the weight, or taken the second Ingress away.
pub(super) async fn is_foreign(platform: &KubePlatform, workload: &Workload, lead: &Target) -> Result<bool> {
    let target = Target::of::<Ingress>(&workload.namespace, &format!("{}-canary", lead.name));
    let second = platform.read(&target).await?;
    Ok(second.is_none_or(|second| annotation(&second, WEIGHT) != annotation(&second, GIVEN)))
}

/// The second Ingress: the same hosts and paths, as far as they lead to the service, to the canary's Service. Everything
/// else is taken from the first one.
fn canary(primary: &Value, workload: &Workload, name: &str, percent: u8) -> Value {
    let to = workload.canary_service();
    let mut rules = primary
        .pointer("/spec/rules")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    rules.retain_mut(|rule| {
        let Some(paths) = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut) else {
            return false;
        };
        paths.retain_mut(|path| {
            let own = path["backend"]["service"]["name"] == *workload.service;
            if own {
                path["backend"]["service"]["name"] = to.as_str().into();
            }
            own
        });
        !paths.is_empty()
    });
    let mut spec = json!({ "rules": rules });
    if let Some(class) = primary.pointer("/spec/ingressClassName") {
        spec["ingressClassName"] = class.clone();
    }
    let mut annotations = json!({ (CANARY): "true", (WEIGHT): percent.to_string(), (GIVEN): percent.to_string() });
    // Which controller it belongs to, where that is said in the older way.
    let class = "kubernetes.io/ingress.class";
    if let Some(value) = primary["metadata"]["annotations"].get(class) {
        annotations[class] = value.clone();
    }
    if let Some(mark) = &workload.mark {
        annotations[BY_HEADER] = mark.name.as_str().into();
        annotations[BY_HEADER_VALUE] = mark.value.as_str().into();
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": workload.namespace,
            "labels": { (MANAGED_BY): MANAGER },
            "annotations": annotations,
        },
        "spec": spec,
    })
}

/// The paths of an Ingress that lead to a Service.
fn backends<'a>(ingress: &'a Value, service: &str) -> Vec<&'a Value> {
    let rules = ingress.pointer("/spec/rules").and_then(Value::as_array);
    let paths = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.pointer("/http/paths")?.as_array());
    paths
        .flatten()
        .filter(|path| path["backend"]["service"]["name"] == *service)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_ingress_has_the_paths_of_the_service_alone() {
        let path = |path: &str, service: &str| json!({ "path": path, "pathType": "Prefix", "backend": { "service": { "name": service, "port": { "number": 80 } } } });
        let primary = json!({
            "metadata": { "name": "shop", "annotations": { "nginx.ingress.kubernetes.io/rewrite-target": "/" } },
            "spec": {
                "ingressClassName": "nginx",
                "tls": [{ "hosts": ["shop.local"] }],
                "rules": [
                    { "host": "shop.local", "http": { "paths": [path("/orders", "orders"), path("/", "front")] } },
                    { "host": "other.local", "http": { "paths": [path("/", "front")] } },
                ],
            },
        });
        let workload = Workload {
            namespace: "shop".to_owned(),
            service: "orders".to_owned(),
            mark: Some("header:x-canary=k7".parse().expect("a mark")),
            ..Workload::default()
        };
        assert_eq!(backends(&primary, "orders").len(), 1);
        let made = canary(&primary, &workload, "shop-canary", 10);
        assert_eq!(
            made["spec"],
            json!({ "ingressClassName": "nginx", "rules": [{ "host": "shop.local", "http": { "paths": [path("/orders", "orders-canary")] } }] })
        );
        assert_eq!(
            made["metadata"]["annotations"],
            json!({ (CANARY): "true", (WEIGHT): "10", (GIVEN): "10", (BY_HEADER): "x-canary", (BY_HEADER_VALUE): "k7" })
        );
    }
}
