//! The Deployment and the Service of a canary, made from those of the stable version, and the patch that promotes it.
//! JSON in, JSON out; it asks nobody.
//!
//! The pods of a canary are copies of the stable ones with another image, and match neither the stable Service nor the
//! stable Deployment: else they would have traffic before their share, and an autoscaler would count them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::VersionSpec;
use crate::kube::record::{MANAGED_BY, RUN};
use crate::kube::state::VERSION;

/// On a canary's Deployment: its [`VersionSpec`] as it was asked for.
pub(super) const SPEC: &str = "opsctl.dev/spec";
/// On a canary's Deployment: the [`VersionSpec`] of the version that was stable when it was made.
pub(super) const REPLACES: &str = "opsctl.dev/replaces";
/// Tells the pods of a canary from those of the stable version, where both Service and Deployment select by it.
const TRACK: &str = "opsctl.dev/track";
/// The Deployment of pods that may join another Service.
const OF: &str = "opsctl.dev/canary-of";
/// Words in keys of labels by which others know their objects, and would prune or revert a copy.
const FOREIGN: &[&str] = &[
    "argocd.argoproj.io/",
    "toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "helm.sh/",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
];

/// What a canary is made of.
pub(super) struct Source<'a> {
    /// The stable Deployment.
    pub(super) deployment: &'a Value,
    /// The stable Service.
    pub(super) service: &'a Value,
    /// The container that runs the program.
    pub(super) container: &'a str,
    /// Pods will join the stable Service by its labels ([`Provider::Replicas`](crate::kube::Provider)).
    pub(super) joins: bool,
    /// The names of the new objects.
    pub(super) canary_deployment: &'a str,
    pub(super) canary_service: &'a str,
}

/// The two objects of a canary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Canary {
    pub(super) deployment: Value,
    pub(super) service: Value,
}

/// Makes both. Errors: why that cannot be.
pub(super) fn canary(
    source: &Source<'_>,
    spec: &VersionSpec,
    replaces: &VersionSpec,
    run: Option<&str>,
) -> Result<Canary, String> {
    if !is_label(&spec.version) {
        return Err(format!("`{}` cannot be the value of a label", spec.version));
    }
    let selected = texts(source.service.pointer("/spec/selector"));
    if selected.is_empty() {
        return Err(format!(
            "the Service `{}` has no selector, so nobody can tell its pods from those of a canary; name one that has with `service`",
            name_of(source.service)
        ));
    }
    let matched = texts(source.deployment.pointer("/spec/selector/matchLabels"));
    let changed = changed_labels(&selected, &matched).ok_or_else(|| {
        format!(
            "the Deployment `{}` selects its pods by no label",
            name_of(source.deployment)
        )
    })?;
    let change = |labels: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(key, value)| (key.clone(), changed.get(key).unwrap_or(value).clone()))
            .collect()
    };
    let namespace = source
        .deployment
        .pointer("/metadata/namespace")
        .cloned()
        .unwrap_or_default();
    let mut labels = change(&own(source.deployment.pointer("/metadata/labels")));
    labels.insert(VERSION.to_owned(), spec.version.clone());
    labels.insert(MANAGED_BY.to_owned(), "opsctl".to_owned());

    let mut body = source.deployment.get("spec").cloned().unwrap_or_default();
    body["replicas"] = spec.replicas.into();
    let mut selects = change(&matched);
    if source.joins {
        // What a pod changes to join the Service must not be what its Deployment knows it by.
        selects.retain(|key, _| !changed.contains_key(key));
        selects.insert(OF.to_owned(), source.canary_deployment.to_owned());
    }
    body["selector"] = json!({ "matchLabels": selects });
    let template = &mut body["template"];
    let mut of_pods = change(&texts(template.pointer("/metadata/labels")));
    of_pods.insert(VERSION.to_owned(), spec.version.clone());
    of_pods.extend(selects);
    template["metadata"]["labels"] = json!(of_pods);
    let annotations: BTreeMap<String, String> = texts(template.pointer("/metadata/annotations"))
        .into_iter()
        .filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/"))
        .collect();
    template["metadata"]["annotations"] = json!(annotations);
    let container = template
        .pointer_mut("/spec/containers")
        .and_then(Value::as_array_mut)
        .and_then(|all| all.iter_mut().find(|container| container["name"] == source.container))
        .ok_or_else(|| format!("there is no container `{}`", source.container))?;
    if let Some(image) = &spec.image {
        container["image"] = image.as_str().into();
    }
    if !spec.env.is_empty() {
        container["env"] = with_env(container.get("env"), &spec.env);
    }
    let text = |spec: &VersionSpec| spec.value().to_string();
    let mut notes = Map::new();
    notes.insert(SPEC.to_owned(), text(spec).into());
    notes.insert(REPLACES.to_owned(), text(replaces).into());
    notes.extend(run.map(|run| (RUN.to_owned(), run.into())));

    let mut ports = source.service.pointer("/spec/ports").cloned().unwrap_or_default();
    for port in ports
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        port.remove("nodePort");
    }
    let mut of_service = json!({ "selector": change(&selected), "ports": ports });
    for key in ["sessionAffinity", "sessionAffinityConfig", "publishNotReadyAddresses"] {
        if let Some(value) = source.service["spec"].get(key) {
            of_service[key] = value.clone();
        }
    }
    if source
        .service
        .pointer("/spec/clusterIP")
        .is_some_and(|address| address == "None")
    {
        of_service["clusterIP"] = "None".into();
    }
    Ok(Canary {
        deployment: json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": source.canary_deployment,
                "namespace": namespace,
                "labels": labels,
                "annotations": notes,
            },
            "spec": body,
        }),
        service: json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": source.canary_service,
                "namespace": namespace,
                "labels": labels,
                "annotations": run.map_or_else(|| json!({}), |run| json!({ (RUN): run })),
            },
            "spec": of_service,
        }),
    })
}

