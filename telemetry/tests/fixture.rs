//! What a user gets who puts telemetry and health beside a subscriber of his own: a bounded number of crates, one of each
//! heavy thing, none that needs a newer compiler than promised, and a program that works. The fixture is a package of its
//! own outside the workspace. No network is asked. That clippy's lint on the oldest compiler is awake is shown by the
//! fixture `too_new` of `resilience`.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use fixtures::Fixture;
use tokio::time::Instant;

/// The compiler that `rust-version` promises.
const OLDEST: (u32, u32) = (1, 88);

/// Crates in the build of the fixture on Linux, the program and ours included. Most of them are the server, the client and
/// the wire of OTLP: axum, hyper, tonic, reqwest, rustls, prost, and the types of OpenTelemetry. Whoever must raise it
/// says here what for.
const MOST_CRATES: usize = 180;

fn beside() -> Fixture {
    Fixture::new(env!("CARGO_MANIFEST_DIR"), env!("CARGO_TARGET_TMPDIR"), "beside")
}

#[test]
fn default_features_bring_a_bounded_number_of_crates_and_each_once() {
    let crates = beside().crates();
    assert!(
        crates.len() <= MOST_CRATES,
        "{} crates, and not {MOST_CRATES}: {crates:#?}",
        crates.len()
    );
    let versions = |name: &str| crates.iter().filter(|(known, _)| known == name).count();
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
    let packages = beside().packages();
    for package in &packages {
        assert!(package.rust_version <= Some(OLDEST), "{package:?}");
    }
    let promised = |name: &str| {
        let own = packages.iter().find(|package| package.name == name);
        own.and_then(|package| package.rust_version)
    };
    assert_eq!(
        promised("telemetry"),
        Some(OLDEST),
        "what the manifest promises is what is tested here"
    );
    assert!(promised("health") <= Some(OLDEST));
}

#[test]
fn the_fixture_is_locked_to_what_the_workspace_is_locked_to() {
    let strange = beside().locked_elsewhere();
    assert_eq!(strange, [], "in fixtures/beside: cargo update NAME --precise VERSION");
}

#[test]
fn both_subscribers_get_what_they_want() {
    assert_eq!(beside().run(), "2 lines, 1 of them seen by the other layer\n");
}

/// The fixture is built to abort, as a test cannot be.
#[test]
fn a_panic_that_aborts_leaves_its_line_and_waits_for_no_collector() {
    // Connections are taken, and nothing is answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let collector = format!("http://{}", silent.local_addr().expect("an address"));
    let program = beside().build();
    let began = Instant::now();
    let output = Command::new(program)
        .args(["panic", &collector])
        .output()
        .expect("it starts");
    let took = began.elapsed();
    const ABORTED: i32 = 6;
    assert_eq!(output.status.signal(), Some(ABORTED), "{output:?}");
    let lines = String::from_utf8(output.stdout).expect("lines are UTF-8");
    let last = lines.lines().last().expect("a line");
    let last: serde_json::Value = serde_json::from_str(last).expect("lines are JSON");
    assert_eq!(
        (&last["level"], &last["target"], &last["payload"], &last["thread"]),
        (&"ERROR".into(), &"panic".into(), &"out of ideas".into(), &"main".into())
    );
    assert_eq!(output.stderr, b"the hook that was there before\n");
    // 200 ms, and what a busy machine makes of them; a request to the collector may take 10 s.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
