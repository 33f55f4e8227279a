//! The files that the cluster's programs read, and the command lines that they are run with.

use std::{fs, io, path::Path};

use super::{
    network::{ADDRESS, PODS, PODS_BRIDGE},
    state::State,
};
use crate::{
    Peer, Program,
    certificates::{Authority, Subject, kubeconfig, token_keys, write_private},
    servers::{
        self,
        kubernetes::{self, AUTHORITY, STAGES},
    },
};

/// The name of the node.
pub(super) const NODE: &str = "opsctl";
/// Where the API server listens, on the node's address.
pub(super) const API: u16 = 6443;
/// Where Prometheus listens, on the node's address.
pub(super) const PROMETHEUS: u16 = 9090;
/// Where PostgreSQL listens, on the node's address.
pub(super) const POSTGRES: u16 = 5432;
/// Where the gateway listens for pods, on the node's address.
pub(super) const GATEWAY_FOR_PODS: u16 = 80;
/// The address of the cluster's names.
pub(super) const NAMES: &str = "10.96.0.10";

/// Writes every certificate, key and configuration file.
pub(super) fn write(state: &State) -> io::Result<()> {
    certificates(state)?;
    let write = |name: &str, text: String| fs::write(state.file(name), text);
    for folder in ["run", "network"] {
        fs::create_dir_all(state.file(folder))?;
    }
    write("kwok.yaml", STAGES.to_owned())?;
    write("containerd.toml", containerd(state))?;
    write("network/opsctl.conflist", network(state))?;
    // Pods that ask the node for names get none from outside.
    write("resolv.conf", String::new())?;
    write("kubelet.yaml", kubelet(state))?;
    write("kube-proxy.yaml", kube_proxy(state))?;
    write("traefik.yaml", traefik(state))?;
    write("prometheus.yaml", prometheus(state))
}

fn certificates(state: &State) -> io::Result<()> {
    let folder = &state.folder;
    let authority = Authority::new(AUTHORITY)?;
    let trusted = authority.certificate();
    write_private(&folder.join("ca.pem"), &trusted)?;
    let (private, public) = token_keys()?;
    write_private(&folder.join("tokens.key"), &private)?;
    write_private(&folder.join("tokens.pub"), &public)?;
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let hosts = [&names[..], &["127.0.0.1", ADDRESS, "10.96.0.1"]].concat();
    let node = format!("system:node:{NODE}");
    let subject = |name, groups, hosts| Subject {
        name,
        groups,
        hosts,
        expired: false,
    };
    authority
        .sign(subject("kube-apiserver", &[], &hosts))?
        .write(folder, "server")?;
    authority
        .sign(subject("kubelet", &[], &[ADDRESS, NODE]))?
        .write(folder, "kubelet")?;
    let users = [
        ("admin", subject("admin", &["system:masters"], &[])),
        ("node", subject(&node, &["system:nodes"], &[])),
        ("kube-proxy", subject("system:kube-proxy", &[], &[])),
    ];
    for (name, user) in users {
        let signed = authority.sign(user)?;
        signed.write(folder, if name == "admin" { "client" } else { name })?;
        let server = format!("https://{ADDRESS}:{API}");
        let text = kubeconfig(NODE, &server, &trusted, &signed);
        write_private(&folder.join(format!("{name}.kubeconfig")), &text)?;
    }
    // Who forwards requests in the name of others has an authority of its own: no other certificate may claim to.
    let front = Authority::new("front-proxy")?;
    write_private(&folder.join("front-proxy-ca.pem"), &front.certificate())?;
    front
        .sign(subject("front-proxy", &[], &[]))?
        .write(folder, "front-proxy")
}

fn containerd(state: &State) -> String {
    let folder = state.folder.display();
    let plugins = cni_folder().unwrap_or_default();
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{folder}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
netns_mounts_under_state_dir = true
# Who may not lower the score of a process, as in a container, could start no pod without this.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/network"
"#,
        pause = super::images::PAUSE,
    )
}

