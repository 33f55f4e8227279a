//! From tables to types: which keys each table has, what they must hold, and which names must exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::document::{Node, Origin, Value};
use super::finding::Findings;
use super::kubernetes::Name;
use super::model::{
    Backend, Datastore, DatastoreKind, Environment, Grafana, Key, LatencyObjective, Local, Loki, Notify, PlatformKind,
    Probe, Prometheus, Repository, Service, StoreUse,
};
use super::secret::SecretSource;
use super::section::Section;
use super::sources::FilesKeys;
use super::suggest::suggestion;
use super::values::{Address, Label, Percent, Rate, Span};
use super::{criteria, kubernetes, schedule, sources, watching};

/// `[env.NAME]`.
pub(super) fn environment(name: &str, section: Section<'_>) -> Environment {
    let platform = section.or("platform", "local".to_owned());
    let platform = match platform.as_str() {
        "local" => PlatformKind::Local,
        "kubernetes" => PlatformKind::Kubernetes,
        other => {
            section.findings().error(
                section.place("platform"),
                format!("`{other}` is no platform: expected \"local\" or \"kubernetes\""),
            );
            PlatformKind::Local
        }
    };
    let clusters: Vec<String> = section.optional("clusters").unwrap_or_default();
    if platform == PlatformKind::Local && !clusters.is_empty() {
        section.findings().error(
            section.place("clusters"),
            format!("environment `{name}` is on this machine: clusters need `platform = \"kubernetes\"`"),
        );
    }
    let environment = Environment {
        name: name.to_owned(),
        platform,
        clusters,
        namespace: section.optional("namespace"),
        prometheus: prometheus(&section),
        alertmanager: alertmanager(&section),
        watching: watching::watching(&section),
        protected: section.or("protected", false),
        default_service: section.optional("default_service"),
        repository: section.optional("repository"),
        notify: notify(&section),
        loki: loki(&section),
        traces: match section.table_or_value("traces") {
            Some(Ok(table)) => {
                let server = backend(&table);
                table.finish();
                server
            }
            Some(Err(_)) => section.optional("traces").map(at),
            None => None,
        },
        grafana: grafana(&section),
    };
    section.finish();
    environment
}

/// `loki = "https://…"`, or a table with what lets us in.
fn loki(section: &Section<'_>) -> Option<Loki> {
    let label = || "service".to_owned();
    match section.table_or_value("loki")? {
        Ok(table) => {
            let server = backend(&table);
            let label = table.optional("label").map_or_else(label, |Label(label)| label);
            table.finish();
            Some(Loki { server: server?, label })
        }
        Err(_) => Some(Loki {
            server: at(section.optional("loki")?),
            label: label(),
        }),
    }
}

fn at(Address(url): Address) -> Backend {
    Backend {
        url,
        tenant: None,
        key: None,
    }
}

fn backend(table: &Section<'_>) -> Option<Backend> {
    let url: Option<Address> = table.required("url");
    let tenant = table.optional("tenant");
    let key = key(table);
    Some(Backend {
        tenant,
        key,
        ..at(url?)
    })
}

/// `token`, or `user` and `password`.
fn key(table: &Section<'_>) -> Option<Key> {
    let (token, user, password) = (
        table.optional("token"),
        table.optional("user"),
        table.optional("password"),
    );
    match (token, user, password) {
        (None, None, None) => None,
        (Some(token), None, None) => Some(Key::Token(token)),
        (None, Some(user), Some(password)) => Some(Key::Password(user, password)),
        _ => {
            table
                .findings()
                .error(table.origin(), "expected either `token`, or `user` and `password`");
            None
        }
    }
}

/// `prometheus = "https://…"`, or a table with what lets us in, here and in the cluster.
pub(super) fn prometheus(section: &Section<'_>) -> Option<Prometheus> {
    asked(section, "prometheus", |table| {
        table.optional::<Name>("secret").map(|name| name.0)
    })
}

/// `alertmanager = "https://…"`, or a table with what lets us in here.
pub(super) fn alertmanager(section: &Section<'_>) -> Option<Prometheus> {
    asked(section, "alertmanager", |_| None)
}

