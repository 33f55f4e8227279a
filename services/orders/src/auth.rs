//! Who asks: access tokens (JWT, ES256: RFC 7519, RFC 7518) verified with identity's public keys (JWKS, RFC 7517).
//!
//! Keys are kept for [`TTL`] and then fetched again in the background; a token under an unknown key has them fetched
//! at once, but not more often than every [`MIN_INTERVAL`] ([`FIRST_INTERVAL`] until there are any). While identity is away, the keys that are there go on
//! being used, so that orders works without it. A key that identity withdrew is dropped with the next fetch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use resilience::Pipeline;
use serde::Deserialize;
use telemetry::{HttpClient, Metrics};
use tokio::time::Instant;

use crate::service::Customer;

/// How long fetched keys count as fresh.
pub const TTL: Duration = Duration::from_mins(5);
/// Between two fetches, whatever asks for them.
pub const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// The same while no keys were ever fetched: nobody can be served before.
pub const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes that a key set may have.
const MAX_JWKS: usize = 64 * 1024;
/// Tokens remembered as verified, so that a customer's later requests cost no signature check.
const REMEMBERED: usize = 4096;
/// By how much clocks may differ, in seconds.
const LEEWAY_SECONDS: u64 = 5;

/// Verifies access tokens. Clones share keys.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    client: HttpClient,
    policy: Pipeline,
    keys: RwLock<Keys>,
    fetching: tokio::sync::Mutex<Option<Instant>>,
    verified: Mutex<HashMap<Box<str>, Verified>>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Arc<DecodingKey>>,
    fetched_at: Option<Instant>,
    /// Counts the fetches: what was verified under older keys is verified again.
    generation: u64,
}

struct Verified {
    customer: Arc<str>,
    expires_at: i64,
    generation: u64,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
}

/// Why a request is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No `authorization: Bearer …`.
    #[error("an access token is needed: authorization: Bearer <token>")]
    Missing,
    /// It is no token of identity's, or no longer one.
    #[error("the access token is not valid: {0}")]
    Invalid(&'static str),
    /// No keys to verify with: identity was never reached.
    #[error("access tokens cannot be verified now: identity is away")]
    Unavailable,
}