/// Where the plugins are that give pods their addresses.
fn cni_folder() -> Option<String> {
    let plugin = Peer::named("cni-plugins")?.locate()?;
    Some(plugin.parent()?.display().to_string())
}

fn network(state: &State) -> String {
    let folder = state.folder.display();
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "opsctl", "plugins": [
{{"type": "bridge", "bridge": "{PODS_BRIDGE}", "isGateway": true, "ipMasq": true, "hairpinMode": true,
 "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "10.244.0.0/24"}}]], "routes": [{{"dst": "0.0.0.0/0"}}],
          "dataDir": "{folder}/network/addresses"}}}},
{{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
    )
}

fn kubelet(state: &State) -> String {
    let folder = state.folder.display();
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {ADDRESS}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: "{folder}/ca.pem"}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {folder}/kubelet.pem
tlsPrivateKeyFile: {folder}/kubelet.key
containerRuntimeEndpoint: unix://{folder}/containerd.sock
failCgroupV1: false
cgroupDriver: cgroupfs
# Nothing is kept back for the system, and a machine that builds beside the cluster is full at times.
enforceNodeAllocatable: []
evictionHard: {{memory.available: 50Mi, nodefs.available: 0.5%, imagefs.available: 0.5%, nodefs.inodesFree: 0.5%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
failSwapOn: false
healthzPort: 0
clusterDNS: [{NAMES}]
clusterDomain: cluster.local
resolvConf: {folder}/resolv.conf
podLogsDir: {folder}/pods
volumePluginDir: {folder}/kubelet/volume-plugins
oomScoreAdj: 0
rotateCertificates: false
"#
    )
}

fn kube_proxy(state: &State) -> String {
    let folder = state.folder.display();
    format!(
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {{kubeconfig: "{folder}/kube-proxy.kubeconfig"}}
clusterCIDR: {PODS}
hostnameOverride: {NODE}
healthzBindAddress: {ADDRESS}:10256
metricsBindAddress: {ADDRESS}:10249
# The table of connections is the machine's own.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
iptables: {{localhostNodePorts: false, minSyncPeriod: 200ms}}
"#
    )
}

fn traefik(state: &State) -> String {
    let (gateway, own) = (state.gateway, state.traefik);
    format!(
        r#"global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: INFO}}
entryPoints:
  web: {{address: "127.0.0.1:{gateway}"}}
  pods: {{address: "{ADDRESS}:{GATEWAY_FOR_PODS}"}}
  metrics: {{address: "127.0.0.1:{own}"}}
ping: {{entryPoint: metrics}}
metrics:
  prometheus:
    entryPoint: metrics
    addServicesLabels: true
    addRoutersLabels: true
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.3, 0.5, 1, 2.5, 5, 10]
providers:
  # What a route says holds soon after it is said.
  providersThrottleDuration: 100ms
  kubernetesGateway: {{statusAddress: {{ip: 127.0.0.1}}}}
"#
    )
}

fn prometheus(state: &State) -> String {
    let folder = state.folder.display();
    let own = state.traefik;
    format!(
        r#"global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: traefik
    static_configs: [{{targets: ["127.0.0.1:{own}"]}}]
  - job_name: pods
    kubernetes_sd_configs: [{{role: pod, kubeconfig_file: "{folder}/admin.kubeconfig"}}]
    relabel_configs:
      - {{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true", action: keep}}
      # A pod that is played, and one that has ended, has nothing to say.
      - {{source_labels: [__meta_kubernetes_pod_node_name], regex: "{NODE}", action: keep}}
      - {{source_labels: [__meta_kubernetes_pod_phase], regex: "Running", action: keep}}
      - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
        regex: "(.+);(.+)"
        replacement: "$1:$2"
        target_label: __address__
      # A container with several ports is one target.
      - {{regex: "__meta_kubernetes_pod_container_.+", action: labeldrop}}
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path]
        regex: "(.+)"
        target_label: __metrics_path__
      - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
      - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
      - {{source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name], target_label: service}}
      - {{source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_version], target_label: version}}
      - {{source_labels: [__meta_kubernetes_pod_label_opsctl_dev_track], target_label: track}}
  # What each container uses: container_cpu_usage_seconds_total, container_memory_working_set_bytes.
  - job_name: kubelet
    scheme: https
    metrics_path: /metrics/resource
    scrape_interval: 5s
    scrape_timeout: 5s
    tls_config: {{ca_file: "{folder}/ca.pem", cert_file: "{folder}/client.pem", key_file: "{folder}/client.key"}}
    static_configs: [{{targets: ["{ADDRESS}:10250"]}}]
"#
    )
}

