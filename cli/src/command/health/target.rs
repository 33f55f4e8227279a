//! What is asked: from words (a service of the catalogue, an address) to endpoints with a question each. Reads the
//! catalogue and what runs only when a service is meant. Does not connect.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use opsctl_platform::{Instance, InstanceState, ServiceState};

use super::pods::{self, Forward};
use crate::config::{self, suggestion};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::platform::{self, OnCluster, Opened};
use crate::target::unknown_service;

/// One thing that is asked how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The service of the catalogue, unless an address was named.
    pub(super) service: Option<String>,
    /// Its instance.
    pub(super) instance: Option<String>,
    /// Where to ask, or why nobody is there.
    pub(super) endpoint: Result<Endpoint, Absent>,
}

/// Nobody is there who could be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Absent {
    /// A word for scripts.
    pub(super) reason: &'static str,
    /// The same for people.
    pub(super) detail: String,
}

/// Where to ask, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Whether by TLS.
    pub(super) tls: bool,
    /// Name or address, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// What is asked.
    pub(super) question: Question,
    /// The way there, where it is not a connection from here.
    pub(super) through: Option<Forward>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// `GET` of a path, with its query.
    Http { path: String },
    /// `grpc.health.v1.Health`, of a service name.
    Grpc { service: String },
    /// Whether the port takes a connection.
    Connect,
}

impl Question {
    /// `http`, `grpc`, `tcp`.
    pub(super) fn protocol(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Grpc { .. } => "grpc",
            Self::Connect => "tcp",
        }
    }
}

impl Endpoint {
    /// `HOST:PORT`, as in a URL.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn of(addr: SocketAddr, question: Question) -> Self {
        Self {
            tls: false,
            host: addr.ip().to_string(),
            port: addr.port(),
            question,
            through: None,
        }
    }
}

/// The address as it can be typed again.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls { "s" } else { "" };
        let (protocol, authority) = (self.question.protocol(), self.authority());
        write!(f, "{protocol}{secure}://{authority}")?;
        match &self.question {
            Question::Http { path } => f.write_str(path),
            Question::Grpc { service } if !service.is_empty() => write!(f, "/{service}"),
            Question::Grpc { .. } | Question::Connect => Ok(()),
        }
    }
}

impl Target {
    /// How it is called in a table: the instance, the service, or the address.
    pub(super) fn name(&self) -> String {
        match (&self.instance, &self.service, &self.endpoint) {
            (Some(name), _, _) | (None, Some(name), _) => name.clone(),
            (None, None, Ok(endpoint)) => endpoint.to_string(),
            (None, None, Err(absent)) => absent.detail.clone(),
        }
    }

    /// Instance (or address) and protocol: what stays the same while it restarts on other ports.
    pub(super) fn key(&self) -> (String, &'static str) {
        let protocol = self
            .endpoint
            .as_ref()
            .map_or("", |endpoint| endpoint.question.protocol());
        (self.name(), protocol)
    }
}

/// Every target that the words mean; without words all services of the catalogue.
pub(super) async fn resolve(context: &Context, words: &[String], group: Option<&str>) -> Result<Vec<Target>, Failure> {
    if let Some(group) = group
        && !is_group(group)
    {
        return Err(Failure::usage("invalid_group", format!("`{group}` is no group"))
            .cause("its name becomes a part of the path: letters, digits, `-`, `_` and `.`, at most 63"));
    }
    let mut targets = Vec::new();
    let mut services = Vec::new();
    for word in words {
        if word.contains("://") {
            targets.push(Target {
                service: None,
                instance: None,
                endpoint: Ok(address(word, group)?),
            });
        } else if word.contains([':', '/']) {
            let word = without_user(word);
            return Err(
                Failure::usage("invalid_url", format!("`{word}` is neither a service nor an address"))
                    .help(format!("`http://{word}` or `grpc://{word}`?")),
            );
        } else {
            services.push(word.as_str());
        }
    }
    if words.is_empty() || !services.is_empty() {
        targets.extend(of_services(context, &services, group).await?);
    }
    Ok(targets)
}

fn is_group(group: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=63).contains(&group.len()) && group.chars().all(known) && !group.starts_with('.')
}

/// The path of a group, as the library health serves it.
fn path_of(group: &str) -> String {
    format!("/health/{group}")
}

/// The gRPC service name of a group, as kubelet's probes name them.
fn name_of(group: &str) -> String {
    match group {
        "ready" => "readiness".to_owned(),
        "live" => "liveness".to_owned(),
        other => other.to_owned(),
    }
}

