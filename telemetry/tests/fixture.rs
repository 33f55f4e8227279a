//! What a user gets who puts telemetry and health beside a subscriber of his own: a bounded number of crates, one of each
//! heavy thing, none that needs a newer compiler than promised, and a program that works. The fixture is a package of its
//! own outside the workspace. No network is asked. That clippy's lint on the oldest compiler is awake is shown by the
//! fixture `too_new` of `resilience`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The compiler that `rust-version` promises.
const OLDEST: (u32, u32) = (1, 88);

/// Crates in the build of the fixture on Linux, the program and ours included. Most of them are the server, the client and
/// the wire of OTLP: axum, hyper, tonic, reqwest, rustls, prost, and the types of OpenTelemetry. Whoever must raise it
/// says here what for.
const MOST_CRATES: usize = 180;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/beside")
}

/// Cargo in the fixture's folder, with the lock file as it is, and a target directory beside the usual one.
fn cargo(subcommand: &str, arguments: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
    Command::new(cargo)
        .arg(subcommand)
        .arg("--locked")
        .args(arguments)
        .current_dir(fixture())
        .env("CARGO_NET_OFFLINE", "true")
        .env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("beside"),
        )
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
fn default_features_bring_a_bounded_number_of_crates_and_each_once() {
    let arguments = ["--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = text(cargo("tree", &arguments));
    let mut crates: Vec<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?))
        })
        .collect();
    crates.sort_unstable();
    crates.dedup();
    assert!(
        crates.len() <= MOST_CRATES,
        "{} crates, and not {MOST_CRATES}: {crates:#?}",
        crates.len()
    );
    let versions = |name: &str| crates.iter().filter(|(known, _)| *known == name).count();
    for once in [
        "axum",
        "hyper",
        "tonic",
        "reqwest",
        "rustls",
        "prost",
        "opentelemetry",
        "tracing-subscriber",
    ] {
        assert_eq!(versions(once), 1, "{once}");
    }
    // A second provider of cryptography, a second client, and what is behind features.
    for never in [
        "aws-lc-rs",
        "openssl-sys",
        "native-tls",
        "tracing-loki",
        "tracing-opentelemetry",
        "opentelemetry-otlp",
    ] {
        assert_eq!(versions(never), 0, "{never}");
    }
}

#[test]
fn every_dependency_builds_with_the_compiler_that_is_promised() {
    // What other systems need may not be in the local cache.
    let arguments = ["--format-version", "1", "--filter-platform", &host()];
    let metadata = text(cargo("metadata", &arguments));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let version = |text: &str| {
        let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(u32::MAX));
        (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0))
    };
    for package in packages {
        if let Some(needs) = package["rust_version"].as_str() {
            assert!(version(needs) <= OLDEST, "{} needs Rust {needs}", package["name"]);
        }
    }
    let promised = |name: &str| {
        let own = packages.iter().find(|package| package["name"] == name);
        own.and_then(|package| package["rust_version"].as_str()).map(version)
    };
    assert_eq!(
        promised("telemetry"),
        Some(OLDEST),
        "what the manifest promises is what is tested here"
    );
    assert!(promised("health") <= Some(OLDEST));
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
    let mut strange = versions(&fixture().join("Cargo.lock"));
    let ours = versions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock"));
    strange.retain(|package| package.0 != "beside" && !ours.contains(package));
    assert_eq!(strange, [], "in fixtures/beside: cargo update NAME --precise VERSION");
}

#[test]
fn both_subscribers_get_what_they_want() {
    let said = text(cargo("run", &["--quiet"]));
    assert_eq!(said, "2 lines, 1 of them seen by the other layer\n");
}