/// The program and arguments of a part.
///
/// # Errors
/// When its program is not installed.
pub(super) fn program(state: &State, part: &str) -> io::Result<Program> {
    let folder = &state.folder;
    let program = Program::new(servers::program(part)?);
    Ok(match part {
        "etcd" => program
            .args(kubernetes::etcd_flags(state.etcd, state.etcd_peer))
            .arg(flag("data-dir", folder, "etcd")),
        "kube-apiserver" => program
            .args(kubernetes::apiserver_flags(folder, state.etcd))
            .args(apiserver_flags(folder)),
        "kube-controller-manager" => program.args(kubernetes::controllers_flags(folder)).args([
            "--allocate-node-cidrs",
            &format!("--cluster-cidr={PODS}"),
            "--configure-cloud-routes=false",
            // An autoscaler believes what a pod uses sooner than after five minutes.
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=30s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        ]),
        "kube-scheduler" => program.args(kubernetes::scheduler_flags(folder)),
        "containerd" => program.arg("--config").arg(folder.join("containerd.toml")),
        "kubelet" => program
            .arg(flag("config", folder, "kubelet.yaml"))
            .arg(flag("kubeconfig", folder, "node.kubeconfig"))
            .arg(flag("root-dir", folder, "kubelet"))
            .arg(flag("cert-dir", folder, "kubelet/certificates"))
            .arg(format!("--node-ip={ADDRESS}"))
            .arg(format!("--hostname-override={NODE}")),
        "kube-proxy" => program.arg(flag("config", folder, "kube-proxy.yaml")),
        "traefik" => program
            .arg(flag("configFile", folder, "traefik.yaml"))
            .env("KUBECONFIG", folder.join("admin.kubeconfig")),
        "prometheus" => program
            .arg(flag("config.file", folder, "prometheus.yaml"))
            .arg(flag("storage.tsdb.path", folder, "prometheus"))
            .arg(format!("--web.listen-address={ADDRESS}:{PROMETHEUS}"))
            .args(["--storage.tsdb.retention.time=1d", "--log.level=warn"]),
        "kwok" => program.args(kubernetes::kwok_flags(folder)),
        other => return Err(io::Error::other(format!("`{other}` is no part of a cluster"))),
    })
}

fn apiserver_flags(folder: &Path) -> Vec<String> {
    vec![
        format!("--bind-address={ADDRESS}"),
        format!("--advertise-address={ADDRESS}"),
        format!("--secure-port={API}"),
        // Below are the ports that servers of tests are given.
        "--service-node-port-range=32100-32767".to_owned(),
        // The node's name resolves nowhere.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        flag("kubelet-certificate-authority", folder, "ca.pem"),
        flag("kubelet-client-certificate", folder, "client.pem"),
        flag("kubelet-client-key", folder, "client.key"),
        flag("requestheader-client-ca-file", folder, "front-proxy-ca.pem"),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        flag("proxy-client-cert-file", folder, "front-proxy.pem"),
        flag("proxy-client-key-file", folder, "front-proxy.key"),
    ]
}

fn flag(name: &str, folder: &Path, file: &str) -> String {
    format!("--{name}={}", folder.join(file).display())
}
