//! A server of S3 with a bucket, and a network before it that can be told to fail.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::fs;
use std::sync::Arc;

use backups::store::s3::{Credentials, Keys, S3Options};
use backups::store::{S3Store, list_all};
use peers::Server;
use peers::faults::{FaultProxy, Request};
use peers::servers::MinIo;
use tokio::runtime::Runtime;

use crate::sandbox::Sandbox;
use crate::truth;

const BUCKET: &str = "keeps";

pub struct Cloud {
    server: Server,
    pub network: FaultProxy,
    runtime: Runtime,
}

impl Cloud {
    /// A bucket, or `None` after saying that `test` is skipped.
    pub fn start(test: &str) -> Option<Self> {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::start(MinIo::default().bucket(BUCKET), test))?;
        let inside = runtime.enter();
        let network = FaultProxy::start(server.address("s3")).expect("a port");
        drop(inside);
        Some(Self {
            server,
            network,
            runtime,
        })
    }

    /// What `opsctl.toml` says of a repository of this name, beside its password: it is reached over the network.
    pub fn keys_of(&self, name: &str) -> String {
        format!(
            "store = \"s3://{BUCKET}/{name}\"\nendpoint = \"{}\"\n\
             credentials = {{ access_key = {{ file = \"access\" }}, secret_key = {{ file = \"secret\" }} }}",
            self.network.url()
        )
    }

    /// The project of [`Sandbox::with_stores`] with its repository in the bucket.
    pub fn sandbox(&self, name: &str) -> Sandbox {
        let sandbox = Sandbox::with_stores();
        let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
        sandbox.write(
            "opsctl.toml",
            &text.replace("store = \"file:repo\"", &self.keys_of(name)),
        );
        sandbox.secret("access", MinIo::ACCESS_KEY);
        sandbox.secret("secret", MinIo::SECRET_KEY);
        sandbox
    }

    /// Kills the server and starts it again, with what it had.
    pub fn kill_and_start_again(&mut self) {
        self.server.kill();
        self.runtime
            .block_on(self.server.start_again())
            .expect("it starts again");
    }

    /// The objects below a folder of a repository.
    pub fn objects(&self, name: &str, below: &str) -> Vec<String> {
        let store = S3Store::new(S3Options {
            endpoint: Some(self.server.url("s3")),
            path_style: true,
            credentials: Credentials::Fetched(Arc::new(|| {
                Ok(Keys {
                    access_key: MinIo::ACCESS_KEY.to_owned(),
                    secret_key: MinIo::SECRET_KEY.to_owned().into(),
                    session_token: None,
                })
            })),
            ..S3Options::new(BUCKET, name)
        });
        let listed = self.runtime.block_on(list_all(&store, below)).expect("a list");
        listed.iter().map(|entry| entry.key.to_string()).collect()
    }

    /// Lets restic check every byte, past the network.
    pub fn judged_by_restic(&self, name: &str, test: &str) {
        truth::judged_by_restic(
            &format!("s3:{}/{BUCKET}/{name}", self.server.url("s3")),
            &[
                ("AWS_ACCESS_KEY_ID", MinIo::ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", MinIo::SECRET_KEY),
            ],
            test,
        );
    }
}

/// Whether a request is of this method, and about an object of this repository below this folder.
pub fn is(request: &Request, method: &str, name: &str, below: &str) -> bool {
    request.method == method && request.path.contains(&format!("/{BUCKET}/{name}/{below}"))
}

/// Whether a request is about this repository at all.
pub fn concerns(request: &Request, name: &str) -> bool {
    let path = &request.path;
    path.contains(&format!("/{BUCKET}/{name}/")) || path.contains(&format!("prefix={name}%2F"))
}