/// Every declared question of every instance of the services (none named: all that are declared).
async fn of_services(context: &Context, names: &[&str], group: Option<&str>) -> Result<Vec<Target>, Failure> {
    let config = config::load(context)?;
    for name in names {
        if !config.services.contains_key(*name) {
            return Err(unknown_service(&config, name));
        }
    }
    if config.services.is_empty() {
        return Err(
            Failure::usage("nothing_declared", "there is nothing to ask: no service is declared")
                .help("declare one in opsctl.toml, see `opsctl help config`, or name an address"),
        );
    }
    let mut targets = Vec::new();
    for opened in platform::all_for(context, &config).await? {
        of_opened(&opened, names, group, &mut targets).await?;
    }
    Ok(targets)
}

async fn of_opened(
    opened: &Opened,
    names: &[&str],
    group: Option<&str>,
    targets: &mut Vec<Target>,
) -> Result<(), Failure> {
    let failed = |error| error::platform::failure("could not read what runs", &error);
    let mut running = match opened.here() {
        Some(local) => local.service_states(),
        None => opened.platform.states().await,
    }
    .map_err(failed)?;
    if let Some(there) = opened.there() {
        running.retain(|state| names.is_empty() || names.contains(&state.name.as_str()));
        pods::give_addresses(&there.kube, &mut running).await.map_err(failed)?;
    }
    for name in opened.config.services.keys() {
        if names.is_empty() || names.contains(&name.as_str()) {
            match running.iter().find(|state| state.name == *name) {
                Some(state) => of_service(state, group, opened.there(), targets),
                None => targets.push(absent(
                    name,
                    None,
                    "not_running",
                    "it does not run: `opsctl up` starts it",
                )),
            }
        }
    }
    Ok(())
}

fn of_service(state: &ServiceState, group: Option<&str>, there: Option<&OnCluster>, targets: &mut Vec<Target>) {
    let name = &state.name;
    if let Some(hold) = &state.hold {
        let why = format!("it is held down: {}", hold.reason);
        targets.push(absent(name, None, "held", why));
        return;
    }
    // One that ends says that it takes no more requests: nothing is wrong with the service.
    let mut staying = state
        .instances
        .iter()
        .filter(|instance| instance.state != InstanceState::Draining)
        .peekable();
    if staying.peek().is_none() {
        targets.push(absent(name, None, "not_running", "no instance of it runs"));
    }
    for instance in staying {
        if there.is_none() && instance.pid.is_none() {
            let why = instance.last_exit.as_ref();
            let why = why.map_or_else(
                || "it does not run".to_owned(),
                |exit| format!("it does not run ({exit})"),
            );
            targets.push(absent(name, Some(&instance.id), "not_running", why));
            continue;
        }
        let endpoints = endpoints(state, instance, group);
        if endpoints.is_empty() {
            targets.push(absent(
                name,
                Some(&instance.id),
                "no_port",
                "it declares no port that could be asked",
            ));
        }
        for mut endpoint in endpoints {
            endpoint.through = there.map(|there| Forward::new(Arc::clone(&there.kube), instance.clone()));
            targets.push(Target {
                service: Some(name.clone()),
                instance: Some(instance.id.clone()),
                endpoint: Ok(endpoint),
            });
        }
    }
}

/// Every question that the catalogue has for a service; without any, whether its port takes a connection.
fn endpoints(state: &ServiceState, instance: &Instance, group: Option<&str>) -> Vec<Endpoint> {
    let (http, grpc) = (instance.addresses.http, instance.addresses.grpc);
    let mut endpoints = Vec::new();
    if let (Some(path), Some(addr)) = (&state.health.http, http) {
        let path = group.map_or_else(|| path.clone(), path_of);
        endpoints.push(Endpoint::of(addr, Question::Http { path }));
    }
    if let (Some(service), Some(addr)) = (&state.health.grpc, grpc) {
        let service = group.map_or_else(|| service.clone(), name_of);
        endpoints.push(Endpoint::of(addr, Question::Grpc { service }));
    }
    if endpoints.is_empty()
        && let Some(addr) = http.or(grpc)
    {
        endpoints.push(Endpoint::of(addr, Question::Connect));
    }
    endpoints
}

fn absent(service: &str, instance: Option<&str>, reason: &'static str, detail: impl Into<String>) -> Target {
    Target {
        service: Some(service.to_owned()),
        instance: instance.map(str::to_owned),
        endpoint: Err(Absent {
            reason,
            detail: detail.into(),
        }),
    }
}

