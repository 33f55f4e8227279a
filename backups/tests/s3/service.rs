//! A MinIO with a bucket, and a proxy before it that can be told to fail.

use std::process::Command;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials as Signed, Region};
use backups::store::s3::{Credentials, Keys, Patience, S3Options};
use backups::store::{S3Store, StoreKey};
use peers::faults::{Answer, Fault, FaultProxy, Request};
use peers::servers::MinIo;
use peers::{Server, peer};

pub const BUCKET: &str = "backups";
pub const PREFIX: &str = "shop/backups";

/// The root user's keys.
pub fn root_keys() -> Keys {
    Keys {
        access_key: MinIo::ACCESS_KEY.to_owned(),
        secret_key: MinIo::SECRET_KEY.to_owned().into(),
        session_token: None,
    }
}

pub struct Service {
    pub server: Server,
    pub proxy: FaultProxy,
}

impl Service {
    /// A service with an empty bucket, or `None` after saying that `test` is skipped.
    pub async fn start(test: &str) -> Option<Self> {
        let service = Self::without_bucket(test).await?;
        service
            .admin()
            .create_bucket()
            .bucket(BUCKET)
            .send()
            .await
            .expect("a bucket");
        Some(service)
    }

    pub async fn without_bucket(test: &str) -> Option<Self> {
        let server = Server::start(MinIo::default(), test).await?;
        let proxy = FaultProxy::start(server.address("s3")).expect("a proxy");
        Some(Self { server, proxy })
    }

    /// The settings for a store behind the proxy, with little patience.
    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.proxy.url()),
            path_style: true,
            credentials: Credentials::fixed(root_keys()),
            patience: Patience {
                connect: Duration::from_secs(5),
                idle: Duration::from_secs(5),
                retries: 8,
                first_wait: Duration::from_millis(10),
                longest_wait: Duration::from_millis(200),
                closed: Duration::from_secs(30),
            },
            ..S3Options::new(BUCKET, PREFIX)
        }
    }

    pub fn store(&self) -> S3Store {
        S3Store::new(self.options())
    }

    /// A client that goes past the proxy.
    pub fn admin(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(self.server.url("s3"))
            .force_path_style(true)
            .credentials_provider(Signed::new(MinIo::ACCESS_KEY, MinIo::SECRET_KEY, None, None, "test"));
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// How often a method was used so far.
    pub fn count(&self, method: &str) -> usize {
        let seen = self.proxy.seen();
        seen.iter().filter(|request| request.method == method).count()
    }

    /// The unfinished uploads of an object, which MinIO tells for whole names alone.
    pub async fn unfinished(&self, key: &StoreKey) -> usize {
        let uploads = self.admin().list_multipart_uploads().bucket(BUCKET).prefix(name(key));
        uploads.send().await.expect("a list").uploads().len()
    }

    /// Runs restic on the repository, past the proxy; it must be content.
    pub fn restic(&self, test: &str, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(peer("restic", test)?);
        command
            .args([
                "--no-cache",
                "--repo",
                &format!("s3:{}/{BUCKET}/{PREFIX}", self.server.url("s3")),
            ])
            .args(arguments)
            .env("RESTIC_PASSWORD", crate::world::PASSWORD)
            .env("AWS_ACCESS_KEY_ID", MinIo::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", MinIo::SECRET_KEY);
        let output = command.output().expect("restic runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "restic {arguments:?}: {said}");
        Some(said)
    }
}

/// The object's name in the bucket.
pub fn name(key: &StoreKey) -> String {
    format!("{PREFIX}/{key}")
}

pub fn key(name: &str) -> StoreKey {
    StoreKey::new(name).expect("a sound name")
}

/// What S3 answers when it fails.
pub fn error(status: u16, code: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>said the proxy</Message><RequestId>1</RequestId></Error>"
    );
    Answer::new(status, "application/xml", body)
}

pub fn refused(status: u16, code: &str) -> Fault {
    Fault::Instead(error(status, code))
}

pub fn method(wanted: &'static str) -> impl Fn(&Request) -> bool + Send + 'static {
    move |request| request.method == wanted
}
