//! What a user of the crate gets who takes it as it is: few crates, none that needs a newer compiler than promised, and
//! a program that works. The fixtures are packages of their own outside the workspace. No network is asked.

use fixtures::Fixture;

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

fn fixture(name: &str) -> Fixture {
    Fixture::new(env!("CARGO_MANIFEST_DIR"), env!("CARGO_TARGET_TMPDIR"), name)
}

#[test]
fn default_features_bring_few_crates() {
    let crates = fixture("minimal").crates();
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
        let found = crates.iter().find(|(name, _)| name == heavy);
        assert_eq!(found, None);
    }
}

#[test]
fn every_dependency_builds_with_the_compiler_that_is_promised() {
    let packages = fixture("minimal").packages();
    let mut undeclared = Vec::new();
    for package in &packages {
        match package.rust_version {
            None => undeclared.push(package.name.as_str()),
            Some(needs) => assert!(needs <= OLDEST, "{package:?}"),
        }
    }
    undeclared.sort_unstable();
    assert_eq!(undeclared, UNDECLARED);
    let own = packages.iter().find(|package| package.name == "resilience");
    assert_eq!(
        own.and_then(|package| package.rust_version),
        Some(OLDEST),
        "what the manifest promises is what is tested here"
    );
}

#[test]
fn the_fixture_is_locked_to_what_the_workspace_is_locked_to() {
    let strange = fixture("minimal").locked_elsewhere();
    assert_eq!(strange, [], "in fixtures/minimal: cargo update NAME --precise VERSION");
}

#[test]
fn the_smallest_program_builds_and_works() {
    assert_eq!(fixture("minimal").run(), "answered at attempt 2\n");
}

#[test]
fn clippy_refuses_what_the_oldest_compiler_does_not_know() {
    let arguments = ["--quiet", "--", "-D", "clippy::incompatible_msrv"];
    let output = fixture("too_new").cargo("clippy", &arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "clippy let it pass");
    assert!(errors.contains("current MSRV") && errors.contains("1.86.0"), "{errors}");
}
