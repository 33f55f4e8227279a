//! What a user of the crate gets who takes it as it is: few crates, none that needs a newer compiler than promised, and
//! a program that works. The fixtures are packages of their own outside the workspace. No network is asked.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The compiler that `rust-version` promises.
const OLDEST: (u32, u32) = (1, 85);

/// Crates in the build of a program with default features, the program and this crate included. Today:
/// - 7 for the derives of serde and thiserror (their two macros, `proc-macro2`, `quote`, `syn`, `unicode-ident`, `serde_core`),
/// - 6 for TOML (`toml`, its parser, its spans and dates, `winnow`, `humantime`), which go without the feature `config`,
/// - 3 for the coarse clock (`rustix` and what it stands on),
/// - 3 for `tracing`, without its macros for functions,
/// - and `serde`, `thiserror`, `tokio` with nothing but its clock and tasks, `pin-project-lite`, `tower-layer`,
///   `tower-service`, `fastrand`.
///
/// Whoever must raise it says here what for.
const MOST_CRATES: usize = 28;

/// They name no `rust-version`; both are traits of a few lines.
const UNDECLARED: [&str; 2] = ["tower-layer", "tower-service"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Cargo in a fixture's folder, with the lock file as it is, and a target directory beside the usual one.
fn cargo(name: &str, subcommand: &str, arguments: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
    Command::new(cargo)
        .arg(subcommand)
        .arg("--locked")
        .args(arguments)
        .current_dir(fixture(name))
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo starts")
}

/// The system that this runs on, as the compiler calls it.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = text(Command::new(rustc).arg("-vV").output().expect("rustc starts"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

fn text(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

#[test]
fn default_features_bring_few_crates() {
    let tree = text(cargo(
        "minimal",
        "tree",
        &["--edges", "normal,build", "--prefix", "none", "--format", "{p}"],
    ));
    // A crate that occurs again is marked; a path stands behind those of ours.
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut crates: Vec<String> = tree.lines().map(name).collect();
    crates.sort();
    crates.dedup();
    assert!(
        crates.len() <= MOST_CRATES,
        "{} crates, and not {MOST_CRATES}: {crates:#?}",
        crates.len()
    );
    // What nobody asked for who wants a breaker.
    for heavy in [
        "axum",
        "bytes",
        "h2",
        "http",
        "hyper",
        "mio",
        "rand",
        "reqwest",
        "socket2",
        "tokio-macros",
        "tonic",
    ] {
        let found = crates.iter().find(|line| line.split(' ').next() == Some(heavy));
        assert_eq!(found, None);
    }
}

#[test]
fn every_dependency_builds_with_the_compiler_that_is_promised() {
    // What other systems need may not be in the local cache.
    let arguments = ["--format-version", "1", "--filter-platform", &host()];
    let metadata = text(cargo("minimal", "metadata", &arguments));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let version = |text: &str| {
        let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(u32::MAX));
        (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0))
    };
    let mut undeclared = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        match package["rust_version"].as_str() {
            None => undeclared.push(name),
            Some(needs) => assert!(version(needs) <= OLDEST, "{name} needs Rust {needs}"),
        }
    }
    undeclared.sort_unstable();
    assert_eq!(undeclared, UNDECLARED);
    let own = packages.iter().find(|package| package["name"] == "resilience");
    let promised = own.and_then(|package| package["rust_version"].as_str()).map(version);
    assert_eq!(
        promised,
        Some(OLDEST),
        "what the manifest promises is what is tested here"
    );
}

/// Otherwise an update of the workspace would leave the fixture behind, and nothing in the local cache to build it from.
#[test]
fn the_fixture_is_locked_to_what_the_workspace_is_locked_to() {
    let versions = |lock: &Path| -> Vec<(String, String)> {
        let text = std::fs::read_to_string(lock).expect("a lock file");
        let lock: toml::Table = text.parse().expect("lock files are TOML");
        let packages = lock["package"].as_array().expect("packages").iter();
        let field = |package: &toml::Value, key: &str| package[key].as_str().expect("text").to_owned();
        packages
            .map(|package| (field(package, "name"), field(package, "version")))
            .collect()
    };
    let mut strange = versions(&fixture("minimal").join("Cargo.lock"));
    let ours = versions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock"));
    strange.retain(|package| package.0 != "minimal" && !ours.contains(package));
    assert_eq!(strange, [], "in fixtures/minimal: cargo update NAME --precise VERSION");
}

#[test]
fn the_smallest_program_builds_and_works() {
    let said = text(cargo("minimal", "run", &["--quiet"]));
    assert_eq!(said, "answered at attempt 2\n");
}

#[test]
fn clippy_refuses_what_the_oldest_compiler_does_not_know() {
    let output = cargo(
        "too_new",
        "clippy",
        &["--quiet", "--", "-D", "clippy::incompatible_msrv"],
    );
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "clippy let it pass");
    assert!(errors.contains("current MSRV") && errors.contains("1.86.0"), "{errors}");
}
