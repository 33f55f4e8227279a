//! The catalogue's part about Kubernetes: clusters, where a service lives in one, and where its requests are counted.
//! What is asked of a cluster is the business of `opsctl-platform`.

use std::path::PathBuf;

use opsctl_platform::kube::mark::MarkError;
use opsctl_platform::kube::{Mark, Provider, Sli};

use super::document::Node;
use super::finding::Findings;
use super::model::Prometheus;
use super::read;
use super::section::Section;
use super::suggest::suggestion;
use super::values::{Address, FromNode, quoted};

/// A cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// Its name.
    pub(crate) name: String,
    /// Its context in the kubeconfig; the current one is never used.
    pub(crate) context: String,
    /// The address that the context must lead to.
    pub(crate) server: Option<String>,
    /// The image of opsctl that runs inside it.
    pub(crate) image: Option<String>,
    /// The service account that it runs as there.
    pub(crate) service_account: String,
    /// The kubeconfig, if it is not the user's.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Its Prometheus, if it is not the environment's.
    pub(crate) prometheus: Option<Prometheus>,
    /// Its Alertmanager, if it is not the environment's.
    pub(crate) alertmanager: Option<Prometheus>,
    /// Where its gateway takes requests from here.
    pub(crate) gateway_url: Option<String>,
}

/// Where a service lives in a cluster. What is absent has the service's own name, or is found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kubernetes {
    /// The namespace.
    pub(crate) namespace: Option<String>,
    /// The Deployment.
    pub(crate) deployment: Option<String>,
    /// The Service.
    pub(crate) service: Option<String>,
    /// The container, where the pods have several.
    pub(crate) container: Option<String>,
    /// The image that `deploy canary` ships.
    pub(crate) image: Option<String>,
    /// How traffic is shared.
    pub(crate) provider: Provider,
    /// Requests with it get the canary, whatever its share.
    pub(crate) mark: Option<Mark>,
    /// Objects that a GitOps tool keeps may be changed: never in the file, only for the one command that says so.
    pub(crate) take_ownership: bool,
    /// The routes that share it, such as `HTTPRoute/orders`; none: those that lead to the Service.
    pub(crate) routes: Vec<String>,
    /// The Secret and the key in it that hold the address of its database.
    pub(crate) database: Option<SecretKey>,
    /// The front door, for probes.
    pub(crate) url: Option<String>,
    /// The name by which it is asked for there, when `url` has another.
    pub(crate) host: Option<String>,
}

const PROVIDERS: [(&str, Provider); 3] = [
    ("gateway", Provider::Gateway),
    ("ingress-nginx", Provider::IngressNginx),
    ("replicas", Provider::Replicas),
];

const PRESETS: [(&str, Sli); 3] = [
    ("opsctl", Sli::Opsctl),
    ("otel-http", Sli::OtelHttp),
    ("traefik", Sli::Traefik),
];

/// Kinds of routes whose weights can be changed.
const ROUTES: [&str; 3] = ["HTTPRoute", "GRPCRoute", "Ingress"];

/// `[cluster.NAME]`.
pub(super) fn cluster(name: &str, section: Section<'_>) -> Option<Cluster> {
    let context = section.required("context");
    let address = |key| section.optional::<Address>(key).map(|address| address.0);
    let cluster = Cluster {
        name: name.to_owned(),
        context: context.unwrap_or_default(),
        server: address("server"),
        image: section.optional("image"),
        service_account: section.or("service_account", Name("opsctl".to_owned())).0,
        kubeconfig: section.optional("kubeconfig"),
        prometheus: read::prometheus(&section),
        alertmanager: read::alertmanager(&section),
        gateway_url: address("gateway_url"),
    };
    section.finish();
    (!cluster.context.is_empty()).then_some(cluster)
}

/// `kubernetes = { … }` of a service.
pub(super) fn service(section: &Section<'_>) -> Kubernetes {
    let Some(section) = section.section("kubernetes") else {
        return Kubernetes::default();
    };
    let name = |key| section.optional::<Name>(key).map(|name| name.0);
    let kubernetes = Kubernetes {
        namespace: name("namespace"),
        deployment: name("deployment"),
        service: name("service"),
        container: name("container"),
        image: section.optional("image"),
        provider: section.optional("provider").unwrap_or_default(),
        mark: section.optional("mark"),
        take_ownership: false,
        routes: section
            .optional::<Vec<Route>>("routes")
            .unwrap_or_default()
            .into_iter()
            .map(|route| route.0)
            .collect(),
        database: section.optional("database"),
        url: section.optional::<Address>("url").map(|address| address.0),
        host: name("host"),
    };
    section.finish();
    kubernetes
}

