//! Chooses the environment and lays the layers over each other: flag > `OPSCTL_…` > the service's env table >
//! service > defaults. Every declared environment is checked, also those that are not chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ConfigError;
use super::document::{Document, Node, Origin, Table, Value, parse_value};
use super::finding::Findings;
use super::model::Config;
use super::section::Section;
use super::suggest::suggestion;
use super::{kubernetes, read, schedule};
use crate::context::Context;

/// The name of the only environment of a file that declares none.
const IMPLICIT: &str = "local";

/// Variables that set one key of the chosen environment.
pub(crate) const VARIABLES: [(&str, &str); 6] = [
    ("OPSCTL_REPOSITORY", "repository"),
    ("OPSCTL_DEFAULT_SERVICE", "default_service"),
    ("OPSCTL_PROMETHEUS", "prometheus"),
    ("OPSCTL_ALERTMANAGER", "alertmanager"),
    ("OPSCTL_LOKI", "loki"),
    ("OPSCTL_TRACES", "traces"),
];

/// Keys that no variable sets: they decide what runs, where, and who is asked.
const SEALED: [&str; 8] = [
    "command",
    "build",
    "unit",
    "cwd",
    "variables",
    "programs",
    "protected",
    "server",
];

/// From the merged files to the typed configuration of the chosen environment.
pub(super) fn resolve(
    context: &Context,
    file: &Path,
    document: Document,
    named: Option<&str>,
) -> Result<Config, ConfigError> {
    let Document { mut table, findings } = document;
    let start = start_of(context, file);
    let declared: Vec<String> = table.table("env").map_or_else(
        || vec![IMPLICIT.to_owned()],
        |envs| envs.entries.keys().cloned().collect(),
    );
    let chosen = match named {
        Some(name) => name.to_owned(),
        None => choose(context, &table, &declared, &start, &findings),
    };
    apply_variables(context, &mut table, &chosen, &findings);

    // The others first: what the chosen one shows is what `config show` shows.
    for name in declared.iter().filter(|name| **name != chosen) {
        let silent = Findings::default();
        read_environment(&table, file, name, &declared, &start, &silent);
        for diagnostic in silent.finish().1 {
            findings.error(&diagnostic.origin, diagnostic.message);
        }
    }
    let config = read_environment(&table, file, &chosen, &declared, &start, &findings);
    let (values, diagnostics) = findings.finish();
    if diagnostics.is_empty() {
        Ok(Config {
            values,
            state: context
                .env("OPSCTL_STATE")
                .map(|folder| context.absolute(Path::new(folder))),
            ..config
        })
    } else {
        Err(ConfigError::Invalid {
            file: context.shown(file),
            diagnostics,
        })
    }
}

fn start_of(context: &Context, file: &Path) -> Origin {
    Origin::File {
        file: context.shown(file).into(),
        folder: file.parent().unwrap_or(Path::new("/")).into(),
        line: 1,
        column: 1,
    }
}

