//! What the API server is told: the names of services, what pods use, the gateway, and where the servers on the host are.

use serde_json::{Value, json};

use super::{
    configuration::{GATEWAY_FOR_PODS, NAMES, POSTGRES, PROMETHEUS},
    database::{self, SERVICES},
    images::{COREDNS, METRICS_SERVER, USER},
    network::ADDRESS,
    state::State,
};

/// The namespace of the gateway and of what watches.
pub(super) const OWN: &str = "opsctl";
/// The namespace of the reference services.
pub(super) const SHOP: &str = "shop";

/// The namespaces, and what pods cannot do without.
pub(super) fn foundation(state: &State) -> Value {
    let mut items = vec![namespace(OWN), namespace(SHOP)];
    items.extend(names());
    items.extend(metrics_server());
    items.extend(on_the_host("postgres", SHOP, POSTGRES));
    items.extend(on_the_host("prometheus", OWN, PROMETHEUS));
    items.extend(SERVICES.iter().map(|service| database_secret(state, service)));
    list(items)
}

/// The gateway: `web` for clients on this machine, `pods` for those in the cluster. Any namespace may have routes.
pub(super) fn gateway(state: &State) -> Value {
    let listener = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } } });
    list(vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": { "name": "traefik" },
            "spec": { "controllerName": "traefik.io/gateway-controller" },
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": { "name": "gateway", "namespace": OWN },
            "spec": {
                "gatewayClassName": "traefik",
                "listeners": [listener("web", state.gateway), listener("pods", GATEWAY_FOR_PODS)],
            },
        }),
    ])
}

pub(super) fn list(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A Service without a selector, for what listens on the node's address.
fn on_the_host(name: &str, namespace: &str, port: u16) -> [Value; 2] {
    let ports = json!([{ "name": name, "port": port, "protocol": "TCP" }]);
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "ports": ports },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": { "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "opsctl" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [ADDRESS], "conditions": { "ready": true } }],
            "ports": ports,
        }),
    ]
}

fn database_secret(state: &State, service: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": format!("{service}-database"), "namespace": SHOP },
        "stringData": { "url": database::url(state, service, &format!("postgres.{SHOP}")) },
    })
}

/// CoreDNS. What routes call `SERVICE.shop.local` is the gateway, to pods; names from outside are not known.
fn names() -> Vec<Value> {
    let corefile = format!(
        ".:1053 {{
  errors
  health :8080
  ready :8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    pods insecure
    ttl 5
  }}
  template IN A shop.local {{
    answer \"{{{{ .Name }}}} 5 IN A {ADDRESS}\"
  }}
  template IN AAAA shop.local {{
    rcode NOERROR
  }}
  cache 5
}}
"
    );
    let read = ["list", "watch"];
    let rules = json!([
        { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": read },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read },
    ]);
    let mut objects = account("coredns", "system:coredns", rules);
    let mut deployment = deployment("coredns", COREDNS, &["-conf", "/etc/coredns/Corefile"], 1053);
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = json!([{ "name": "config", "configMap": { "name": "coredns" } }]);
    let container = &mut pod["containers"][0];
    container["volumeMounts"] = json!([{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }]);
    container["ports"] =
        json!([{ "containerPort": 1053, "protocol": "UDP" }, { "containerPort": 1053, "protocol": "TCP" }]);
    container["readinessProbe"] = json!({ "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 });
    objects.extend([
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": own("coredns"),
            "data": { "Corefile": corefile },
        }),
        deployment,
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": own("kube-dns"),
            "spec": {
                "clusterIP": NAMES,
                "selector": { "app.kubernetes.io/name": "coredns" },
                "ports": [
                    { "name": "dns", "port": 53, "targetPort": 1053, "protocol": "UDP" },
                    { "name": "dns-tcp", "port": 53, "targetPort": 1053, "protocol": "TCP" },
                ],
            },
        }),
    ]);
    objects
}

fn metrics_server() -> Vec<Value> {
    let rules = json!([
        { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
        { "apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"] },
    ]);
    let mut objects = account("metrics-server", "system:metrics-server", rules);
    let arguments = [
        "--secure-port=10250",
        "--cert-dir=/tmp",
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        "--metric-resolution=15s",
        // Nodes that are played have nobody to ask.
        "--node-selector=type!=kwok",
    ];
    let mut deployment = deployment("metrics-server", METRICS_SERVER, &arguments, 10250);
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = json!([{ "name": "tmp", "emptyDir": {} }]);
    let container = &mut pod["containers"][0];
    container["volumeMounts"] = json!([{ "name": "tmp", "mountPath": "/tmp" }]);
    container["readinessProbe"] =
        json!({ "httpGet": { "path": "/readyz", "port": 10250, "scheme": "HTTPS" }, "periodSeconds": 1 });
    objects.extend([
        deployment,
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": own("metrics-server"),
            "spec": {
                "selector": { "app.kubernetes.io/name": "metrics-server" },
                "ports": [{ "name": "https", "port": 443, "targetPort": 10250 }],
            },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "metrics-server:system:auth-delegator" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator" },
            "subjects": [{ "kind": "ServiceAccount", "name": "metrics-server", "namespace": "kube-system" }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": own("metrics-server-auth-reader"),
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": "metrics-server", "namespace": "kube-system" }],
        }),
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": { "name": "v1beta1.metrics.k8s.io" },
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": true,
                "service": { "name": "metrics-server", "namespace": "kube-system" },
            },
        }),
    ]);
    objects
}

fn own(name: &str) -> Value {
    json!({ "name": name, "namespace": "kube-system", "labels": { "app.kubernetes.io/name": name } })
}

/// A service account that may do what `rules` say everywhere.
fn account(name: &str, role: &str, rules: Value) -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": own(name) }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": role },
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": role },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" }],
        }),
    ]
}

fn deployment(name: &str, image: &str, arguments: &[&str], port: u16) -> Value {
    let labels = json!({ "app.kubernetes.io/name": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": own(name),
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "serviceAccountName": name,
                    "priorityClassName": "system-cluster-critical",
                    // The node gives it names; it is who gives names to others.
                    "dnsPolicy": "Default",
                    "containers": [{
                        "name": name,
                        "image": image,
                        "imagePullPolicy": "Never",
                        "args": arguments,
                        "ports": [{ "containerPort": port }],
                        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "runAsNonRoot": true,
                            "runAsUser": USER,
                            "capabilities": { "drop": ["ALL"] },
                            "seccompProfile": { "type": "RuntimeDefault" },
                        },
                    }],
                },
            },
        },
    })
}