/// The values in the stable Deployment that make it run the canary's version, by JSON pointer.
pub(super) fn promotion(
    stable: &Value,
    canary: &Value,
    container: &str,
    spec: &VersionSpec,
) -> Result<Vec<(String, Value)>, String> {
    let find = |deployment: &Value| -> Option<(usize, Value)> {
        let all = deployment.pointer("/spec/template/spec/containers")?.as_array()?;
        let index = all.iter().position(|one| one["name"] == container)?;
        Some((index, all[index].clone()))
    };
    let (index, now) = find(stable).ok_or_else(|| format!("there is no container `{container}`"))?;
    let (_, new) = find(canary).ok_or_else(|| format!("the canary has no container `{container}`"))?;
    let at = format!("/spec/template/spec/containers/{index}");
    let mut values = vec![(format!("{at}/image"), new["image"].clone())];
    if !spec.env.is_empty() {
        values.push((format!("{at}/env"), with_env(now.get("env"), &spec.env)));
    }
    let version = crate::field::escape(VERSION);
    if stable.pointer("/spec/template/metadata/labels").is_some() {
        values.push((
            format!("/spec/template/metadata/labels/{version}"),
            spec.version.as_str().into(),
        ));
    }
    if stable.pointer(&format!("/metadata/labels/{version}")).is_some() {
        values.push((format!("/metadata/labels/{version}"), spec.version.as_str().into()));
    }
    Ok(values)
}

/// The labels that tell a canary's pods from the stable ones, with their new values: the track where both select by it,
/// else the last label that both select by, else one of each.
fn changed_labels(
    selected: &BTreeMap<String, String>,
    matched: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let renamed = |(key, value): (&String, &String)| (key.clone(), format!("{value}-canary"));
    if selected.contains_key(TRACK) && matched.contains_key(TRACK) {
        return Some(BTreeMap::from([(TRACK.to_owned(), "canary".to_owned())]));
    }
    let common = selected.iter().rfind(|(key, value)| matched.get(*key) == Some(value));
    if let Some(label) = common {
        return Some(BTreeMap::from([renamed(label)]));
    }
    let (one, other) = (selected.iter().next_back()?, matched.iter().next_back()?);
    Some(BTreeMap::from([renamed(one), renamed(other)]))
}

/// The label that keeps pods out of a Service which selects by `selected`.
pub(in crate::kube) fn apart(selected: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    if selected.contains_key(TRACK) {
        return BTreeMap::from([(TRACK.to_owned(), "canary".to_owned())]);
    }
    let last = selected.iter().next_back();
    last.map(|(key, value)| (key.clone(), format!("{value}-canary")))
        .into_iter()
        .collect()
}

/// The environment with some variables set, in the place that they have.
fn with_env(env: Option<&Value>, set: &BTreeMap<String, String>) -> Value {
    let mut all = env.and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, value) in set {
        let entry = json!({ "name": name, "value": value });
        match all.iter_mut().find(|one| one["name"] == **name) {
            Some(one) => *one = entry,
            None => all.push(entry),
        }
    }
    all.into()
}

/// Labels of an object that are no mark of somebody else's.
fn own(labels: Option<&Value>) -> BTreeMap<String, String> {
    let mut labels = texts(labels);
    labels.retain(|key, _| !FOREIGN.iter().any(|foreign| key.contains(foreign)));
    labels
}

/// A map of texts; empty for anything else.
pub(in crate::kube) fn texts(map: Option<&Value>) -> BTreeMap<String, String> {
    let map = map.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn name_of(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether a text can be the value of a label.
fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= 63 && bytes.iter().copied().all(inside) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests;
