//! A test whose server is not installed says so by name, and fails where peers are required.

use std::{
    env, fs,
    process::{Command, Output},
};

use peers::{Server, servers};

/// Set in the test that is run without its server.
const INNER: &str = "OPSCTL_TEST_IS_INNER";
const NAME: &str = "a_missing_server_is_a_named_skip";

#[tokio::test]
async fn a_missing_server_is_a_named_skip() {
    if env::var_os(INNER).is_some() {
        assert!(Server::start(servers::Loki::default(), NAME).await.is_none());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("skipped");
    // An empty cache has no Loki.
    let run = |required: &str| -> Output {
        let mut inner = Command::new(env::current_exe().unwrap());
        inner
            .args(["--exact", NAME])
            .env(INNER, "1")
            .env("XDG_CACHE_HOME", folder.path());
        inner.env(peers::SKIP_LOG, &log).env(peers::REQUIRE_PEERS, required);
        inner.output().unwrap()
    };

    let skipped = run("0");
    assert!(skipped.status.success(), "{skipped:?}");
    let expected = format!("{NAME}: loki is not installed (Go module)\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), expected);

    let required = run("1");
    assert!(!required.status.success());
    let said = String::from_utf8_lossy(&required.stdout).into_owned();
    assert!(said.contains("loki is not installed"), "{said}");
}