/// An address as it may be told: what stands before an `@` may be a password, and a probe's words end in events and logs.
fn without_user(word: &str) -> String {
    let (scheme, rest) = word.split_at(word.find("://").map_or(0, |at| at + 3));
    match rest.rfind('@') {
        Some(at) => format!("{scheme}…{}", &rest[at..]),
        None => word.to_owned(),
    }
}

const SCHEMES: [&str; 5] = ["http", "https", "grpc", "grpcs", "tcp"];

/// An address as typed.
fn address(word: &str, group: Option<&str>) -> Result<Endpoint, Failure> {
    let shown = without_user(word);
    let invalid = |why: String| Failure::usage("invalid_url", format!("`{shown}` cannot be asked")).cause(why);
    let uri: Uri = word
        .parse()
        .map_err(|error: http::uri::InvalidUri| invalid(format!("it is no address: {error}")))?;
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        let failure = invalid(format!(
            "`{scheme}` is none of {}",
            SCHEMES.map(|s| format!("{s}://")).join(", ")
        ));
        return Err(match suggestion(&scheme, SCHEMES) {
            Some(near) => failure.help(format!("did you mean `{near}://`?")),
            None => failure,
        });
    }
    let authority = uri.authority().ok_or_else(|| invalid("it names no host".to_owned()))?;
    if authority.as_str().contains('@') {
        return Err(invalid(
            "a user name or password in an address is seen by everybody on this machine".to_owned(),
        ));
    }
    let tls = scheme.ends_with('s');
    let typed = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if let Some(typed) = typed.strip_prefix(':')
        && typed.parse::<u16>().is_err()
    {
        return Err(invalid(format!("`{typed}` is no port")));
    }
    let port = match (authority.port_u16(), scheme.as_str()) {
        (Some(port), _) => port,
        (None, "http") => 80,
        (None, "https") => 443,
        (None, _) => return Err(invalid(format!("{scheme}:// needs a port: {scheme}://HOST:PORT"))),
    };
    // `Uri` makes no difference between no path and `/`.
    let path = word.split_once("://").map_or("", |(_, rest)| rest);
    let path = path
        .find(['/', '?'])
        .map(|_| uri.path_and_query().map_or("/", |path| path.as_str()));
    if let (Some(path), Some(group)) = (path, group)
        && (path != "/" || scheme.starts_with("http"))
    {
        return Err(invalid(format!(
            "it says what to ask already (`{path}`), and `--group {group}` says it again"
        )));
    }
    let question = match scheme.as_str() {
        "http" | "https" => Question::Http {
            path: path.map_or_else(|| path_of(group.unwrap_or("ready")), str::to_owned),
        },
        "tcp" => Question::Connect,
        _ => Question::Grpc {
            service: group.map_or_else(|| path.unwrap_or_default().trim_matches('/').to_owned(), name_of),
        },
    };
    Ok(Endpoint {
        tls,
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port,
        question,
        through: None,
    })
}

#[cfg(test)]
mod tests {
    use super::address;

    fn asked(word: &str, group: Option<&str>) -> String {
        address(word, group).map_or_else(|failure| failure.causes.join("; "), |endpoint| endpoint.to_string())
    }

    #[test]
    fn addresses_say_what_is_asked() {
        for (word, group, meant) in [
            ("http://h", None, "http://h:80/health/ready"),
            ("http://h/", None, "http://h:80/"),
            ("http://h", Some("live"), "http://h:80/health/live"),
            ("https://h:8/a?b=c", None, "https://h:8/a?b=c"),
            ("http://[::1]:8/x", None, "http://[::1]:8/x"),
            ("grpc://h:9", None, "grpc://h:9"),
            ("grpc://h:9/", None, "grpc://h:9"),
            ("grpc://h:9/shop.v1.Orders", None, "grpc://h:9/shop.v1.Orders"),
            ("grpcs://h:9", Some("live"), "grpcs://h:9/liveness"),
            ("grpc://h:9", Some("own"), "grpc://h:9/own"),
            ("tcp://h:9", None, "tcp://h:9"),
        ] {
            assert_eq!(asked(word, group), meant, "{word}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_asked() {
        for (word, group, why) in [
            ("ftp://h", None, "`ftp` is none of"),
            ("grpc://h", None, "needs a port"),
            ("http://u:p@h/", None, "seen by everybody"),
            ("http://h/a", Some("live"), "says it again"),
            ("http://", None, "no address"),
            ("http://h:99999/", None, "`99999` is no port"),
            ("http://h:/", None, "`` is no port"),
            ("http://h:a/", None, "`a` is no port"),
        ] {
            assert!(asked(word, group).contains(why), "{word}: {}", asked(word, group));
        }
    }
}
