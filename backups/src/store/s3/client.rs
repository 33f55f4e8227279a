//! Clients of the SDK: one for each runtime and each set of credentials, all over one set of settings.
//!
//! A connection belongs to the runtime that made it, and a lock is also given back from a runtime of its own while the
//! first one stands still; so each runtime has connections of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials as Signed, IdentityCache, ProvideCredentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::failure::{Failed, Kind, chain};
use super::options::{Checksums, Credentials, S3Options};
use crate::clock;

/// Credentials that end sooner are fetched again before they are used.
const NEARLY_EXPIRED: Duration = Duration::from_mins(2);
/// Runtimes that keep their connections; others have come and gone.
const RUNTIMES: usize = 4;
/// Idle connections are given up before the service does that.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

/// A client with its credentials.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    /// Which credentials they are.
    pub(super) generation: u64,
    /// Nobody on the way can change what is sent.
    pub(super) encrypted: bool,
    /// It sends checksums.
    checksums: bool,
}

/// Makes clients and keeps them.
pub(super) struct Clients {
    options: S3Options,
    /// Checksums are sent: they were asked for, by us or by the service.
    checksums: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    region: Option<Region>,
    provider: Option<SharedCredentialsProvider>,
    credentials: Option<Signed>,
    generation: u64,
    connections: Vec<(tokio::runtime::Id, SharedHttpClient)>,
    clients: Vec<(tokio::runtime::Id, Link)>,
}

impl Clients {
    pub(super) fn new(options: &S3Options) -> Self {
        Self {
            options: options.clone(),
            checksums: AtomicBool::new(options.checksums == Checksums::Always),
            state: Mutex::default(),
        }
    }

    /// Sends checksums from now on. Whether that is something new.
    pub(super) fn want_checksums(&self) -> bool {
        !self.checksums.swap(true, Ordering::Relaxed)
    }

    /// Whether checksums are sent.
    pub(super) fn with_checksums(&self) -> bool {
        self.checksums.load(Ordering::Relaxed)
    }

    /// The client of this runtime.
    pub(super) async fn link(&self) -> Result<Link, Failed> {
        let runtime = Handle::current().id();
        let mut state = self.state.lock().await;
        let soon = SystemTime::from(clock::now()) + NEARLY_EXPIRED;
        let expiry = state.credentials.as_ref().and_then(Signed::expiry);
        if expiry.is_some_and(|expiry| expiry < soon) {
            state.drop_credentials();
        }
        let checksums = self.with_checksums();
        let fits = |(id, link): &&(tokio::runtime::Id, Link)| *id == runtime && link.checksums == checksums;
        if let Some((_, link)) = state.clients.iter().find(fits) {
            return Ok(link.clone());
        }
        let http = self.connections(&mut state, runtime)?;
        let region = self.region(&mut state, &http).await;
        let credentials = self.credentials(&mut state, &http).await?;
        let link = Link {
            client: self.client(http, region, credentials, checksums),
            generation: state.generation,
            encrypted: !self.is_plain(),
            checksums,
        };
        state.clients.push((runtime, link.clone()));
        Ok(link)
    }

    /// Credentials of this generation are not valid any more.
    pub(super) async fn forget(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            state.drop_credentials();
        }
    }

    fn is_plain(&self) -> bool {
        let endpoint = self.options.endpoint.as_deref();
        endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    fn connections(&self, state: &mut State, runtime: tokio::runtime::Id) -> Result<SharedHttpClient, Failed> {
        if let Some((_, http)) = state.connections.iter().find(|(id, _)| *id == runtime) {
            return Ok(http.clone());
        }
        let builder = Builder::new().pool_idle_timeout(IDLE_CONNECTION);
        let http = if self.is_plain() && matches!(self.options.credentials, Credentials::Fetched(_)) {
            builder.build_http()
        } else {
            let mut trusted = TrustStore::default();
            if let Some(certificate) = &self.options.certificate {
                trusted.add_pem_certificate(certificate.clone());
            }
            let context = TlsContext::builder().with_trust_store(trusted).build();
            let context = context.map_err(|error| Failed::new(Kind::Other, chain(&error)))?;
            let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring));
            builder.tls_context(context).build_https()
        };
        if state.connections.len() >= RUNTIMES {
            let (gone, _) = state.connections.remove(1);
            state.clients.retain(|(id, _)| *id != gone);
        }
        state.connections.push((runtime, http.clone()));
        Ok(http)
    }

    async fn region(&self, state: &mut State, http: &SharedHttpClient) -> Region {
        const USUAL: &str = "us-east-1";
        if let Some(region) = &state.region {
            return region.clone();
        }
        let region = match (&self.options.region, &self.options.endpoint) {
            (Some(region), _) => Region::new(region.clone()),
            (None, Some(_)) => Region::from_static(USUAL),
            (None, None) => {
                let surroundings = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
                let region = surroundings.load().await.region().cloned();
                region.unwrap_or(Region::from_static(USUAL))
            }
        };
        state.region.insert(region).clone()
    }

    async fn credentials(&self, state: &mut State, http: &SharedHttpClient) -> Result<Signed, Failed> {
        if let Some(credentials) = &state.credentials {
            return Ok(credentials.clone());
        }
        let refused = |said: String| Failed::new(Kind::Credentials, said);
        let credentials = match &self.options.credentials {
            Credentials::Fetched(fetch) => {
                let fetch = std::sync::Arc::clone(fetch);
                let fetched = tokio::task::spawn_blocking(move || fetch()).await;
                let keys = fetched.map_err(|error| refused(chain(&error)))?;
                let keys = keys.map_err(|error| refused(chain(&error)))?;
                let token = keys.session_token.as_ref().map(|token| token.as_str().to_owned());
                Signed::new(keys.access_key, keys.secret_key.as_str(), token, None, "declared")
            }
            Credentials::Surroundings => {
                if state.provider.is_none() {
                    let surroundings = aws_config::defaults(BehaviorVersion::latest())
                        .http_client(http.clone())
                        .region(state.region.clone())
                        .load()
                        .await;
                    state.provider = surroundings.credentials_provider();
                }
                let nobody = || refused("no credentials were found".to_owned());
                let provider = state.provider.clone().ok_or_else(nobody)?;
                let provided = provider.provide_credentials().await;
                provided.map_err(|error| refused(chain(&error)))?
            }
        };
        state.generation += 1;
        Ok(state.credentials.insert(credentials).clone())
    }

    fn client(&self, http: SharedHttpClient, region: Region, credentials: Signed, checksums: bool) -> Client {
        let options = &self.options;
        let calculation = if checksums {
            RequestChecksumCalculation::WhenSupported
        } else {
            RequestChecksumCalculation::WhenRequired
        };
        let validation = match options.checksums {
            Checksums::WhenRequired => ResponseChecksumValidation::WhenRequired,
            Checksums::Always => ResponseChecksumValidation::WhenSupported,
        };
        let timeouts = TimeoutConfig::builder().connect_timeout(options.patience.connect);
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(region)
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .force_path_style(options.path_style)
            .request_checksum_calculation(calculation)
            .response_checksum_validation(validation)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.build())
            // A watch of ours does that, and knows the difference between slow and still.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // A clock that is wrong is told, and not worked around: locks are dated by it.
            .disable_clock_skew_correction(true);
        config.set_endpoint_url(options.endpoint.clone());
        Client::from_conf(config.build())
    }
}

impl State {
    fn drop_credentials(&mut self) {
        self.credentials = None;
        self.clients.clear();
    }
}