fn asked(
    section: &Section<'_>,
    name: &'static str,
    secret: impl Fn(&Section<'_>) -> Option<String>,
) -> Option<Prometheus> {
    let open = |Address(url)| Prometheus {
        url,
        key: None,
        authority: None,
        secret: None,
    };
    match section.table_or_value(name)? {
        Ok(table) => {
            let url = table.required("url");
            let key = key(&table);
            let authority = table.optional("ca_file");
            let secret = secret(&table);
            table.finish();
            Some(Prometheus {
                key,
                authority,
                secret,
                ..open(url?)
            })
        }
        Err(_) => section.optional(name).map(open),
    }
}

/// `grafana = "https://…"`, or a table with what lets us write there.
fn grafana(section: &Section<'_>) -> Option<Grafana> {
    let open = |Address(url)| Grafana {
        url,
        token: None,
        authority: None,
    };
    match section.table_or_value("grafana")? {
        Ok(table) => {
            let url = table.required("url");
            let (token, authority) = (table.optional("token"), table.optional("ca_file"));
            table.finish();
            Some(Grafana {
                token,
                authority,
                ..open(url?)
            })
        }
        Err(_) => section.optional("grafana").map(open),
    }
}

/// `[team.NAME]`.
pub(super) fn team(section: Section<'_>) -> Notify {
    let notify = notify(&section);
    section.finish();
    notify
}

fn notify(section: &Section<'_>) -> Notify {
    let Some(section) = section.section("notify") else {
        return Notify::default();
    };
    let notify = Notify {
        webhook: section.optional("webhook"),
    };
    section.finish();
    notify
}

/// `[repository.NAME]`.
pub(super) fn repository(name: &str, section: Section<'_>) -> Option<Repository> {
    let store: Option<String> = section.required("store");
    let password: Option<SecretSource> = section.required("password");
    let (mut folder, mut bucket) = (None, None);
    if let Some(store) = &store {
        if let Some(path) = store.strip_prefix("file:") {
            let path = Path::new(path.strip_prefix("//").unwrap_or(path));
            folder = Some(section.place("store").folder().unwrap_or(Path::new("/")).join(path));
        } else if let Some(place) = store.strip_prefix("s3://") {
            bucket = Some(super::bucket::read(place, &section));
        } else {
            section.findings().error(
                section.place("store"),
                format!("`{store}` is no store: expected \"file:FOLDER\" or \"s3://BUCKET/PREFIX\""),
            );
        }
    }
    section.finish();
    Some(Repository {
        name: name.to_owned(),
        store: store?,
        folder,
        bucket,
        password: password?,
    })
}

/// `[datastore.NAME]`, its environment's table merged in.
pub(super) fn datastore(name: &str, section: Section<'_>) -> Option<Datastore> {
    section.skip("env");
    let kind: Option<String> = section.required("kind");
    let kind = kind.and_then(|word| {
        let kind = DatastoreKind::ALL
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, kind)| *kind);
        if kind.is_none() {
            let near = suggestion(&word, DatastoreKind::ALL.iter().map(|(word, _)| *word));
            let known = DatastoreKind::ALL.map(|(word, _)| word).join(", ");
            let help = near.map_or_else(
                || format!("known are {known}"),
                |near| format!("did you mean `{near}`?"),
            );
            section.findings().error(
                section.place("kind"),
                format!("`{word}` is no kind of datastore, {help}"),
            );
        }
        kind
    });
    let needs_path = matches!(kind, Some(DatastoreKind::Sqlite | DatastoreKind::Files));
    let path = if needs_path {
        section.required("path")
    } else {
        section.optional("path")
    };
    let exclude = section.optional("exclude").unwrap_or_default();
    let dsn = section.optional("dsn");
    let files = match kind {
        Some(DatastoreKind::Files) => sources::files(&section),
        _ => FilesKeys::default(),
    };
    let command = match kind {
        Some(DatastoreKind::Command) => Some(sources::command(name, &section)?),
        _ => None,
    };
    let proof = super::proof::proof(&section, kind);
    let exporter = watching::exporter(&section, kind);
    let (mut keep, mut timed, mut ship) = (None, None, None);
    let backup = section.section("backup");
    let postgres = (kind == Some(DatastoreKind::Postgres)).then(|| sources::postgres(&section, backup.as_ref()));
    if let Some(backup) = backup {
        timed = schedule::of_backup(name, &backup);
        keep = backup.section("keep").and_then(super::keep::keep);
        ship = backup.optional("ship").map(|Span(interval)| interval);
        if ship.is_some() && kind.is_some_and(|kind| kind != DatastoreKind::Sqlite) {
            section
                .findings()
                .error(backup.place("ship"), "only the changes of a `sqlite` store are shipped");
        }
        backup.finish();
    }
    let origin = section.origin().clone();
    section.finish();
    Some(Datastore {
        name: name.to_owned(),
        origin,
        kind: kind?,
        path,
        exclude,
        files,
        command,
        postgres,
        keep,
        dsn,
        schedule: timed,
        proof,
        ship,
        exporter,
    })
}

const LATENCY: [(&str, f64); 5] = [
    ("latency_p50", 0.5),
    ("latency_p90", 0.9),
    ("latency_p95", 0.95),
    ("latency_p99", 0.99),
    ("latency_p999", 0.999),
];

