//! services/deploy: how the reference services run beside the servers that take their logs, traces and metrics, as a
//! compose file and as Kubernetes manifests, with the configuration of those servers. All of it is made from one
//! description (`stack`), which reads opsctl.toml; what each file was held against is said in its head.

mod chart;
mod compose;
mod configuration;
mod holes;
mod image;
mod kubernetes;
mod kustomize;
mod objects;
mod stack;
mod values;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use self::stack::Stack;

/// Where the files lie.
const FOLDER: &str = "services/deploy";
/// The rules of an adapter for Prometheus.
const ADAPTER: &str = "prometheus-adapter.yaml";
/// Folders in there that hold nothing else.
const WHOLE: &[&str] = &["chart", "kustomize"];

/// Writes or checks the files.
///
/// # Errors
/// When opsctl.toml cannot be read, a file cannot be written, or is stale and `check` is set.
pub fn write(check: bool) -> Result<()> {
    let root = peers::workspace_root();
    let folder = root.join(FOLDER);
    let rust = setting(root, "rust-toolchain.toml", &["toolchain", "channel"])?;
    let version = setting(root, "Cargo.toml", &["workspace", "package", "version"])?;
    let files = files(&Stack::read()?, &rust, &version)?;
    for (name, text) in &files {
        let file = folder.join(name);
        if fs::read_to_string(&file).is_ok_and(|old| old == *text) {
            continue;
        }
        ensure!(!check, "{FOLDER}/{name} is stale; run `cargo xtask codegen`");
        fs::create_dir_all(file.parent().unwrap_or(&folder)).with_context(|| format!("could not make {FOLDER}"))?;
        fs::write(&file, text).with_context(|| format!("could not write {FOLDER}/{name}"))?;
    }
    for whole in WHOLE {
        for file in files_below(&folder.join(whole))? {
            let name = file.strip_prefix(&folder).unwrap_or(&file).display().to_string();
            if !files.iter().any(|(known, _)| *known == name) {
                ensure!(
                    !check,
                    "{FOLDER}/{name} is no longer written; run `cargo xtask codegen`"
                );
                fs::remove_file(&file).with_context(|| format!("could not remove {FOLDER}/{name}"))?;
            }
        }
    }
    Ok(())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// A text in one of the project's TOML files.
fn setting(root: &Path, file: &str, keys: &[&str]) -> Result<String> {
    let text = fs::read_to_string(root.join(file)).with_context(|| format!("could not read {file}"))?;
    let mut value: &toml::Value = &toml::from_str(&text).with_context(|| format!("{file} is not as expected"))?;
    for key in keys {
        value = value.get(key).with_context(|| format!("{file} has no {key}"))?;
    }
    Ok(value
        .as_str()
        .with_context(|| format!("{file}: not a text"))?
        .to_owned())
}

/// Every file with its text.
fn files(stack: &Stack, rust: &str, version: &str) -> Result<Vec<(String, String)>> {
    let configurations = [
        (
            ADAPTER,
            "What prometheus-adapter is to tell autoscalers of request rate and queue size.\n\
             NOT PROVED: no adapter has read it; its queries were held against promtool.",
            objects::adapter(),
        ),
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
        .map(|(name, notes, value)| ((*name).to_owned(), head(notes) + &yaml::text(value)))
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
        ("docker-compose.yaml".to_owned(), compose),
        ("kubernetes.yaml".to_owned(), manifests),
        (image::FILE.to_owned(), image),
    ]);
    let defaults = values::defaults(stack, version);
    let inside = |folder: &'static str| move |(name, text)| (format!("{folder}/{name}"), text);
    files.extend(chart::files(&defaults, version).into_iter().map(inside("chart")));
    files.extend(kustomize::files(&defaults)?.into_iter().map(inside("kustomize")));
    Ok(files)
}

fn head(notes: &str) -> String {
    let lines = notes.lines().map(|line| format!("# {line}\n"));
    format!(
        "# Written by `cargo xtask codegen` from xtask/src/codegen/deploy; edit that.\n{}",
        lines.collect::<Vec<_>>().concat()
    )
}
