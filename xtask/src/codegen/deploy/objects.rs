//! What a reference service is on Kubernetes, as objects with holes (`holes`). The Helm chart and the kustomize base are
//! both made from this; the values are `values`' matter.

use serde_json::{Value, json};

use super::stack::{GRPC, HTTP, SERVICE_USER};

/// All of them, by the file of the chart that they stand in. A service is `service` there, and its name `name`.
pub fn files() -> Vec<(&'static str, Value)> {
    let each = |objects: &[Value]| json!([{ "*name,service=services": objects }]);
    vec![
        ("service-account", each(&[service_account()])),
        ("deployment", each(&[deployment()])),
        ("service", each(&[service()])),
        ("autoscaler", each(&[autoscaler()])),
        ("disruption-budget", each(&[disruption_budget()])),
        ("default-deny", json!([default_deny()])),
        ("network-policy", each(&[network_policy()])),
        ("routes", each(&[http_route(), grpc_route()])),
    ]
}

/// The label that tells the pods of the released version from those of a canary.
const TRACK: &str = "opsctl.dev/track";
/// The label that says which version a pod runs: its image's tag.
const VERSION: &str = "app.kubernetes.io/version";
/// The label that says where an object belongs.
pub const ENVIRONMENT: &str = "opsctl.dev/environment";
/// Where identity finds its signing keys.
const KEYS: &str = "/etc/opsctl/keys";
/// Where the admin listener is: nobody but the pod itself, and whoever may forward its ports, gets there.
const ADMIN: &str = "127.0.0.1:9901";
/// Where it finds its token.
const ADMIN_TOKEN: &str = "/etc/opsctl/admin";

fn object(api: &str, kind: &str, name: &str, more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": { "name": name, "namespace": "${release.namespace}", "labels": labels() },
    });
    extend(&mut object, more);
    object
}

fn extend(object: &mut Value, more: &Value) {
    if let (Value::Object(entries), Value::Object(more)) = (object, more) {
        entries.extend(more.clone());
    }
}

/// What an object is, and who pays for it.
fn labels() -> Value {
    let mut labels = project_labels();
    extend(
        &mut labels,
        &json!({
            "app.kubernetes.io/name": "${name}",
            "app.kubernetes.io/component": "service",
            "opsctl.dev/service": "${name}",
            "opsctl.dev/owner": "${service.owner}",
            "opsctl.dev/cost-center": "${service.costCenter}",
        }),
    );
    labels
}

fn project_labels() -> Value {
    json!({
        "app.kubernetes.io/part-of": "${project}",
        "app.kubernetes.io/managed-by": "${release.service}",
        "opsctl.dev/project": "${project}",
        ENVIRONMENT: "${environment}",
    })
}

/// All pods of a service, those of a canary included.
fn pods() -> Value {
    json!({ "app.kubernetes.io/name": "${name}" })
}

/// The pods of the released version: what the Deployment keeps and the Service sends to.
fn stable_pods() -> Value {
    json!({ "app.kubernetes.io/name": "${name}", TRACK: "stable" })
}

fn service_account() -> Value {
    object(
        "v1",
        "ServiceAccount",
        "${name}",
        &json!({ "automountServiceAccountToken": false }),
    )
}

fn deployment() -> Value {
    let version = json!({ VERSION: "${service.tag|image.tag}" });
    let mut pod_labels = labels();
    extend(&mut pod_labels, &version);
    extend(&mut pod_labels, &json!({ TRACK: "stable" }));
    let mut deployment = object(
        "apps/v1",
        "Deployment",
        "${name}",
        &json!({
            "spec": {
                "!service.autoscaling.enabled": { "replicas": "${service.replicas}" },
                "revisionHistoryLimit": 5,
                "minReadySeconds": "${rollout.minReadySeconds}",
                "progressDeadlineSeconds": "${rollout.progressDeadlineSeconds}",
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "25%" } },
                "selector": { "matchLabels": stable_pods() },
                "template": {
                    "metadata": {
                        "labels": pod_labels,
                        "annotations": {
                            "prometheus.io/scrape": "true",
                            "prometheus.io/port": HTTP.to_string(),
                            "prometheus.io/path": "/metrics",
                        },
                    },
                    "spec": pod(),
                },
            },
        }),
    );
    extend(&mut deployment["metadata"]["labels"], &version);
    deployment
}

