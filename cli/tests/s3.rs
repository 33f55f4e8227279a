//! A repository in S3 through the real binary: the good way, the exit code of each thing that goes wrong, and that no
//! secret is ever shown.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use peers::Server;
use peers::servers::MinIo;
use sandbox::{Ran, Sandbox};

/// The sandbox's stores in a bucket; `more` are further keys of the repository.
fn in_bucket(endpoint: &str, bucket: &str, more: &str) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let here = format!(
        "store = \"s3://{bucket}/shop\"\nendpoint = \"{endpoint}\"\n{more}\n\
         credentials = {{ access_key = {{ command = [\"cat\", \"access\"] }}, secret_key = {{ file = \"secret\" }} }}"
    );
    let config = fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
    sandbox.write("opsctl.toml", &config.replace("store = \"file:repo\"", &here));
    sandbox.write("access", MinIo::ACCESS_KEY);
    sandbox.write("secret", MinIo::SECRET_KEY);
    fs::set_permissions(sandbox.path("secret"), fs::Permissions::from_mode(0o600)).expect("our own file");
    sandbox
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let ran = sandbox.run(args);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!said.contains(MinIo::SECRET_KEY), "a secret is never shown: {said}");
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_a_bucket() {
    let recipe = MinIo::default().bucket("keeps");
    let Some(mut server) = Server::start(recipe, "a_repository_in_a_bucket").await else {
        return;
    };
    let sandbox = in_bucket(&server.url("s3"), "keeps", "");
    run(&sandbox, &["config", "show"]).ended(0);
    run(&sandbox, &["repository", "check"]).ended(2).says("no repository");
    fs::remove_file(sandbox.path("password")).expect("our own file");
    run(&sandbox, &["init"]).ended(0).says("keep a copy of `password`");
    run(&sandbox, &["backup"]).ended(0);
    let list = run(&sandbox, &["snapshot", "list", "--json"]).ended(0).json();
    assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(2));
    let restored = run(&sandbox, &["restore", "db"]).ended(0);
    let restored = std::path::PathBuf::from(restored.stdout.trim()).join("shop.db");
    assert_eq!(Sandbox::rows(&restored), ["book", "pen"]);
    run(&sandbox, &["repository", "check", "--read-data"]).ended(0);
    // The service tells whole seconds, so the newest snapshots seem to lie ahead.
    for _ in 0..3 {
        run(&sandbox, &["backup", "files"]).ended(0);
        run(&sandbox, &["drill", "restore", "files"]).ended(0);
    }

    let no_bucket = in_bucket(&server.url("s3"), "nowhere", "");
    run(&no_bucket, &["backup"])
        .ended(2)
        .says("there is no bucket `nowhere`");
    let report = run(&sandbox, &["recovery", "report", "db"]).ended(0).stdout;
    let place = format!("restic -r s3:{}/keeps/shop restore latest", server.url("s3"));
    assert!(report.contains(&place), "{place:?} is not in:\n{report}");

    // A password for a repository that has one already would open nothing.
    let password = fs::read(sandbox.path("password")).expect("our own file");
    fs::remove_file(sandbox.path("password")).expect("our own file");
    run(&sandbox, &["init"])
        .ended(5)
        .says("has data and its password is missing");
    assert!(!sandbox.path("password").exists());
    sandbox.secret("password", &String::from_utf8(password).expect("text"));

    sandbox.write("secret", "another-secret");
    run(&sandbox, &["backup"]).ended(2).says("refuses the credentials");
    fs::remove_file(sandbox.path("secret")).expect("our own file");
    run(&sandbox, &["backup"])
        .ended(2)
        .says("the secret key of repository `here`");
    sandbox.write("secret", MinIo::SECRET_KEY);
    server.stop().await;
    run(&sandbox, &["snapshot", "list"]).ended(7).says("does not answer");
}

#[test]
fn an_endpoint_that_everybody_could_listen_to_is_refused() {
    let sandbox = in_bucket("http://192.0.2.1:9000", "keeps", "");
    sandbox.run(&["config", "check"]).ended(2).says("`insecure = true`");
    in_bucket("http://192.0.2.1:9000", "keeps", "insecure = true")
        .run(&["config", "check"])
        .ended(0);
    in_bucket(
        "https://s3.example.com",
        "keeps",
        "region = \"eu-1\"\npath_style = false\nchecksums = \"always\"",
    )
    .run(&["config", "check"])
    .ended(0);
    in_bucket("https://s3.example.com", "keeps", "checksums = \"never\"")
        .run(&["config", "check"])
        .ended(2)
        .says("when-required");
    let local = Sandbox::with_stores();
    let config = fs::read_to_string(local.path("opsctl.toml")).expect("our own file");
    local.write(
        "opsctl.toml",
        &config.replace("[repository.here]\n", "[repository.here]\nendpoint = \"https://x\"\n"),
    );
    local.run(&["config", "check"]).ended(2).says("unknown key `endpoint`");
}

#[test]
fn the_roles_of_a_bucket_are_printed() {
    let sandbox = in_bucket("https://s3.example.com", "keeps", "");
    let both = sandbox.run(&["rbac", "--for", "backup"]).ended(0).json();
    let writer = sandbox
        .run(&["rbac", "--for", "backup", "--role", "writer"])
        .ended(0)
        .json();
    assert_eq!(both["writer"], writer);
    let deletes = |policy: &serde_json::Value| {
        let statements = policy["Statement"].as_array().expect("statements").clone();
        let deletes = statements
            .into_iter()
            .find(|statement| statement["Action"][0] == "s3:DeleteObject");
        deletes.expect("one says what may be deleted")["Resource"][0].clone()
    };
    assert_eq!(deletes(&writer), "arn:aws:s3:::keeps/shop/locks/*");
    assert_eq!(deletes(&both["pruner"]), "arn:aws:s3:::keeps/shop/*");
    let document = sandbox.run(&["rbac", "--for", "backup", "--json"]).ended(0).json();
    assert_eq!(document["type"], "bucket_policies");
    assert_eq!(document["policies"], both);
    sandbox
        .run(&["rbac", "--for", "backup,drill"])
        .ended(2)
        .says("by themselves");
    sandbox.run(&["rbac", "--role", "writer"]).ended(2).says("--for backup");
    Sandbox::with_stores()
        .run(&["rbac", "--for", "backup"])
        .ended(2)
        .says("repositories in S3");
}
