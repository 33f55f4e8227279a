//! Who may import whom, and what every crate's manifest says. This table is the law; ARCHITECTURE.md explains it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::step;

/// A crate, its folder, and the crates of ours that its product code may import.
struct Allowed {
    package: &'static str,
    folder: &'static str,
    imports: &'static [&'static str],
}

const LIBRARIES: &[&str] = &["resilience", "telemetry", "health"];
const SERVICE: &[&str] = &["resilience", "telemetry", "health", "catalogue", "proto", "chassis"];

const TABLE: &[Allowed] = &[
    // Libraries that any service links. The first two know nothing else of ours; telemetry bridges them to metrics.
    Allowed {
        package: "resilience",
        folder: "resilience",
        imports: &[],
    },
    Allowed {
        package: "health",
        folder: "health",
        imports: &[],
    },
    Allowed {
        package: "catalogue",
        folder: "telemetry/catalogue",
        imports: &[],
    },
    Allowed {
        package: "telemetry",
        folder: "telemetry",
        imports: &["catalogue", "resilience", "health"],
    },
    // The reference services.
    Allowed {
        package: "proto",
        folder: "services/proto",
        imports: &[],
    },
    Allowed {
        package: "chassis",
        folder: "services/chassis",
        imports: LIBRARIES,
    },
    Allowed {
        package: "identity",
        folder: "services/identity",
        imports: SERVICE,
    },
    Allowed {
        package: "orders",
        folder: "services/orders",
        imports: SERVICE,
    },
    Allowed {
        package: "payments",
        folder: "services/payments",
        imports: SERVICE,
    },
    Allowed {
        package: "notifications",
        folder: "services/notifications",
        imports: SERVICE,
    },
    // What opsctl is made of.
    Allowed {
        package: "backups",
        folder: "backups",
        imports: &["replication", "resilience", "telemetry"],
    },
    // PostgreSQL's protocol, and what its log is counted by.
    Allowed {
        package: "replication",
        folder: "backups/replication",
        imports: &[],
    },
    // Asks the servers that all of them know: Prometheus, Alertmanager, Grafana.
    Allowed {
        package: "endpoint",
        folder: "alerts/endpoint",
        imports: &[],
    },
    // Of rules and boards: the language, what there is to ask for, what is wrong with a question, the drawing.
    Allowed {
        package: "promql",
        folder: "alerts/promql",
        imports: &[],
    },
    Allowed {
        package: "manifest",
        folder: "alerts/manifest",
        imports: &["catalogue"],
    },
    Allowed {
        package: "lint",
        folder: "alerts/lint",
        imports: &["manifest", "promql"],
    },
    Allowed {
        package: "alerts",
        folder: "alerts",
        imports: &["catalogue", "endpoint", "lint", "manifest", "promql"],
    },
    Allowed {
        package: "pictures",
        folder: "dashboards/pictures",
        imports: &[],
    },
    Allowed {
        package: "dashboards",
        folder: "dashboards",
        imports: &["catalogue", "endpoint", "lint", "manifest", "pictures", "promql"],
    },
    Allowed {
        package: "opsctl-proxy-control",
        folder: "cli/proxy/control",
        imports: &[],
    },
    Allowed {
        package: "opsctl-proxy",
        folder: "cli/proxy",
        imports: &["catalogue", "opsctl-proxy-control"],
    },
    Allowed {
        package: "opsctl-load",
        folder: "cli/load",
        imports: &["resilience", "telemetry"],
    },
    Allowed {
        package: "opsctl-platform",
        folder: "cli/platform",
        imports: &[
            "catalogue",
            "endpoint",
            "resilience",
            "telemetry",
            "opsctl-proxy-control",
        ],
    },
    Allowed {
        package: "opsctl-drills",
        folder: "cli/drills",
        imports: &[
            "opsctl-platform",
            "opsctl-proxy-control",
            "opsctl-load",
            "pictures",
            "promql",
        ],
    },
    Allowed {
        package: "opsctl-rollouts",
        folder: "cli/rollouts",
        imports: &["opsctl-platform", "opsctl-proxy-control"],
    },
    Allowed {
        package: "opsctl",
        folder: "cli",
        imports: &[
            "alerts",
            "backups",
            "catalogue",
            "dashboards",
            "endpoint",
            "health",
            "lint",
            "manifest",
            "opsctl-drills",
            "opsctl-load",
            "opsctl-platform",
            "opsctl-proxy",
            "opsctl-proxy-control",
            "opsctl-rollouts",
            "pictures",
            "promql",
            "resilience",
            "telemetry",
        ],
    },
    // The project's own tasks.
    Allowed {
        package: "peers",
        folder: "xtask/peers",
        imports: &[],
    },
    Allowed {
        package: "fixtures",
        folder: "xtask/fixtures",
        imports: &[],
    },
    Allowed {
        package: "measure",
        folder: "xtask/measure",
        imports: &[],
    },
    Allowed {
        package: "xtask",
        folder: "xtask",
        imports: &["peers", "catalogue"],
    },
];