fn pod() -> Value {
    let spread = |key: &str, otherwise: &str| {
        json!({
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": otherwise,
            "labelSelector": { "matchLabels": pods() },
            "matchLabelKeys": ["pod-template-hash"],
        })
    };
    json!({
        "serviceAccountName": "${name}",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "# Told to stop, a service says that it is not ready, accepts for 5 s more, finishes what it has, and is gone":
            null,
        "# within 27 s. No preStop: it would only take from that time.": null,
        "terminationGracePeriodSeconds": "${rollout.graceSeconds}",
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": SERVICE_USER,
            "runAsGroup": SERVICE_USER,
            "fsGroup": SERVICE_USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "?image.pullSecrets": { "imagePullSecrets": "${image.pullSecrets}" },
        "?service.hostAliases": { "hostAliases": "${service.hostAliases}" },
        "topologySpreadConstraints": [
            spread("kubernetes.io/hostname", "${rollout.spreadOverNodes}"),
            spread("topology.kubernetes.io/zone", "ScheduleAnyway"),
        ],
        "containers": [container()],
        "volumes": [
            { "name": "tmp", "emptyDir": { "sizeLimit": "64Mi" } },
            { "?service.keys": [
                { "name": "keys", "secret": { "secretName": "${service.keys.secret}", "defaultMode": 0o440 } },
            ] },
            { "?service.admin.secret": [
                { "name": "admin", "secret": {
                    "secretName": "${service.admin.secret}",
                    "items": [{ "key": "${service.admin.key}", "path": "token" }],
                    "defaultMode": 0o440,
                } },
            ] },
        ],
    })
}

fn container() -> Value {
    let mut container = json!({
        "name": "${name}",
        "image": "${image.repository}/${name}:${service.tag|image.tag}",
        "imagePullPolicy": "${image.pullPolicy}",
        "env": environment(),
        "ports": [
            { "name": "http", "containerPort": HTTP },
            { "name": "grpc", "containerPort": GRPC },
        ],
        "# No limit of CPU: it would slow requests down while the node has time to spare.": null,
        "resources": "${service.resources}",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "tmp", "mountPath": "/tmp" },
            { "?service.keys": [{ "name": "keys", "mountPath": KEYS, "readOnly": true }] },
            { "?service.admin.secret": [{ "name": "admin", "mountPath": ADMIN_TOKEN, "readOnly": true }] },
        ],
    });
    for (name, path, period, failures) in [
        // A minute to start, as long as migrations may take.
        ("startupProbe", "/health/startup", 1, 60),
        ("readinessProbe", "/health/ready", 5, 2),
        // It says no only when the process itself is stuck: dependencies are readiness' matter.
        ("livenessProbe", "/health/live", 10, 3),
    ] {
        container[name] = json!({
            "httpGet": { "path": path, "port": "http" },
            "periodSeconds": period,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        });
    }
    container
}

fn environment() -> Value {
    let is = |name: &str, value: &str| json!({ "name": name, "value": value });
    // A label of the pod: an overlay or a canary that changes it changes both.
    let label = |name: &str, label: &str| {
        let path = format!("metadata.labels['{label}']");
        json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } })
    };
    let addresses = |host: &str, grpc_host: &str, port: &str, grpc_port: &str| {
        json!([
            is("${upper peer}_URL", &format!("http://{host}:{port}")),
            is("${upper peer}_GRPC_URL", &format!("http://{grpc_host}:{grpc_port}")),
        ])
    };
    json!([
        is("HTTP_ADDR", &format!("0.0.0.0:{HTTP}")),
        is("GRPC_ADDR", &format!("0.0.0.0:{GRPC}")),
        label("APP_ENV", ENVIRONMENT),
        label("SERVICE_VERSION", VERSION),
        // The service refuses to start when its drain does not fit into what it is given.
        is("DRAIN_GRACE", "${rollout.graceSeconds}s"),
        { "name": "DATABASE_URL", "valueFrom": { "secretKeyRef": {
            "name": "${service.database.secret}", "key": "${service.database.key}",
        } } },
        is("DATABASE_CONNECTIONS", "${text service.database.connections}"),
        { "?telemetry.loki": [is("LOKI_URL", "${telemetry.loki}")] },
        { "?telemetry.otlp": [
            is("OTEL_EXPORTER_OTLP_ENDPOINT", "${telemetry.otlp}"),
            is("OTEL_TRACES_SAMPLER", "${telemetry.sampler}"),
        ] },
        { "?service.keys": [is("IDENTITY_KEYS_DIR", KEYS)] },
        { "?service.admin.secret": [
            is("ADMIN_ADDR", ADMIN),
            is("ADMIN_TOKEN_FILE", &format!("{ADMIN_TOKEN}/token")),
            is("ADMIN_WRITES", "${text service.admin.writes}"),
        ] },
        { "*peer,call=service.calls": [
            { "?call.gateway": addresses(
                "${peer}.${gateway.domain}", "${peer}-grpc.${gateway.domain}", "${gateway.port}", "${gateway.port}",
            ) },
            { "!call.gateway": addresses("${peer}", "${peer}", &HTTP.to_string(), &GRPC.to_string()) },
        ] },
        { "*variable,value=service.env": [is("${variable}", "${value}")] },
    ])
}