/// `[service.NAME]`, the defaults and its environment's table merged in.
pub(super) fn service(name: &str, section: Section<'_>) -> Service {
    section.skip("env");
    let uses: Vec<String> = section.optional("uses").unwrap_or_default();
    let (mut health_http, mut health_grpc) = (None, None);
    if let Some(health) = section.section("health") {
        health_http = health.optional("http");
        health_grpc = health.optional("grpc");
        health.finish();
    }
    let (mut availability, mut latency) = (None, None);
    if let Some(objectives) = section.section("objectives") {
        availability = objectives.optional::<Percent>("availability").map(|percent| percent.0);
        for (key, quantile) in LATENCY {
            // The strictest one is judged.
            if let Some(Span(bound)) = objectives.optional(key) {
                latency = Some(LatencyObjective { quantile, bound });
            }
        }
        objectives.finish();
    }
    let probe = section.section("probe").and_then(|probe| {
        let http = probe.required("http");
        let rate = probe.or("rate", Rate("20/s".to_owned())).0;
        probe.finish();
        Some(Probe { http: http?, rate })
    });
    let canary_command = section.section("canary").and_then(|canary| {
        let command: Option<Vec<String>> = canary.required("command");
        if command
            .as_ref()
            .is_some_and(|command| !command.iter().any(|word| word.contains("{version}")))
        {
            canary.findings().error(
                canary.place("command"),
                "the canary's command does not say where the version stands: write `{version}`",
            );
        }
        canary.finish();
        command
    });
    let folder = section.origin().folder().unwrap_or(Path::new("/")).to_path_buf();
    let service = Service {
        name: name.to_owned(),
        origin: section.origin().clone(),
        local: section.section("local").and_then(|local| self::local(local, &folder)),
        team: section.optional("team"),
        uses: uses
            .iter()
            .map(|used| match used.split_once('/') {
                Some((store, part)) => StoreUse {
                    store: store.to_owned(),
                    part: Some(part.to_owned()),
                },
                None => StoreUse {
                    store: used.clone(),
                    part: None,
                },
            })
            .collect(),
        depends_on: section.optional("depends_on").unwrap_or_default(),
        folder,
        health_http,
        health_grpc,
        availability,
        latency,
        probe,
        canary_command,
        kubernetes: kubernetes::service(&section),
        sli: kubernetes::sli(&section),
        criteria: criteria::criteria(&section),
        exports: watching::exports(&section),
    };
    section.finish();
    service
}

fn local(section: Section<'_>, folder: &Path) -> Option<Local> {
    let unit: Option<String> = section.optional("unit");
    let command: Option<Vec<String>> = if unit.is_some() {
        section.optional("command")
    } else {
        section.required("command")
    };
    if command.as_ref().is_some_and(Vec::is_empty) {
        section.findings().error(
            section.place("command"),
            "the command is empty: expected a program and its arguments",
        );
    }
    let build = section.optional("build");
    let cwd = section.optional("cwd").unwrap_or_else(|| folder.to_path_buf());
    let replicas = section.or("replicas", 1_u32);
    if !(1..=100).contains(&replicas) {
        section.findings().error(
            section.place("replicas"),
            format!("{replicas} replicas cannot be run: expected 1 to 100"),
        );
    }
    let env = section.optional("env").unwrap_or_default();
    let data = section.optional("data");
    let (mut http_port, mut grpc_port) = (None, None);
    if let Some(ports) = section.section("ports") {
        http_port = ports.optional("http");
        grpc_port = ports.optional("grpc");
        ports.finish();
    }
    section.finish();
    Some(Local {
        command: command.filter(|command| !command.is_empty())?,
        build,
        cwd,
        replicas,
        env,
        http_port,
        grpc_port,
        data,
    })
}

/// Names that point at something must find it.
pub(super) fn check_names(
    services: &BTreeMap<String, Service>,
    datastores: &BTreeSet<String>,
    teams: &BTreeSet<String>,
    findings: &Findings,
) {
    for service in services.values() {
        let place = &service.origin;
        for used in &service.uses {
            exists(
                &used.store,
                datastores.iter().map(String::as_str),
                "datastore",
                &format!("`{}` uses", service.name),
                place,
                findings,
            );
        }
        for other in &service.depends_on {
            exists(
                other,
                services.keys().map(String::as_str),
                "service",
                &format!("`{}` depends on", service.name),
                place,
                findings,
            );
        }
        if let Some(team) = &service.team {
            exists(
                team,
                teams.iter().map(String::as_str),
                "team",
                &format!("`{}` belongs to", service.name),
                place,
                findings,
            );
        }
    }
}

/// One reference.
pub(super) fn exists<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    what: &str,
    who: &str,
    place: &Origin,
    findings: &Findings,
) {
    if known.clone().any(|known| known == name) {
        return;
    }
    let help = suggestion(name, known).map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
    findings.error(place, format!("{who} the {what} `{name}`, which is not declared{help}"));
}

/// A name that becomes a path, a host name and a variable: lower case, digits, dashes.
pub(super) fn check_name(name: &str, what: &str, place: &Origin, findings: &Findings) {
    let good = name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !good {
        findings.error(place, format!("`{name}` is no name for a {what}: expected lower-case letters, digits and dashes, a letter first, at most 63"));
    }
}

/// `version = 1`.
pub(super) fn check_version(node: Option<&Node>, file: &Origin, findings: &Findings) {
    match node.map(|node| (&node.value, &node.origin)) {
        Some((Value::Integer(1), _)) => {}
        Some((Value::Integer(other), origin)) => {
            findings.error(
                origin,
                format!("this opsctl reads version 1 of the file, not version {other}"),
            );
        }
        Some((other, origin)) => findings.error(origin, format!("`version` is 1, found {}", other.kind())),
        None => findings.error(file, "the file needs `version = 1`"),
    }
}
