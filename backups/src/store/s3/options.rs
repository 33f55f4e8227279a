//! Where a bucket is, who we are there, and how patient we are. Plain data: nothing here asks anybody.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

/// Settings of an [`S3Store`](super::S3Store).
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What the names of all objects begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Where the service is, as a URL; none means Amazon's own of the region.
    pub endpoint: Option<String>,
    /// The region. Without one: that of the surroundings, and `us-east-1` for an endpoint of one's own.
    pub region: Option<String>,
    /// The bucket stands in the path of the URL and not in the name of the host.
    pub path_style: bool,
    /// Checksums besides those of TLS and of the signature.
    pub checksums: Checksums,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates in PEM that are trusted besides those of the system.
    pub certificate: Option<Vec<u8>>,
    /// Transfers at one time. 8 keep a line busy that takes 100 ms and gives each 20 MB/s, and hold 128 MiB of packs.
    pub transfers: usize,
    /// When an object is sent in parts.
    pub multipart: Multipart,
    /// How long what fails is tried again.
    pub patience: Patience,
}

impl S3Options {
    /// The usual settings for a bucket.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            path_style: false,
            checksums: Checksums::WhenRequired,
            credentials: Credentials::Surroundings,
            certificate: None,
            transfers: 8,
            multipart: Multipart::default(),
            patience: Patience::default(),
        }
    }
}

/// When CRC-32 checksums go along. Many services that speak S3 know none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksums {
    /// Where the service asks for them.
    #[default]
    WhenRequired,
    /// Always, and those of what is read are verified.
    Always,
}

/// Where the credentials come from.
#[derive(Clone)]
pub enum Credentials {
    /// Environment, profile, web identity, or the machine's role, as every tool for S3 finds them.
    Surroundings,
    /// Fetched when they are needed, and once more when the service says that they expired. May block.
    Fetched(Arc<dyn Fn() -> Result<Keys, std::io::Error> + Send + Sync>),
}

impl Credentials {
    /// Keys that never change.
    pub fn fixed(keys: Keys) -> Self {
        Self::Fetched(Arc::new(move || Ok(keys.clone())))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Surroundings => "Surroundings",
            Self::Fetched(_) => "Fetched(…)",
        })
    }
}

/// A pair of keys, and the token that belongs to it when it is only lent.
#[derive(Clone)]
pub struct Keys {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Zeroizing<String>,
    /// The session token.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// When an object is sent in parts. Packs never are, at the usual settings: they have 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multipart {
    /// Bytes above which it is.
    pub above: u64,
    /// Bytes of a part: at least 5 MiB for Amazon. Larger where there would be more than 10,000 parts.
    pub part: u64,
}

impl Default for Multipart {
    fn default() -> Self {
        Self {
            above: 64 << 20,
            part: 16 << 20,
        }
    }
}

/// How long what fails is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Time for a connection to be made.
    pub connect: Duration,
    /// How long nothing at all may move in either direction; what the system has taken to send has two minutes more. What
    /// moves, however slowly, is not given up.
    pub idle: Duration,
    /// Retries of one request.
    pub retries: u32,
    /// The longest first wait; each is up to twice the one before.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// How long a request waits while the breaker keeps all back, since nothing succeeded for a while.
    pub closed: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            retries: 10,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(15),
            closed: Duration::from_mins(2),
        }
    }
}
