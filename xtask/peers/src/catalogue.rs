//! The list of peers. A new one is one row, and a folder beside `src` where the row says that it is built.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::cache;

/// A real program that tests or benchmarks run beside ours.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// What people call it.
    pub name: &'static str,
    /// What it is for here.
    pub purpose: &'static str,
    /// How it is had.
    pub origin: Origin,
    /// Its programs, or the folder of what is no program. The first is what `name` stands for.
    pub programs: &'static [&'static str],
    /// Installed size in MiB, rounded up; printed before anything is installed.
    pub size_mib: u32,
    /// How long it takes to be had on two cores with nothing at hand, in seconds; printed likewise.
    pub seconds: u32,
}

/// How a peer is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A package of Debian's archive, in the version that the archive has.
    Debian {
        /// The package's name.
        package: &'static str,
        /// Where its programs lie when that is not on `PATH`.
        folder: Option<&'static str>,
    },
    /// Built from Go modules with the `go.mod` and `go.sum` in `xtask/peers/go/NAME`.
    Go {
        /// The version of the main module.
        version: &'static str,
        /// The package of each program, in the order of `programs`.
        packages: &'static [&'static str],
    },
    /// A folder of files in a Go module, fetched with the `go.mod` and `go.sum` in `xtask/peers/go/NAME`.
    GoFiles {
        /// The module's version.
        version: &'static str,
        /// The module.
        module: &'static str,
        /// The folder in it.
        folder: &'static str,
    },
    /// Java archives with the `pom.xml` and `checksums` in `xtask/peers/maven/NAME`, and a script there that runs them.
    Maven {
        /// The version of the main artifact.
        version: &'static str,
    },
    /// Programs packed into one Java archive, which the `pom.xml` and `checksums` in `xtask/peers/maven/NAME` name.
    MavenArchive {
        /// The archive's version.
        version: &'static str,
    },
    /// Python packages with the `requirements.txt` in `xtask/peers/pypi/NAME`, which has their checksums.
    PyPi {
        /// The version of the main package.
        version: &'static str,
    },
    /// Built from a crate with the `Cargo.lock` that its package has, and none of its default features.
    Cargo {
        /// The crate.
        package: &'static str,
        /// Its version.
        version: &'static str,
    },
}