fn service() -> Value {
    object(
        "v1",
        "Service",
        "${name}",
        &json!({
            "spec": {
                "selector": stable_pods(),
                "ports": [
                    { "name": "http", "port": HTTP, "targetPort": "http", "appProtocol": "http" },
                    { "name": "grpc", "port": GRPC, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c" },
                ],
            },
        }),
    )
}

fn autoscaler() -> Value {
    let resource = |name: &str| {
        json!({ "type": "Resource", "resource": {
            "name": name,
            "target": { "type": "Utilization", "averageUtilization": format!("${{service.autoscaling.{name}}}") },
        } })
    };
    when(
        "service.autoscaling.enabled",
        object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "${name}",
            &json!({
                "spec": {
                    "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "${name}" },
                    "minReplicas": "${service.autoscaling.minReplicas}",
                    "maxReplicas": "${service.autoscaling.maxReplicas}",
                    "metrics": [
                        resource("cpu"),
                        resource("memory"),
                        { "?service.autoscaling.requestsPerSecond": [
                            { "type": "Pods", "pods": {
                                "metric": { "name": REQUEST_RATE },
                                "target": {
                                    "type": "AverageValue",
                                    "averageValue": "${service.autoscaling.requestsPerSecond}",
                                },
                            } },
                        ] },
                        { "?service.autoscaling.queueSize": [
                            { "type": "External", "external": {
                                "metric": {
                                    "name": catalogue::OUTBOX_PENDING.metric().name,
                                    "selector": { "matchLabels": { "service": "${name}" } },
                                },
                                "target": { "type": "AverageValue", "averageValue": "${service.autoscaling.queueSize}" },
                            } },
                        ] },
                    ],
                    "behavior": {
                        // At once, and twice as many or four more, whichever is more.
                        "scaleUp": {
                            "stabilizationWindowSeconds": 0,
                            "selectPolicy": "Max",
                            "policies": [
                                { "type": "Percent", "value": 100, "periodSeconds": 15 },
                                { "type": "Pods", "value": 4, "periodSeconds": 15 },
                            ],
                        },
                        // One at a time, when it has not been needed for a while.
                        "scaleDown": {
                            "stabilizationWindowSeconds": "${service.autoscaling.scaleDownSeconds}",
                            "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }],
                        },
                    },
                },
            }),
        ),
    )
}

/// The requests of a pod, by HTTP and gRPC, as the adapter calls them.
const REQUEST_RATE: &str = "requests_per_second";

/// What tells autoscalers what Prometheus knows: the rules of prometheus-adapter for the two metrics above.
pub fn adapter() -> Value {
    let overrides = |names: &[&str]| -> Value {
        let each = names
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "resource": name })));
        json!({ "overrides": each.collect::<serde_json::Map<_, _>>() })
    };
    let http = catalogue::HTTP_SERVER_REQUEST_DURATION_SECONDS.metric().name;
    let grpc = catalogue::GRPC_SERVER_STARTED_TOTAL.metric().name;
    let queue = catalogue::OUTBOX_PENDING.metric().name;
    json!({
        "rules": [{
            "seriesQuery": format!("{http}_count{{namespace!=\"\",pod!=\"\"}}"),
            "resources": overrides(&["namespace", "pod"]),
            "name": { "as": REQUEST_RATE },
            "metricsQuery": format!(
                "sum(rate({{__name__=~\"{http}_count|{grpc}\",<<.LabelMatchers>>}}[1m])) by (<<.GroupBy>>)"
            ),
        }],
        "externalRules": [{
            "seriesQuery": format!("{queue}{{namespace!=\"\"}}"),
            "resources": overrides(&["namespace"]),
            "name": { "as": queue },
            "# Every pod tells the same number: that of the table.": null,
            "metricsQuery": format!("max({queue}{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)"),
        }],
    })
}