/// Crates that would count metrics past the catalogue. Benchmarks and tests may compare with them.
const UNCATALOGUED: &[&str] = &[
    "metrics",
    "opentelemetry-prometheus",
    "prometheus",
    "prometheus-client",
    "prometheus-client-derive-encode",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    publish: Option<Vec<String>>,
    rust_version: Option<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Every crate stands in its folder, is not published, takes the workspace's lints, and imports only what it may.
pub fn check() -> Result<Vec<Finding>> {
    let text = step::output(&mut step::cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let Some(allowed) = TABLE.iter().find(|row| row.package == package.name) else {
            findings.push(Finding::new(
                &package.name,
                "is not in the table of xtask/src/tidy/crates.rs; say there what it may import",
            ));
            continue;
        };
        seen.insert(allowed.package);
        findings.extend(check_manifest(package, allowed)?);
        for dependency in &package.dependencies {
            if dependency.kind.is_none() && UNCATALOGUED.contains(&dependency.name.as_str()) {
                findings.push(Finding::new(
                    &package.name,
                    format!(
                        "must not use `{}`: a metric is a line of telemetry/catalogue, counted by telemetry",
                        dependency.name
                    ),
                ));
            }
            // Tests may use everything; so may build scripts, of which there are none.
            let ours = dependency.path.is_some() && dependency.kind.is_none();
            if ours && !allowed.imports.contains(&dependency.name.as_str()) {
                findings.push(Finding::new(
                    &package.name,
                    format!("must not import `{}`", dependency.name),
                ));
            }
        }
    }
    for row in TABLE {
        if !seen.contains(row.package) {
            findings.push(Finding::new(
                row.package,
                "stands in the table but not in the workspace",
            ));
        }
    }
    Ok(findings)
}

fn check_manifest(package: &Package, allowed: &Allowed) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut wrong = |message: String| findings.push(Finding::new(&package.name, message));
    let expected = peers::workspace_root().join(allowed.folder).join("Cargo.toml");
    if expected.as_os_str() != package.manifest_path.as_str() {
        wrong(format!("must stand in `{}`", allowed.folder));
    }
    if package.publish.as_ref().is_none_or(|registries| !registries.is_empty()) {
        wrong("must say `publish = false`: users link by git".to_owned());
    }
    let text = std::fs::read_to_string(&package.manifest_path)?;
    let manifest: toml::Table = toml::from_str(&text)?;
    let takes_lints = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool)
        .unwrap_or(false);
    if !takes_lints {
        wrong("must take the workspace's lints (`[lints] workspace = true`)".to_owned());
    }
    if LIBRARIES.contains(&allowed.package) {
        let own = manifest
            .get("package")
            .and_then(|table| table.get("rust-version"))
            .is_some_and(toml::Value::is_str);
        if !own || package.rust_version.is_none() {
            wrong("must state its own `rust-version`, since users link it".to_owned());
        }
    }
    Ok(findings)
}
