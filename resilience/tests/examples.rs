//! Every example runs to its end, as the program that `cargo run --example` starts, and stays short. What an example
//! shows it asserts by itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Lines from which on an example teaches nobody anything.
const TOO_LONG: usize = 60;
/// Far more than any takes.
const LONG: Duration = Duration::from_secs(60);

fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = std::fs::read_dir(folder).expect("there are examples");
    let mut sources: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    sources.sort();
    sources
}

fn name(source: &Path) -> &str {
    source.file_stem().and_then(|name| name.to_str()).expect("a name")
}

/// Cargo builds examples before it runs tests, and puts them beside the folder of the test binaries.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this test is a program");
    let folder = own.ancestors().nth(2).expect("it lies in a target directory");
    let program = folder.join("examples").join(name);
    assert!(program.exists(), "build it with `cargo build -p resilience --examples`");
    program
}

async fn run(name: &str) {
    let child = Command::new(program(name))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(LONG, child).await;
    let output = ended
        .unwrap_or_else(|_| panic!("{name} did not end within {LONG:?}"))
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}\n{errors}", output.status);
}

#[tokio::test]
async fn an_axum_service() {
    run("axum_service").await;
}

#[tokio::test]
async fn a_tonic_client() {
    run("tonic_client").await;
}

#[tokio::test]
async fn a_reqwest_client() {
    run("reqwest_client").await;
}

#[tokio::test]
async fn a_message_consumer() {
    run("consumer").await;
}

#[test]
fn each_of_them_is_run_here_and_short() {
    let names: Vec<String> = sources().iter().map(|source| name(source).to_owned()).collect();
    assert_eq!(names, ["axum_service", "consumer", "reqwest_client", "tonic_client"]);
    for source in sources() {
        let lines = std::fs::read_to_string(&source).expect("text").lines().count();
        assert!(lines < TOO_LONG, "{} has {lines} lines", name(&source));
    }
}
