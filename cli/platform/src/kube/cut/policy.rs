//! What a NetworkPolicy says: the one of ours, made from what is behind a Service, and whether another one is in its way.
//! Nothing is asked here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::core::{Selector, SelectorExt as _};
use serde_json::{Value, json};

use super::super::Workload;
use super::super::outpost::Outpost;
use crate::Cut;

/// What is to be kept away from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Walled {
    /// The Service's own addresses and those behind it.
    addresses: BTreeSet<IpAddr>,
    namespace: String,
    /// How its pods are selected; empty where they are not pods.
    selector: BTreeMap<String, String>,
    /// The Service's first port.
    pub(super) port: i32,
}

/// What is behind a Service. An error says why that cannot be told.
pub(super) fn walled(namespace: &str, service: &Service, slices: &[EndpointSlice]) -> Result<Walled, String> {
    let spec = service.spec.as_ref().ok_or("the Service has no spec")?;
    let port = spec
        .ports
        .iter()
        .flatten()
        .next()
        .ok_or("the Service has no ports")?
        .port;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let behind: BTreeSet<IpAddr> = endpoints
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse().ok())
        .collect();
    if behind.is_empty() {
        return Err("the Service leads to no address".to_owned());
    }
    // `None` is a word there.
    let own = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
    Ok(Walled {
        addresses: behind.into_iter().chain(own).collect(),
        namespace: namespace.to_owned(),
        selector: spec.selector.clone().unwrap_or_default(),
        port,
    })
}

impl Walled {
    /// Everybody else. Some plugins know pods by their labels alone and others by their addresses alone, so it is said both
    /// ways.
    fn others(&self) -> Vec<Value> {
        let block = |all: &str, v4: bool| {
            let addresses = self.addresses.iter().filter(|address| address.is_ipv4() == v4);
            let length = if v4 { 32 } else { 128 };
            let except: Vec<String> = addresses.map(|address| format!("{address}/{length}")).collect();
            json!({ "ipBlock": { "cidr": all, "except": except } })
        };
        let not = |key: &str, value: &str| json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": [value] }] });
        let mut others = vec![block("0.0.0.0/0", true), block("::/0", false)];
        if self.selector.is_empty() {
            others.push(json!({ "namespaceSelector": {} }));
            return others;
        }
        others.push(json!({ "namespaceSelector": not("kubernetes.io/metadata.name", &self.namespace) }));
        others.extend(
            self.selector
                .iter()
                .map(|(key, value)| json!({ "namespaceSelector": {}, "podSelector": not(key, value) })),
        );
        others
    }

    /// The policy for the pods that `selector` selects. It goes with `holder`.
    pub(super) fn policy(
        &self,
        outpost: &Outpost,
        workload: &Workload,
        selector: &Value,
        holder: &Deployment,
        note: &str,
        cut: &Cut,
    ) -> NetworkPolicy {
        let policy = json!({
            "metadata": {
                "name": outpost.name,
                "namespace": outpost.namespace,
                "labels": outpost.labels(&workload.deployment),
                "annotations": { note: cut.value().to_string() },
                "ownerReferences": [{
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": outpost.name,
                    "uid": holder.metadata.uid,
                }],
            },
            "spec": {
                "podSelector": selector,
                "policyTypes": ["Egress"],
                "egress": [{ "to": self.others() }],
            },
        });
        serde_json::from_value(policy).expect("it is a NetworkPolicy")
    }
}

/// Whether a policy says where pods with these labels may connect to. A selector that cannot be read may select them.
pub(super) fn governs(policy: &NetworkPolicySpec, labels: &BTreeMap<String, String>) -> bool {
    let outwards = policy.policy_types.iter().flatten().any(|way| way == "Egress");
    let selector = policy.pod_selector.clone().unwrap_or_default();
    outwards && Selector::try_from(selector).map_or(true, |selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({ "spec": spec })).expect("a Service")
    }

    fn slice(kind: &str, addresses: &[&str]) -> EndpointSlice {
        let endpoints = [json!({ "addresses": addresses })];
        serde_json::from_value(json!({ "addressType": kind, "endpoints": endpoints, "ports": [] })).expect("a slice")
    }

    #[test]
    fn everybody_may_be_reached_but_who_is_behind_the_service() {
        let database = service(json!({
            "clusterIPs": ["10.96.0.7", "fd00::7"],
            "selector": { "app": "postgres" },
            "ports": [{ "port": 5432 }],
        }));
        let slices = [
            slice("IPv4", &["10.244.0.9", "10.244.1.4"]),
            slice("IPv6", &["fd01::9"]),
        ];
        let walled = walled("data", &database, &slices).expect("addresses");
        assert_eq!(walled.port, 5432);
        assert_eq!(
            Value::from(walled.others()),
            json!([
                { "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.96.0.7/32", "10.244.0.9/32", "10.244.1.4/32"] } },
                { "ipBlock": { "cidr": "::/0", "except": ["fd00::7/128", "fd01::9/128"] } },
                { "namespaceSelector": { "matchExpressions": [
                    { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["data"] },
                ] } },
                { "namespaceSelector": {}, "podSelector": { "matchExpressions": [
                    { "key": "app", "operator": "NotIn", "values": ["postgres"] },
                ] } },
            ])
        );
    }

    #[test]
    fn a_database_outside_is_no_pod() {
        let database = service(json!({ "clusterIPs": ["None"], "ports": [{ "port": 5432 }] }));
        let walled = walled("shop", &database, &[slice("IPv4", &["192.0.2.1"])]).expect("an address");
        let others = Value::from(walled.others());
        assert_eq!(others[0]["ipBlock"]["except"], json!(["192.0.2.1/32"]));
        assert_eq!(others[2], json!({ "namespaceSelector": {} }));
    }

    #[test]
    fn what_leads_nowhere_cannot_be_cut_off() {
        let refused = |spec, slices: &[EndpointSlice]| walled("shop", &service(spec), slices).expect_err("a refusal");
        let ports = json!([{ "port": 5432 }]);
        assert!(refused(json!({ "ports": ports }), &[]).contains("no address"));
        assert!(refused(json!({ "ports": ports }), &[slice("FQDN", &["db.example"])]).contains("no address"));
        assert!(refused(json!({}), &[]).contains("no ports"));
    }

    #[test]
    fn only_what_governs_the_way_out_of_these_pods_is_in_the_way() {
        let labels = BTreeMap::from([("app".to_owned(), "orders".to_owned())]);
        let governs = |spec| governs(&serde_json::from_value(spec).expect("a spec"), &labels);
        assert!(governs(
            json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })
        ));
        assert!(governs(
            json!({ "podSelector": { "matchLabels": { "app": "orders" } }, "policyTypes": ["Egress"] })
        ));
        assert!(!governs(json!({ "podSelector": {}, "policyTypes": ["Ingress"] })));
        let but = json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["orders"] }] });
        assert!(!governs(json!({ "podSelector": but, "policyTypes": ["Egress"] })));
    }
}
