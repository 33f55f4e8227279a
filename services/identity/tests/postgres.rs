//! Real replicas as a cluster runs them: users in one real PostgreSQL, keys from a mounted folder, nothing of their own on
//! the disk. Each vouches for the other's tokens.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use chassis::trial::{Trial, new_database};
use peers::servers::Postgres;
use support::client::{EXE, credentials, login};

mod support {
    pub(crate) mod client;
}

/// Puts a key that the service's own helper makes into a folder.
async fn put_key(folder: &Path, name: &str) {
    let (code, pem, stderr) = Trial::new(EXE, "/nowhere".as_ref())
        .arg("--print-key")
        .run_to_end()
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    fs::write(folder.join(name), pem).unwrap();
    fs::set_permissions(folder.join(name), Permissions::from_mode(0o440)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_users_and_keys_and_write_no_file() {
    let test = "replicas_share_users_and_keys_and_write_no_file";
    let Some(server) = Postgres::shared(test).await else {
        return;
    };
    let keys = tempfile::tempdir().unwrap();
    put_key(keys.path(), "1.pem").await;
    let trial = Trial::new(EXE, "/nowhere/at/all".as_ref())
        .env("DATABASE_URL", new_database(&server.url("postgres")).await)
        .env("IDENTITY_KEYS_DIR", keys.path().to_str().unwrap());
    let (one, two) = tokio::join!(trial.start(), trial.start());
    let body = credentials("ada@example.org", "correct horse");
    assert_eq!(one.post("/register", &body).await.unwrap().status, 201);
    assert_eq!(two.post("/register", &body).await.unwrap().status, 409);
    let answer = login(&two, "ada@example.org", "correct horse").await.json();
    let token = answer["access_token"].as_str().unwrap();
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    for replica in [&one, &two] {
        let published = replica.get("/.well-known/jwks.json").await.unwrap().json();
        assert_eq!(published["keys"][0]["kid"], kid);
    }
    one.check_probes().await;
    assert!(!Path::new("/nowhere").exists(), "nothing is written to DATA_DIR");
    assert_eq!(fs::read_dir(keys.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_keys_that_cannot_be_used_are_told_with_code_2() {
    let keys = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let refused = async |path: &Path, extra: &str, words: &str| {
        let mut trial = Trial::new(EXE, data.path()).env("IDENTITY_KEYS_DIR", path.to_str().unwrap());
        if !extra.is_empty() {
            trial = trial.arg(extra);
        }
        let (code, _, stderr) = trial.run_to_end().await;
        assert!(code == Some(2) && stderr.contains(words), "{code:?} {stderr}");
    };
    refused(Path::new("/no/such/folder"), "", "No such file").await;
    refused(keys.path(), "", "holds no key").await;
    put_key(keys.path(), "1.pem").await;
    fs::set_permissions(keys.path().join("1.pem"), Permissions::from_mode(0o644)).unwrap();
    refused(keys.path(), "", "440").await;
    refused(keys.path(), "--new-key", "--print-key").await;
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}
