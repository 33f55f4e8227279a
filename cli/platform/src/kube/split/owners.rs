//! Who else keeps an object as it should be: Argo CD, Flux, another rollout. What such a one owns it sets back, in the
//! middle of a canary. Pure.

use kube::api::DynamicObject;
use serde_json::Value;

use crate::{PlatformError, Result};

/// Somebody who set the annotation has agreed that opsctl changes the object.
const TAKEN_OVER: &str = "opsctl.dev/take-ownership";

/// Managers of fields that set back what others change, by the beginning of their names.
const KEEPERS: &[&str] = &[
    "argocd",
    "kustomize-controller",
    "helm-controller",
    "flux",
    "flagger",
    "rollouts-controller",
    "argo-rollouts",
];

/// What of an object is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kube) enum Part {
    /// The rules of a route.
    Rules,
    /// The image of a Deployment, which a promotion changes.
    Image,
    /// What a Secret holds.
    Data,
}

impl Part {
    /// In words, where jq finds it, and where `managedFields` have it.
    fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Rules => ("weights", ".spec.rules[].backendRefs", "/f:spec/f:rules"),
            Self::Image => ("image", ".spec.template", "/f:spec/f:template"),
            Self::Data => ("content", ".data", "/f:data"),
        }
    }
}

/// Refuses to change what somebody else keeps.
pub(in crate::kube) fn check(object: &DynamicObject, taken_over: bool, part: Part) -> Result<()> {
    let metadata = &object.metadata;
    let annotated = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
    if taken_over || annotated(TAKEN_OVER).is_some_and(|value| value == "true") {
        return Ok(());
    }
    let labelled = |key: &str| metadata.labels.as_ref().and_then(|all| all.get(key));
    let kind = object.types.as_ref().map_or("Object", |types| types.kind.as_str());
    let name = metadata.name.as_deref().unwrap_or_default();
    let group = object
        .types
        .as_ref()
        .and_then(|types| types.api_version.split_once('/'))
        .map_or("", |(group, _)| group);
    let argo = annotated("argocd.argoproj.io/tracking-id").or_else(|| labelled("argocd.argoproj.io/instance"));
    let flux = labelled("kustomize.toolkit.fluxcd.io/name").or_else(|| labelled("helm.toolkit.fluxcd.io/name"));
    let (words, path, pointer) = part.describe();
    let keeper = keeper(object, pointer);
    let (who, how) = if let Some(application) = argo {
        let application = application.split(':').next().unwrap_or_default();
        (
            format!("the Argo CD application `{application}`"),
            format!(
                "add to its spec: ignoreDifferences: [{{group: {group}, kind: {kind}, name: {name}, jqPathExpressions: ['{path}']}}], with the sync option RespectIgnoreDifferences=true"
            ),
        )
    } else if let Some(kustomization) = flux {
        (
            format!("Flux (`{kustomization}`)"),
            "annotate the object in Git with kustomize.toolkit.fluxcd.io/ssa: IfNotPresent".to_owned(),
        )
    } else if let Some(keeper) = keeper {
        (format!("`{keeper}`"), format!("tell that one to leave `{path}` alone"))
    } else {
        return Ok(());
    };
    Err(PlatformError::Owned {
        what: format!("a change of the {words} of {kind} `{name}`"),
        owner: who,
        how,
    })
}

/// The manager that owns the fields at `pointer` and keeps them.
fn keeper<'a>(object: &'a DynamicObject, pointer: &str) -> Option<&'a str> {
    let entries = object.metadata.managed_fields.as_deref().unwrap_or_default();
    entries.iter().find_map(|entry| {
        let manager = entry.manager.as_deref()?;
        let fields: &Value = &entry.fields_v1.as_ref()?.0;
        let keeps = KEEPERS.iter().any(|keeper| manager.starts_with(keeper));
        (keeps && fields.pointer(pointer).is_some()).then_some(manager)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(metadata: &Value) -> DynamicObject {
        let mut metadata = metadata.clone();
        metadata["name"] = "orders".into();
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata,
        }))
        .expect("an object")
    }

    #[test]
    fn what_a_gitops_tool_keeps_is_refused_with_the_rule_that_it_needs() {
        let argo = route(
            &json!({ "annotations": { "argocd.argoproj.io/tracking-id": "shop:gateway.networking.k8s.io/HTTPRoute:shop/orders" } }),
        );
        let text = check(&argo, false, Part::Rules).expect_err("it is kept").to_string();
        assert!(text.contains("Argo CD application `shop`"), "{text}");
        assert!(
            text.contains("ignoreDifferences: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders"),
            "{text}"
        );
        assert!(check(&argo, true, Part::Rules).is_ok());

        let flux = route(&json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "apps" } }));
        assert!(
            check(&flux, false, Part::Rules)
                .expect_err("it is kept")
                .to_string()
                .contains("Flux (`apps`)")
        );

        let taken = route(
            &json!({ "labels": { "helm.toolkit.fluxcd.io/name": "apps" }, "annotations": { "opsctl.dev/take-ownership": "true" } }),
        );
        assert!(check(&taken, false, Part::Rules).is_ok());
    }

    #[test]
    fn only_those_who_set_things_back_count_as_owners() {
        let owned = |manager: &str, fields: Value| {
            route(
                &json!({ "managedFields": [{ "manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields }] }),
            )
        };
        let rules = json!({ "f:spec": { "f:rules": {} } });
        assert!(check(&owned("kubectl-client-side-apply", rules.clone()), false, Part::Rules).is_ok());
        assert!(check(&owned("helm", rules.clone()), false, Part::Rules).is_ok());
        assert!(check(&owned("argocd-controller", rules), false, Part::Rules).is_err());
        assert!(
            check(
                &owned("argocd-controller", json!({ "f:metadata": {} })),
                false,
                Part::Rules
            )
            .is_ok()
        );
    }
}
