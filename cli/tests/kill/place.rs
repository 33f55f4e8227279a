//! Where the repositories of a kill test lie: in folders of the sandbox, or in a bucket of a server of its own.

use std::process::Command;
use std::sync::Arc;

use backups::Store;
use backups::store::s3::{Credentials, Keys, S3Options};
use backups::store::{LocalStore, S3Store, StoreKey, list_all};
use peers::Server;
use peers::servers::MinIo;
use tokio::runtime::Runtime;

use crate::dice::{Dice, kills};
use crate::sandbox::Sandbox;

const BUCKET: &str = "keeps";

/// A place for repositories.
pub struct Place {
    bucket: Option<Server>,
    runtime: Runtime,
}

impl Place {
    /// Folders below the sandbox.
    pub fn folders() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        Self { bucket: None, runtime }
    }

    /// A bucket, or `None` after saying that `test` is skipped.
    pub fn bucket(test: &str) -> Option<Self> {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::start(MinIo::default().bucket(BUCKET), test))?;
        let bucket = Some(server);
        Some(Self { bucket, runtime })
    }

    /// How often something is killed here: what takes longer gets half as many.
    pub fn kills(&self) -> u64 {
        if self.bucket.is_some() {
            kills().div_ceil(2)
        } else {
            kills()
        }
    }

    /// The project of [`Sandbox::with_stores`], its repository at this place.
    pub fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::with_stores();
        let text = std::fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
        sandbox.write(
            "opsctl.toml",
            &text.replace("store = \"file:repo\"", &self.keys_of("repo")),
        );
        sandbox.secret("access", MinIo::ACCESS_KEY);
        sandbox.secret("secret", MinIo::SECRET_KEY);
        sandbox
    }

    /// What `opsctl.toml` says of a repository of this name, beside its password.
    pub fn keys_of(&self, name: &str) -> String {
        match &self.bucket {
            None => format!("store = \"file:{name}\""),
            Some(server) => format!(
                "store = \"s3://{BUCKET}/{name}\"\nendpoint = \"{}\"\n\
                 credentials = {{ access_key = {{ file = \"access\" }}, secret_key = {{ file = \"secret\" }} }}",
                server.url("s3")
            ),
        }
    }

    fn store(&self, sandbox: &Sandbox, name: &str) -> Arc<dyn Store> {
        match &self.bucket {
            None => Arc::new(LocalStore::new(sandbox.path(name))),
            Some(server) => Arc::new(S3Store::new(S3Options {
                endpoint: Some(server.url("s3")),
                path_style: true,
                credentials: Credentials::fixed(Keys {
                    access_key: MinIo::ACCESS_KEY.to_owned(),
                    secret_key: MinIo::SECRET_KEY.to_owned().into(),
                    session_token: None,
                }),
                ..S3Options::new(BUCKET, name)
            })),
        }
    }

    /// Flips one bit of one pack of a repository.
    pub fn damage(&self, sandbox: &Sandbox, name: &str, dice: &mut Dice) {
        let store = self.store(sandbox, name);
        self.runtime.block_on(async {
            let packs = list_all(&*store, "data/").await.expect("a list");
            let keys: Vec<StoreKey> = packs.into_iter().map(|entry| entry.key).collect();
            let key = &keys[dice.next() as usize % keys.len()];
            let mut bytes = store.get(key).await.expect("a pack").to_vec();
            let at = dice.next() as usize % bytes.len();
            bytes[at] ^= 0x20;
            store.delete(key).await.expect("it goes");
            store.put(key, bytes.into()).await.expect("it is there again");
        });
    }

    /// Lets restic, the other program that knows the format, check every byte. `test` is named when it is not installed.
    pub fn judged_by_restic(&self, sandbox: &Sandbox, name: &str, password: &str, test: &str) {
        let Some(restic) = peers::peer("restic", test) else {
            return;
        };
        let repository = match &self.bucket {
            None => sandbox.path(name).display().to_string(),
            Some(server) => format!("s3:{}/{BUCKET}/{name}", server.url("s3")),
        };
        let checked = Command::new(restic)
            .args(["--no-cache", "check", "--read-data", "-r", &repository])
            .env("RESTIC_PASSWORD", password)
            .env("AWS_ACCESS_KEY_ID", MinIo::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", MinIo::SECRET_KEY)
            .output()
            .expect("restic starts");
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "restic on {repository}: {said}");
    }
}