/// Every peer that a test or a benchmark of this workspace asks for.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "restic",
        purpose: "judges our repositories: checks, restores and prunes them",
        origin: debian("restic"),
        programs: &["restic"],
        size_mib: 22,
        seconds: 5,
    },
    Peer {
        name: "rustic",
        purpose: "backs up beside ours in `xtask bench backup`",
        origin: Origin::Cargo {
            package: "rustic-rs",
            version: "0.11.4",
        },
        programs: &["rustic"],
        size_mib: 24,
        seconds: 420,
    },
    Peer {
        name: "valgrind",
        purpose: "counts the instructions of hot paths in `xtask ci`",
        origin: debian("valgrind"),
        programs: &["valgrind"],
        size_mib: 76,
        seconds: 10,
    },
    Peer {
        name: "wrk",
        purpose: "drives the proxy in `xtask bench proxy`",
        origin: debian("wrk"),
        programs: &["wrk"],
        size_mib: 1,
        seconds: 5,
    },
    Peer {
        name: "loki",
        purpose: "takes logs and is asked for them by trace id",
        origin: Origin::Go {
            version: "3.7.8",
            packages: &["github.com/grafana/loki/v3/cmd/loki"],
        },
        programs: &["loki"],
        size_mib: 150,
        seconds: 250,
    },
    Peer {
        name: "collector",
        purpose: "OpenTelemetry collector: takes spans, samples whole traces, hands them on",
        origin: Origin::Go {
            version: "0.161.0",
            packages: &["."],
        },
        programs: &["otelcol"],
        size_mib: 41,
        seconds: 106,
    },
    Peer {
        name: "jaeger",
        purpose: "keeps traces and is asked for them",
        origin: Origin::Go {
            version: "1.62.0",
            packages: &["github.com/jaegertracing/jaeger/cmd/all-in-one"],
        },
        programs: &["jaeger"],
        size_mib: 46,
        seconds: 102,
    },
    Peer {
        name: "prometheus",
        purpose: "scrapes metrics with exemplars; promtool judges rules and configuration",
        origin: Origin::Go {
            version: "0.315.0",
            packages: &[
                "github.com/prometheus/prometheus/cmd/prometheus",
                "github.com/prometheus/prometheus/cmd/promtool",
            ],
        },
        programs: &["prometheus", "promtool"],
        size_mib: 180,
        seconds: 270,
    },
    Peer {
        name: "promql-corpus",
        purpose: "Prometheus' own tests of its language, which ours must read too",
        origin: Origin::GoFiles {
            version: "0.315.0",
            module: "github.com/prometheus/prometheus",
            folder: "promql",
        },
        programs: &["promql"],
        size_mib: 2,
        seconds: 10,
    },
    Peer {
        name: "alertmanager",
        purpose: "takes alerts and says to whom they go",
        origin: Origin::Go {
            version: "0.28.1",
            packages: &[
                "github.com/prometheus/alertmanager/cmd/alertmanager",
                "github.com/prometheus/alertmanager/cmd/amtool",
            ],
        },
        programs: &["alertmanager", "amtool"],
        size_mib: 60,
        seconds: 33,
    },
    Peer {
        name: "kubeconform",
        purpose: "judges Kubernetes manifests by their schemas",
        origin: Origin::Go {
            version: "0.8.0",
            packages: &["github.com/yannh/kubeconform/cmd/kubeconform"],
        },
        programs: &["kubeconform"],
        size_mib: 10,
        seconds: 5,
    },
    Peer {
        name: "kubernetes-schemas",
        purpose: "what kubeconform holds manifests against",
        origin: Origin::PyPi { version: "1.37.0" },
        programs: &["kubernetes_validate/kubernetes-json-schema"],
        size_mib: 75,
        seconds: 10,
    },
    Peer {
        name: "compose-go",
        purpose: "judges compose files: what Docker itself reads them with",
        origin: Origin::Go {
            version: "2.16.2",
            packages: &["github.com/compose-spec/compose-go/v2/cmd"],
        },
        programs: &["compose-go"],
        size_mib: 5,
        seconds: 10,
    },
    Peer {
        name: "postgres",
        purpose: "the database that most services keep their data in",
        origin: Origin::Debian {
            package: "postgresql-15",
            folder: Some("/usr/lib/postgresql/15/bin"),
        },
        programs: &["postgres", "initdb", "psql"],
        size_mib: 60,
        seconds: 20,
    },
    Peer {
        name: "postgres-14",
        purpose: "the oldest PostgreSQL that backups are taken of: the server alone",
        origin: Origin::MavenArchive { version: "14.20.0" },
        programs: &["bin/postgres", "bin/initdb", "bin/pg_ctl"],
        size_mib: 60,
        seconds: 15,
    },
    Peer {
        name: "postgres-18",
        purpose: "the newest PostgreSQL that backups are taken of: the server alone",
        origin: Origin::MavenArchive { version: "18.1.0" },
        programs: &["bin/postgres", "bin/initdb", "bin/pg_ctl"],
        size_mib: 60,
        seconds: 15,
    },
    Peer {
        name: "redis",
        purpose: "a cache that services ask",
        origin: debian("redis-server"),
        programs: &["redis-server"],
        size_mib: 3,
        seconds: 5,
    },
    Peer {
        name: "nats",
        purpose: "a message broker, with JetStream",
        origin: debian("nats-server"),
        programs: &["nats-server"],
        size_mib: 12,
        seconds: 5,
    },
    Peer {
        name: "rabbitmq",
        purpose: "a message broker that speaks AMQP",
        origin: Origin::Debian {
            package: "rabbitmq-server",
            folder: Some("/usr/lib/rabbitmq/bin"),
        },
        programs: &["rabbitmq-server", "epmd"],
        size_mib: 80,
        seconds: 30,
    },
    Peer {
        name: "kafka",
        purpose: "a log of messages, one broker with KRaft",
        origin: Origin::Maven { version: "4.1.0" },
        programs: &["kafka"],
        size_mib: 44,
        seconds: 30,
    },
    Peer {
        name: "kcat",
        purpose: "an independent client of Kafka",
        origin: debian("kcat"),
        programs: &["kcat"],
        size_mib: 1,
        seconds: 5,
    },
    Peer {
        name: "ferretdb",
        purpose: "speaks MongoDB's wire protocol, on SQLite",
        origin: Origin::Go {
            version: "1.24.2",
            packages: &["github.com/FerretDB/FerretDB/cmd/ferretdb"],
        },
        programs: &["ferretdb"],
        size_mib: 40,
        seconds: 40,
    },
    Peer {
        name: "temporal",
        purpose: "runs workflows: the development server of its command line",
        origin: Origin::Go {
            version: "1.5.1",
            packages: &["github.com/temporalio/cli/cmd/temporal"],
        },
        programs: &["temporal"],
        size_mib: 204,
        seconds: 115,
    },
    Peer {
        name: "minio",
        purpose: "an S3: repositories in object storage are kept in it",
        origin: Origin::Go {
            version: "0.0.0-20260212201848-7aac2a2c5b7c",
            packages: &["github.com/minio/minio"],
        },
        programs: &["minio"],
        size_mib: 110,
        seconds: 125,
    },
    Peer {
        name: "kubernetes",
        purpose: "a cluster's own programs: API server, controllers, scheduler, kubelet, proxy, kubectl",
        origin: Origin::Go {
            version: "1.36.3",
            packages: &[
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "k8s.io/kubernetes/cmd/kubelet",
                "k8s.io/kubernetes/cmd/kube-proxy",
                "k8s.io/kubernetes/cmd/kubectl",
            ],
        },
        programs: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ],
        size_mib: 340,
        seconds: 290,
    },
    Peer {
        name: "etcd",
        purpose: "keeps what the API server knows",
        origin: Origin::Go {
            version: "3.7.3",
            packages: &["go.etcd.io/etcd/server/v3"],
        },
        programs: &["etcd"],
        size_mib: 24,
        seconds: 30,
    },
    Peer {
        name: "traefik",
        purpose: "the gateway: splits traffic by HTTPRoute and GRPCRoute, and counts it",
        origin: Origin::Go {
            version: "3.6.12",
            packages: &["github.com/traefik/traefik/v3/cmd/traefik"],
        },
        programs: &["traefik"],
        size_mib: 170,
        seconds: 260,
    },
    Peer {
        name: "gateway-api",
        purpose: "the definitions of Gateway, HTTPRoute and GRPCRoute",
        origin: Origin::GoFiles {
            version: "1.4.0",
            module: "sigs.k8s.io/gateway-api",
            folder: "config/crd/standard",
        },
        programs: &["standard"],
        size_mib: 1,
        seconds: 5,
    },
    Peer {
        name: "coredns",
        purpose: "names of services inside of a cluster",
        origin: Origin::Go {
            version: "1.14.7",
            packages: &["github.com/coredns/coredns"],
        },
        programs: &["coredns"],
        size_mib: 80,
        seconds: 95,
    },
    Peer {
        name: "metrics-server",
        purpose: "what pods use, for autoscalers",
        origin: Origin::Go {
            version: "0.9.0",
            packages: &["sigs.k8s.io/metrics-server/cmd/metrics-server"],
        },
        programs: &["metrics-server"],
        size_mib: 60,
        seconds: 110,
    },
    Peer {
        name: "kwok",
        purpose: "plays nodes and pods by the thousand beside a real API server",
        origin: Origin::Go {
            version: "0.8.0",
            packages: &["sigs.k8s.io/kwok/cmd/kwok"],
        },
        programs: &["kwok"],
        size_mib: 60,
        seconds: 60,
    },
    Peer {
        name: "helm",
        purpose: "lints and renders the chart in services/deploy",
        origin: Origin::Go {
            version: "3.22.0",
            packages: &["helm.sh/helm/v3/cmd/helm"],
        },
        programs: &["helm"],
        size_mib: 55,
        seconds: 65,
    },
    Peer {
        name: "containerd",
        purpose: "runs the containers of a node",
        origin: debian("containerd"),
        programs: &["containerd", "ctr"],
        size_mib: 105,
        seconds: 15,
    },
    Peer {
        name: "runc",
        purpose: "starts a container",
        origin: debian("runc"),
        programs: &["runc"],
        size_mib: 9,
        seconds: 5,
    },
    Peer {
        name: "cni-plugins",
        purpose: "gives pods their addresses",
        origin: Origin::Debian {
            package: "containernetworking-plugins",
            folder: Some("/usr/lib/cni"),
        },
        programs: &["bridge", "host-local", "portmap", "loopback"],
        size_mib: 55,
        seconds: 10,
    },
    Peer {
        name: "catatonit",
        purpose: "holds a pod's namespaces and reaps its orphans: the pause image",
        origin: debian("catatonit"),
        programs: &["catatonit"],
        size_mib: 1,
        seconds: 5,
    },
    Peer {
        name: "iptables",
        purpose: "what services' addresses are made of",
        origin: Origin::Debian {
            package: "iptables",
            folder: Some("/usr/sbin"),
        },
        programs: &["iptables", "iptables-save", "iptables-restore"],
        size_mib: 3,
        seconds: 5,
    },
    Peer {
        name: "conntrack",
        purpose: "forgets connections of pods that are gone",
        origin: Origin::Debian {
            package: "conntrack",
            folder: Some("/usr/sbin"),
        },
        programs: &["conntrack"],
        size_mib: 1,
        seconds: 5,
    },
];