fn disruption_budget() -> Value {
    object(
        "policy/v1",
        "PodDisruptionBudget",
        "${name}",
        &json!({
            "spec": {
                "maxUnavailable": "${service.maxUnavailable}",
                "selector": { "matchLabels": pods() },
                "# A pod that is broken anyway does not keep its node from being drained.": null,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }),
    )
}

/// Nothing in, nothing out, for every pod of the project.
fn default_deny() -> Value {
    let mut policy = object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "${project}-default-deny",
        &json!({
            "spec": {
                "podSelector": { "matchLabels": { "app.kubernetes.io/part-of": "${project}" } },
                "policyTypes": ["Ingress", "Egress"],
            },
        }),
    );
    policy["metadata"]["labels"] = project_labels();
    when("network.enabled", policy)
}

fn network_policy() -> Value {
    let port = |number: u16| json!({ "protocol": "TCP", "port": number });
    let ours = json!([port(HTTP), port(GRPC)]);
    // A rule without peers would let everybody in, or everything out.
    let rule = |of: &str, to: &str, ports: Value| json!({ format!("?network.{of}.peers"): [{ to: format!("${{network.{of}.peers}}"), "ports": ports }] });
    let out = |of: &str| rule(of, "to", format!("${{network.{of}.ports}}").into());
    when(
        "network.enabled",
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "${name}",
            &json!({
                "spec": {
                    "podSelector": { "matchLabels": pods() },
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [
                        { "?gateway.enabled": [rule("gateway", "from", ours.clone())] },
                        { "?service.callers": [{
                            "from": [{ "podSelector": { "matchExpressions": [
                                { "key": "app.kubernetes.io/name", "operator": "In", "values": "${service.callers}" },
                            ] } }],
                            "ports": ours,
                        }] },
                        rule("prometheus", "from", json!([port(HTTP)])),
                    ],
                    "egress": [
                        out("dns"),
                        out("database"),
                        out("telemetry"),
                        { "*peer,call=service.calls": [
                            { "?call.gateway": [out("gateway")] },
                            { "!call.gateway": [{
                                "to": [{ "podSelector": { "matchLabels": { "app.kubernetes.io/name": "${peer}" } } }],
                                "ports": ours,
                            }] },
                        ] },
                    ],
                },
            }),
        ),
    )
}

fn http_route() -> Value {
    when(
        "gateway.enabled",
        object(
            "gateway.networking.k8s.io/v1",
            "HTTPRoute",
            "${name}",
            &route(
                "${name}.${gateway.domain}",
                HTTP,
                &json!({
                    "matches": [
                        { "# Only these: /metrics is not for everybody.": null },
                        { "*path=service.paths": [{ "path": { "type": "PathPrefix", "value": "${path}" } }] },
                    ],
                }),
            ),
        ),
    )
}

/// A host of its own: two routes of different kinds may not share one.
fn grpc_route() -> Value {
    when(
        "gateway.enabled",
        when(
            "service.grpc",
            object(
                "gateway.networking.k8s.io/v1",
                "GRPCRoute",
                "${name}",
                &route("${name}-grpc.${gateway.domain}", GRPC, &json!({})),
            ),
        ),
    )
}

fn route(host: &str, port: u16, rule: &Value) -> Value {
    let mut rule = rule.clone();
    extend(
        &mut rule,
        &json!({ "backendRefs": [{ "name": "${name}", "port": port }] }),
    );
    json!({
        "spec": {
            "parentRefs": [{ "name": "${gateway.name}", "namespace": "${gateway.namespace}" }],
            "hostnames": [host],
            "rules": [rule],
        },
    })
}

/// The object, if that value says something.
fn when(path: &str, object: Value) -> Value {
    json!({ format!("?{path}"): [object] })
}