fn choose(context: &Context, table: &Table, declared: &[String], start: &Origin, findings: &Findings) -> String {
    let by_flag = context.global.env.clone().map(|name| (name, Origin::Flag("--env")));
    let by_variable = || {
        context
            .env("OPSCTL_ENV")
            .map(|name| (name.to_owned(), Origin::Variable("OPSCTL_ENV".to_owned())))
    };
    let by_file = || match table.get("default_env") {
        Some(Node {
            value: Value::String(name),
            origin,
        }) => Some((name.clone(), origin.clone())),
        _ => None,
    };
    let Some((name, origin)) = by_flag.or_else(by_variable).or_else(by_file) else {
        if let [only] = declared {
            findings.show("default_env".to_owned(), super::values::quoted(only), &Origin::Default);
            return only.clone();
        }
        findings.error(
            start,
            format!("which environment: set `default_env` to one of {}", declared.join(", ")),
        );
        return declared.first().cloned().unwrap_or_default();
    };
    if !declared.contains(&name) {
        let near = suggestion(&name, declared.iter().map(String::as_str));
        let help = near.map_or_else(
            || format!("declared are {}", declared.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        findings.error(&origin, format!("there is no environment `{name}`, {help}"));
    }
    findings.show("environment".to_owned(), super::values::quoted(&name), &origin);
    name
}

/// Lays `OPSCTL_…` over the tables.
fn apply_variables(context: &Context, table: &mut Table, chosen: &str, findings: &Findings) {
    for (variable, key) in VARIABLES {
        if let Some(value) = context.env(variable) {
            let origin = Origin::Variable(variable.to_owned());
            table.set(
                &["env", chosen, key],
                Node {
                    value: Value::String(value.to_owned()),
                    origin,
                },
            );
        }
    }
    for (prefix, kind) in [("OPSCTL_SERVICE__", "service"), ("OPSCTL_DATASTORE__", "datastore")] {
        for (variable, value) in context.env_with_prefix(prefix) {
            let origin = Origin::Variable(variable.to_owned());
            let words: Vec<String> = variable[prefix.len()..].split("__").map(str::to_lowercase).collect();
            let [name, path @ ..] = words.as_slice() else { continue };
            let names = table
                .table(kind)
                .map(|tables| tables.entries.keys().cloned().collect::<Vec<_>>())
                .unwrap_or_default();
            let Some(name) = names.iter().find(|known| known.replace('-', "_") == *name) else {
                findings.error(&origin, format!("there is no {kind} `{name}` that it could set"));
                continue;
            };
            if path.is_empty() {
                findings.error(&origin, format!("it names no key: write {prefix}NAME__KEY"));
            } else if let Some(sealed) = path.iter().find(|word| SEALED.contains(&word.as_str())) {
                findings.error(
                    &origin,
                    format!("`{sealed}` cannot be set by a variable, only in the file"),
                );
            } else {
                // In the chosen environment's table, above which only flags stand.
                let mut full = vec![kind, name.as_str(), "env", chosen];
                full.extend(path.iter().map(String::as_str));
                table.set(&full, parse_value(value, &origin));
            }
        }
    }
}

/// Reads everything as it is in one environment.
fn read_environment(
    table: &Table,
    file: &Path,
    name: &str,
    declared: &[String],
    start: &Origin,
    findings: &Findings,
) -> Config {
    let root = Section::new(table, "", start, findings);
    read::check_version(table.get("version"), start, findings);
    root.skip("version");
    root.skip("include");
    let _: Option<String> = table
        .get("default_env")
        .is_some()
        .then(|| root.optional("default_env"))
        .flatten();
    root.skip("default_env");

    let implicit = Table::default();
    let environment = root
        .named("env")
        .into_iter()
        .find(|(known, _)| known == name)
        .map_or_else(
            || Section::new(&implicit, format!("env.{name}"), start, findings),
            |(_, section)| section,
        );
    let environment = read::environment(name, environment);
    let clusters: BTreeMap<_, _> = root
        .named("cluster")
        .into_iter()
        .filter_map(|(name, section)| Some((name.clone(), kubernetes::cluster(&name, section)?)))
        .collect();
    let repositories: BTreeMap<_, _> = root
        .named("repository")
        .into_iter()
        .filter_map(|(name, section)| Some((name.clone(), read::repository(&name, section)?)))
        .collect();
    let teams: BTreeMap<_, _> = root
        .named("team")
        .into_iter()
        .map(|(name, section)| (name, read::team(section)))
        .collect();

    let mut datastores = BTreeMap::new();
    let mut datastore_names = BTreeSet::new();
    for (name, node) in layered(table, "datastore", name, declared, findings) {
        read::check_name(&name, "datastore", &node.origin, findings);
        let section = Section::new(table_of(&node), format!("datastore.{name}"), &node.origin, findings);
        if let Some(datastore) = read::datastore(&name, section) {
            datastores.insert(name.clone(), datastore);
        }
        datastore_names.insert(name);
    }
    root.skip("datastore");

    let mut services = BTreeMap::new();
    for (name, node) in layered(table, "service", name, declared, findings) {
        read::check_name(&name, "service", &node.origin, findings);
        let section = Section::new(table_of(&node), format!("service.{name}"), &node.origin, findings);
        services.insert(name.clone(), read::service(&name, section));
    }
    root.skip("service");
    let names: BTreeSet<String> = services.keys().cloned().collect();
    let timed = schedule::read((&root, table), (name, declared), &datastores, &names);
    if let Some(defaults) = root.section("defaults") {
        defaults.skip("schedule");
        defaults.skip("cleanup");
        if let Some(service) = defaults.section("service") {
            // Read for its errors when there is no service that would be read with it.
            if services.is_empty() {
                read::service("defaults", service);
            }
        }
        defaults.finish();
    }
    root.finish();

    read::check_names(&services, &datastore_names, &teams.keys().cloned().collect(), findings);
    let place = |key: &str| {
        table
            .table("env")
            .and_then(|envs| envs.table(name))
            .and_then(|env| env.get(key))
            .map_or(start, |node| &node.origin)
    };
    if let Some(service) = &environment.default_service {
        let who = format!("environment `{name}` has as default");
        read::exists(
            service,
            services.keys().map(String::as_str),
            "service",
            &who,
            place("default_service"),
            findings,
        );
    }
    let declared_as = |kind: &str| {
        table
            .table(kind)
            .map(|all| all.entries.keys().cloned().collect::<Vec<_>>())
            .unwrap_or_default()
    };
    for cluster in &environment.clusters {
        let who = format!("environment `{name}` is on");
        let known = declared_as("cluster");
        let known = known.iter().map(String::as_str);
        read::exists(cluster, known, "cluster", &who, place("clusters"), findings);
    }
    if let Some(repository) = &environment.repository {
        let declared = declared_as("repository");
        let who = format!("environment `{name}` keeps backups in");
        read::exists(
            repository,
            declared.iter().map(String::as_str),
            "repository",
            &who,
            place("repository"),
            findings,
        );
    }
    Config {
        file: file.to_path_buf(),
        root: file.parent().unwrap_or(Path::new("/")).to_path_buf(),
        environment,
        state: None,
        environments: declared.to_vec(),
        clusters,
        services,
        datastores,
        repositories,
        schedules: timed.schedules,
        cleanups: timed.cleanups,
        teams,
        values: Vec::new(),
    }
}

pub(super) fn table_of(node: &Node) -> &Table {
    match &node.value {
        Value::Table(table) => table,
        _ => unreachable!("layered() hands out tables alone"),
    }
}

/// The tables of one kind with defaults below and the environment's table on top.
pub(super) fn layered(
    table: &Table,
    kind: &'static str,
    environment: &str,
    declared: &[String],
    findings: &Findings,
) -> Vec<(String, Node)> {
    let defaults = table.table("defaults").and_then(|defaults| defaults.table(kind));
    let mut layered = Vec::new();
    let Some(kinds) = table.get(kind) else { return layered };
    let Value::Table(kinds) = &kinds.value else {
        findings.error(
            &kinds.origin,
            format!("`{kind}` is a table of tables, found {}", kinds.value.kind()),
        );
        return layered;
    };
    for (name, (_, node)) in &kinds.entries {
        let Value::Table(own) = &node.value else {
            findings.error(
                &node.origin,
                format!("`{kind}.{name}` is a table, found {}", node.value.kind()),
            );
            continue;
        };
        let mut merged = defaults.cloned().unwrap_or_default();
        merged.merge(own);
        if let Some(envs) = own.table("env") {
            for (env, (origin, _)) in envs.entries.iter().filter(|(env, _)| !declared.contains(env)) {
                let help = suggestion(env, declared.iter().map(String::as_str)).map_or_else(
                    || format!(", declared are {}", declared.join(", ")),
                    |near| format!(", did you mean `{near}`?"),
                );
                findings.error(
                    origin,
                    format!("`{kind}.{name}` has values for the environment `{env}`, which is not declared{help}"),
                );
            }
            if let Some(over) = envs.table(environment) {
                merged.merge(over);
            }
        }
        layered.push((
            name.clone(),
            Node {
                value: Value::Table(merged),
                origin: node.origin.clone(),
            },
        ));
    }
    layered
}