/// The keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Identity did not answer as it should.
    #[error("identity does not give its keys")]
    Http(#[from] reqwest::Error),
    /// Its policy refused the call, or the call took too long.
    #[error("identity is not asked for its keys: {0}")]
    Refused(String),
    /// The answer is no key set that can be used.
    #[error("identity's key set cannot be used: {0}")]
    Unusable(&'static str),
}

impl Verifier {
    /// Verifies with the keys at `<identity>/.well-known/jwks.json`, fetched under `policy` and counted in
    /// `metrics`.
    pub fn new(identity: &str, policy: Pipeline, metrics: &Metrics) -> Result<Self, FetchError> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            inner: Arc::new(Inner {
                url: format!("{}/.well-known/jwks.json", identity.trim_end_matches('/')),
                client: HttpClient::new(client).measured(metrics),
                policy,
                keys: RwLock::default(),
                fetching: tokio::sync::Mutex::new(None),
                verified: Mutex::default(),
            }),
        })
    }

    /// The customer that the value of an `authorization` header stands for; `now` in seconds since 1970.
    pub async fn verify(&self, authorization: Option<&str>, now: i64) -> Result<Customer, AuthError> {
        let header = authorization.ok_or(AuthError::Missing)?;
        let (scheme, token) = header.split_once(' ').ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        let token = token.trim();
        if let Some(customer) = self.remembered(token, now) {
            self.refresh_if_stale();
            return Ok(customer);
        }
        let head = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid("it is no JWT"))?;
        // Said by the token itself, so checked before anything is believed: never "none", never a shared secret.
        if head.alg != Algorithm::ES256 {
            return Err(AuthError::Invalid("it is not signed with ES256"));
        }
        let id = head.kid.ok_or(AuthError::Invalid("it names no key"))?;
        let (key, generation) = self.key(&id).await?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_aud = false;
        // Checked below, against our clock.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|_| AuthError::Invalid("its signature or its claims are wrong"))?
            .claims;
        if claims.exp.saturating_add(LEEWAY_SECONDS.cast_signed()) < now {
            return Err(AuthError::Invalid("it has expired"));
        }
        if claims.sub.is_empty() || claims.sub.len() > 128 {
            return Err(AuthError::Invalid("its subject is empty or too long"));
        }
        let customer: Arc<str> = claims.sub.into();
        self.remember(
            token,
            Verified {
                customer: customer.clone(),
                expires_at: claims.exp,
                generation,
            },
        );
        Ok(Customer(customer))
    }

    /// Fetches the keys until they are there: orders may start before identity does.
    pub async fn fetch_first(&self) {
        while self.never_fetched() {
            if let Err(error) = self.fetch().await {
                tracing::debug!(error = %crate::orchestrator::chain(&error), "identity's keys are not there yet");
            }
            tokio::time::sleep(FIRST_INTERVAL).await;
        }
    }

    /// Fetches the keys now, unless that was tried within [`MIN_INTERVAL`].
    pub async fn fetch(&self) -> Result<(), FetchError> {
        let mut last = self.inner.fetching.lock().await;
        let interval = if self.never_fetched() {
            FIRST_INTERVAL
        } else {
            MIN_INTERVAL
        };
        if last.is_some_and(|at| at.elapsed() < interval) {
            return Ok(());
        }
        *last = Some(Instant::now());
        let by_id = self.inner.download().await?;
        let mut keys = self.inner.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.by_id = by_id;
        keys.fetched_at = Some(Instant::now());
        keys.generation += 1;
        Ok(())
    }

    async fn key(&self, id: &str) -> Result<(Arc<DecodingKey>, u64), AuthError> {
        if let Some(found) = self.cached(id) {
            self.refresh_if_stale();
            return Ok(found);
        }
        if let Err(error) = self.fetch().await {
            tracing::warn!(error = %crate::orchestrator::chain(&error), "cannot fetch identity's keys");
        }
        self.cached(id).ok_or_else(|| {
            if self.never_fetched() {
                AuthError::Unavailable
            } else {
                AuthError::Invalid("its key is unknown")
            }
        })
    }

    fn never_fetched(&self) -> bool {
        let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.fetched_at.is_none()
    }

    fn cached(&self, id: &str) -> Option<(Arc<DecodingKey>, u64)> {
        let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.by_id.get(id).map(|key| (key.clone(), keys.generation))
    }

    fn refresh_if_stale(&self) {
        let stale = {
            let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.fetched_at.is_none_or(|at| at.elapsed() > TTL)
        };
        // Somebody else fetches already: nothing to do.
        if stale && self.inner.fetching.try_lock().is_ok() {
            let this = self.clone();
            drop(tokio::spawn(async move {
                if let Err(error) = this.fetch().await {
                    tracing::warn!(error = %crate::orchestrator::chain(&error), "identity's keys stay as they are");
                }
            }));
        }
    }

    fn remembered(&self, token: &str, now: i64) -> Option<Customer> {
        let generation = self
            .inner
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .generation;
        let verified = self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = verified.get(token)?;
        let holds = entry.generation == generation && entry.expires_at >= now;
        holds.then(|| Customer(entry.customer.clone()))
    }

    fn remember(&self, token: &str, entry: Verified) {
        let mut verified = self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(token.into(), entry);
    }
}

impl Inner {
    async fn download(&self) -> Result<HashMap<String, Arc<DecodingKey>>, FetchError> {
        // Every failure counts, whatever its kind.
        let body = self.policy.call(|_| self.get()).await.map_err(|error| match error {
            resilience::Error::Inner(error) => error,
            refused => FetchError::Refused(refused.to_string()),
        })?;
        let set: JwkSet = serde_json::from_slice(&body).map_err(|_| FetchError::Unusable("it is no JWKS"))?;
        let usable = set.keys.iter().filter_map(|jwk| {
            let id = jwk.common.key_id.clone()?;
            let AlgorithmParameters::EllipticCurve(curve) = &jwk.algorithm else {
                return None;
            };
            if curve.curve != EllipticCurve::P256 {
                return None;
            }
            Some((id, Arc::new(DecodingKey::from_jwk(jwk).ok()?)))
        });
        let keys: HashMap<_, _> = usable.collect();
        if keys.is_empty() {
            Err(FetchError::Unusable("it holds no P-256 key"))
        } else {
            Ok(keys)
        }
    }

    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self
            .client
            .send(self.client.plain().get(&self.url))
            .await?
            .error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_JWKS {
                return Err(FetchError::Unusable("it is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