const fn debian(package: &'static str) -> Origin {
    Origin::Debian { package, folder: None }
}

impl Peer {
    /// The peer that has the program `name`, or is called so.
    pub fn named(name: &str) -> Option<&'static Self> {
        PEERS
            .iter()
            .find(|peer| peer.name == name || peer.programs.contains(&name))
    }

    /// Whether a test asks for it. What takes minutes to be built for a benchmark alone is built when that asks for it.
    pub fn serves_tests(&self) -> bool {
        !matches!(self.origin, Origin::Cargo { .. })
    }

    /// Where the peer's own program is, when every program of it is there.
    pub fn locate(&self) -> Option<PathBuf> {
        let mut found = self.programs.iter().map(|program| self.program(program));
        let first = found.next()??;
        found.all(|other| other.is_some()).then_some(first)
    }

    /// Where one program of the peer is.
    pub fn program(&self, program: &str) -> Option<PathBuf> {
        match self.origin {
            Origin::Debian { folder, .. } => folder
                .map(Path::new)
                .and_then(|folder| existing(folder, program))
                .or_else(|| {
                    let path = std::env::var_os("PATH")?;
                    std::env::split_paths(&path).find_map(|folder| existing(&folder, program))
                }),
            _ => existing(&self.folder()?, program),
        }
    }

    /// The version, where this catalogue chooses it.
    pub fn version(&self) -> Option<&'static str> {
        match self.origin {
            Origin::Debian { .. } => None,
            Origin::Go { version, .. }
            | Origin::GoFiles { version, .. }
            | Origin::Maven { version }
            | Origin::MavenArchive { version }
            | Origin::PyPi { version }
            | Origin::Cargo { version, .. } => Some(version),
        }
    }

    /// The folder that it is built into, which is there as a whole or not at all.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let version = self.version()?;
        Some(cache::folder().join(format!("{}-{version}", self.name)))
    }
}

fn existing(folder: &Path, program: &str) -> Option<PathBuf> {
    let path = folder.join(program);
    path.exists().then_some(path)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { package, .. } => write!(f, "Debian package {package}"),
            Self::Go { .. } | Self::GoFiles { .. } => write!(f, "Go module"),
            Self::Maven { .. } | Self::MavenArchive { .. } => write!(f, "Maven artifact"),
            Self::PyPi { .. } => write!(f, "Python package"),
            Self::Cargo { package, .. } => write!(f, "crate {package}"),
        }
    }
}
