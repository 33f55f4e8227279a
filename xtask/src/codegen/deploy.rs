//! services/deploy: how the reference services run beside the servers that take their logs, traces and metrics, as a
//! compose file and as Kubernetes manifests, with the configuration of those servers. All of it is made from one
//! description (`stack`), which reads opsctl.toml; what each file was held against is said in its head.

mod compose;
mod configuration;
mod image;
mod kubernetes;
mod stack;
mod yaml;

use std::fs;

use anyhow::{Context, Result, ensure};

use self::stack::Stack;

/// Where the files lie.
const FOLDER: &str = "services/deploy";

/// Writes or checks the files.
///
/// # Errors
/// When opsctl.toml cannot be read, a file cannot be written, or is stale and `check` is set.
pub fn write(check: bool) -> Result<()> {
    let root = peers::workspace_root();
    let toolchain =
        fs::read_to_string(root.join("rust-toolchain.toml")).context("could not read rust-toolchain.toml")?;
    let toolchain: toml::Value = toml::from_str(&toolchain)?;
    let rust = toolchain["toolchain"]["channel"]
        .as_str()
        .context("rust-toolchain.toml names no channel")?;
    let folder = root.join(FOLDER);
    for (name, text) in files(&Stack::read()?, rust) {
        let file = folder.join(name);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        ensure!(!check, "{FOLDER}/{name} is stale; run `cargo xtask codegen`");
        fs::create_dir_all(&folder).with_context(|| format!("could not make {FOLDER}"))?;
        fs::write(&file, text).with_context(|| format!("could not write {FOLDER}/{name}"))?;
    }
    Ok(())
}

/// Every file with its text.
fn files(stack: &Stack, rust: &str) -> Vec<(&'static str, String)> {
    let configurations = [
        (
            configuration::COLLECTOR,
            "Whole traces are kept when a span failed, when they are slow, and else one in ten. One collector must see\n\
             all spans of a trace: run one, or put collectors with the load-balancing exporter before several.\n\
             Held against a real collector: it takes the file, and what comes out is what should.",
            configuration::collector(stack),
        ),
        (
            configuration::PROMETHEUS,
            "Held against promtool and a real Prometheus.",
            configuration::prometheus(stack),
        ),
        (
            configuration::LOKI,
            "Held against a real Loki's own check.",
            configuration::loki(),
        ),
        (
            configuration::JAEGER,
            "Held against a real Jaeger, which starts with it.",
            configuration::jaeger(),
        ),
        (
            configuration::TEMPO,
            "NOT PROVED: written after Tempo's documentation, never read by a Tempo.",
            configuration::tempo(),
        ),
    ];
    let mut files: Vec<_> = configurations
        .iter()
        .map(|(name, notes, value)| (*name, head(notes) + &yaml::text(value)))
        .collect();
    let text_of = |name: &str| {
        let found = files.iter().find(|(file, _)| *file == name);
        found.map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let manifests: Vec<String> = kubernetes::manifests(stack, text_of).iter().map(yaml::text).collect();
    let manifests = head("Held against the schemas of Kubernetes 1.36, strictly; NOT applied to a cluster.")
        + &manifests.join("---\n");
    let compose = head("Held against compose-go, which Docker reads such files with; NOT started.")
        + &yaml::text(&compose::file(stack));
    let image = head("NOT BUILT: no Docker has read it.") + &image::file(stack, rust);
    files.extend([
        ("docker-compose.yaml", compose),
        ("kubernetes.yaml", manifests),
        (image::FILE, image),
    ]);
    files
}

fn head(notes: &str) -> String {
    let lines = notes.lines().map(|line| format!("# {line}\n"));
    format!(
        "# Written by `cargo xtask codegen` from xtask/src/codegen/deploy; edit that.\n{}",
        lines.collect::<Vec<_>>().concat()
    )
}