/// `metrics = …` and `sli = { … }` of a service: its own counters stand above a preset.
pub(super) fn sli(section: &Section<'_>) -> Sli {
    let preset = match section.table_or_value("metrics") {
        Some(Ok(metrics)) => {
            let preset = metrics.optional("preset");
            let _: Option<u16> = metrics.optional("port");
            let _: Option<String> = metrics.optional("path");
            metrics.finish();
            preset
        }
        Some(Err(_)) => section.optional("metrics"),
        None => None,
    };
    let own = section.section("sli").and_then(|sli| {
        let (total, errors) = (sli.required("total"), sli.required("errors"));
        let slow = sli.optional("slow");
        sli.finish();
        Some(Sli::Custom {
            total: total?,
            errors: errors?,
            slow,
        })
    });
    own.or(preset).unwrap_or_default()
}

/// One of a few words, for what is spelled as a word.
pub(super) fn word<T: Clone>(node: &Node, findings: &Findings, what: &str, known: &[(&'static str, T)]) -> Option<T> {
    let text = String::from_node(node, findings)?;
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Some(value.clone());
    }
    let words = known.iter().map(|(word, _)| *word);
    let help = suggestion(&text, words.clone()).map_or_else(
        || format!("known are {}", words.collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    findings.error(&node.origin, format!("`{text}` is no {what}, {help}"));
    None
}

/// The word of a value.
pub(super) fn spelled<T: PartialEq>(value: &T, known: &[(&'static str, T)]) -> String {
    quoted(
        known
            .iter()
            .find(|(_, known)| known == value)
            .map_or("", |(word, _)| word),
    )
}

impl FromNode for Provider {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        word(node, findings, "way to share traffic", &PROVIDERS)
    }
    fn shown(&self) -> String {
        spelled(self, &PROVIDERS)
    }
}

impl FromNode for Mark {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let mark = String::from_node(node, findings)?.parse();
        mark.map_err(|error: MarkError| findings.error(&node.origin, error.to_string()))
            .ok()
    }
    fn shown(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A preset; counters of the service's own are a table apart.
impl FromNode for Sli {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        word(node, findings, "preset of metrics", &PRESETS)
    }
    fn shown(&self) -> String {
        spelled(self, &PRESETS)
    }
}

/// The name of an object of Kubernetes.
pub(super) struct Name(pub(super) String);

impl Name {
    fn is_one(text: &str) -> bool {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        (1..=253).contains(&text.len())
            && text.split('.').all(|part| {
                part.starts_with(inner) && part.ends_with(inner) && part.chars().all(|c| inner(c) || c == '-')
            })
    }
}

impl FromNode for Name {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        if !Self::is_one(&text) {
            findings.error(
                &node.origin,
                format!(
                    "`{text}` is no name of an object of Kubernetes: expected lower-case letters, digits, `-` and `.`"
                ),
            );
            return None;
        }
        Some(Self(text))
    }
    fn shown(&self) -> String {
        quoted(&self.0)
    }
}

/// A key of a Secret in the service's namespace: `orders-database#url`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretKey {
    /// The Secret.
    pub(crate) secret: String,
    /// The key.
    pub(crate) key: String,
}

impl FromNode for SecretKey {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        let is_key = |key: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            (1..=253).contains(&key.len()) && key.chars().all(inner)
        };
        match text.split_once('#') {
            Some((secret, key)) if Name::is_one(secret) && is_key(key) => Some(Self {
                secret: secret.to_owned(),
                key: key.to_owned(),
            }),
            _ => {
                findings.error(
                    &node.origin,
                    format!("`{text}` is no key of a Secret: expected SECRET#KEY, such as `orders-database#url`"),
                );
                None
            }
        }
    }
    fn shown(&self) -> String {
        quoted(&format!("{}#{}", self.secret, self.key))
    }
}

/// `HTTPRoute/orders`.
struct Route(String);

impl FromNode for Route {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        let good = text
            .split_once('/')
            .is_some_and(|(kind, name)| ROUTES.contains(&kind) && Name::is_one(name));
        if !good {
            let kinds = ROUTES.join("/NAME, ");
            findings.error(&node.origin, format!("`{text}` is no route: expected {kinds}/NAME"));
            return None;
        }
        Some(Self(text))
    }
    fn shown(&self) -> String {
        quoted(&self.0)
    }
}
