//! The parts of a cluster, and how each says that it is ready.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    Cluster,
    configuration::{NODE, POSTGRES},
    database,
    network::ADDRESS,
    objects::OWN,
    processes,
    start::aside,
};
use crate::http;

/// Where a part runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As a process of the machine.
    Process,
    /// In a pod, as a Deployment in `kube-system`.
    Pod,
}

/// Every part.
pub(super) const PARTS: &[(&str, Kind)] = &[
    ("etcd", Kind::Process),
    ("kube-apiserver", Kind::Process),
    ("kube-controller-manager", Kind::Process),
    ("kube-scheduler", Kind::Process),
    ("containerd", Kind::Process),
    ("kubelet", Kind::Process),
    ("kube-proxy", Kind::Process),
    ("traefik", Kind::Process),
    ("prometheus", Kind::Process),
    ("postgres", Kind::Process),
    ("kwok", Kind::Process),
    ("coredns", Kind::Pod),
    ("metrics-server", Kind::Pod),
];

/// How a part is.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it is called.
    pub name: &'static str,
    /// The number of its process; none for what runs in a pod, and what does not run.
    pub pid: Option<i32>,
    /// Whether it does what it is there for.
    pub ready: bool,
    /// For how long its process runs.
    pub age: Option<Duration>,
    /// What its processes have in memory, in bytes.
    pub memory: Option<u64>,
}

impl Cluster {
    /// How every part is. kwok is one where it plays nodes.
    pub async fn status(&self) -> Vec<Part> {
        let members = processes::members(&self.state.folder);
        let mut parts = Vec::new();
        for (name, _) in PARTS
            .iter()
            .filter(|(name, _)| *name != "kwok" || self.state.played > 0)
        {
            let own = || members.iter().filter(|member| member.part == *name);
            parts.push(Part {
                name,
                pid: own().next().map(|member| member.pid),
                ready: self.is_ready(name).await,
                age: own().next().map(|member| member.age),
                memory: own().next().map(|_| own().map(|member| member.memory).sum()),
            });
        }
        parts
    }

    /// Whether a part does what it is there for.
    pub(super) async fn is_ready(&self, part: &str) -> bool {
        let answers =
            async |address, path: &str| http::get(address, path).await.is_ok_and(|answer| answer.status == 200);
        let state = &self.state;
        match part {
            "etcd" => answers(at("127.0.0.1", state.etcd), "/health").await,
            "kube-apiserver" => self.get("/readyz").await.is_ok_and(|answer| answer.status == 200),
            // They have no port of their own; what they do is seen: an account in each namespace, a pod on a node.
            "kube-controller-manager" => {
                let path = "/api/v1/namespaces/default/serviceaccounts/default";
                self.get(path).await.is_ok_and(|answer| answer.status == 200)
            }
            "kube-scheduler" => processes::members(&state.folder)
                .iter()
                .any(|member| member.part == part),
            "containerd" => tokio::net::UnixStream::connect(state.file("containerd.sock"))
                .await
                .is_ok(),
            "kubelet" => self.has(&format!("/api/v1/nodes/{NODE}"), "Ready").await,
            "kube-proxy" => answers(at(ADDRESS, 10256), "/healthz").await,
            "traefik" => {
                let gateway = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{OWN}/gateways/gateway");
                answers(at("127.0.0.1", state.traefik), "/ping").await && self.has(&gateway, "Programmed").await
            }
            "prometheus" => answers(self.prometheus(), "/-/ready").await,
            "postgres" => {
                // Where nobody listens there is no need for a client.
                let filled = aside(state, "make the roles", database::fill);
                TcpStream::connect(at(ADDRESS, POSTGRES)).await.is_ok() && filled.await.is_ok()
            }
            "kwok" => self.played_and_ready().await == state.played,
            pod => {
                let path = format!("/apis/apps/v1/namespaces/kube-system/deployments/{pod}");
                self.has(&path, "Available").await
            }
        }
    }

    /// Whether the object at `path` has the condition.
    async fn has(&self, path: &str, condition: &str) -> bool {
        let answer = self.get(path).await;
        answer.is_ok_and(|answer| holds(&answer.json(), condition))
    }

    async fn played_and_ready(&self) -> usize {
        let Ok(answer) = self.get("/api/v1/nodes?labelSelector=type%3Dkwok").await else {
            return 0;
        };
        let nodes = answer.json();
        let nodes = nodes["items"].as_array().into_iter().flatten();
        nodes.filter(|node| holds(node, "Ready")).count()
    }
}

/// Whether an object's condition is true.
fn holds(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|found| found["type"] == condition)
        .any(|found| found["status"] == "True")
}

/// An address of this machine.
pub(super) fn at(host: &str, port: u16) -> SocketAddr {
    let host: std::net::Ipv4Addr = host.parse().unwrap_or(std::net::Ipv4Addr::LOCALHOST);
    (host, port).into()
}
