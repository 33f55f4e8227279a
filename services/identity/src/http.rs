//! `POST /register`, `POST /login`, `GET /.well-known/jwks.json`: from requests to the store, the hasher and the keys,
//! and back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chassis::Problem;
use chassis::problem::Body;
use serde::{Deserialize, Serialize};
use telemetry::{Metrics, catalogue};
use tokio::time::Instant;
use uuid::Uuid;

use crate::account::{Email, Refused, check_password};
use crate::keys::{Jwk, Keys, MAX_AGE, signer};
use crate::password::{HashError, Hasher};
use crate::store::{Store, StoreError, User};
use crate::throttle::Throttle;
use crate::token;

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 16 << 10;
/// When it is worth asking again after a moment of overload.
const SOON: Duration = Duration::from_secs(1);

/// What the routes work with.
pub struct Identity {
    /// The users.
    pub store: Arc<dyn Store>,
    /// The keys that sign.
    pub keys: Keys,
    /// Checks passwords.
    pub hasher: Hasher,
    /// How long a token is good.
    pub lifetime: Duration,
    /// Counts.
    pub metrics: Metrics,
    /// Brakes guessing.
    pub throttle: Mutex<Throttle>,
}

/// The routes.
pub fn router(identity: Identity) -> Router {
    // From the start, so that the first of each is seen as an increase.
    for outcome in ["created", "exists", "invalid", "error"] {
        identity
            .metrics
            .counter(catalogue::IDENTITY_REGISTRATIONS_TOTAL, [outcome]);
    }
    for outcome in ["ok", "refused", "error"] {
        identity.metrics.counter(catalogue::IDENTITY_LOGINS_TOTAL, [outcome]);
    }
    Router::new()
        .route("/register", post(register))
        .route("/login", post(login))
        .route("/.well-known/jwks.json", get(jwks))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(identity))
}

// No Debug: a password must not get into a log by accident.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    email: String,
    password: String,
}

#[derive(Debug, Serialize)]
struct Registered {
    user_id: Uuid,
    email: String,
}

async fn register(
    State(identity): State<Arc<Identity>>,
    body: Result<Body<Credentials>, Problem>,
) -> Result<Response, Problem> {
    let result = match body {
        Ok(Body(credentials)) => identity.register(credentials).await,
        Err(problem) => Err(problem),
    };
    let outcome = match &result {
        Ok(_) => "created",
        Err(problem) if problem.status == StatusCode::CONFLICT => "exists",
        Err(problem) if problem.status.is_client_error() => "invalid",
        Err(_) => "error",
    };
    identity
        .metrics
        .counter(catalogue::IDENTITY_REGISTRATIONS_TOTAL, [outcome])
        .inc();
    tracing::info!(outcome, "registration");
    Ok((StatusCode::CREATED, Json(result?)).into_response())
}

#[derive(Debug, Serialize)]
struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
}

async fn login(
    State(identity): State<Arc<Identity>>,
    body: Result<Body<Credentials>, Problem>,
) -> Result<Response, Problem> {
    let result = match body {
        Ok(Body(credentials)) => identity.login(credentials).await,
        Err(problem) => Err(problem),
    };
    let outcome = match &result {
        Ok(_) => "ok",
        Err(problem) if problem.status.is_client_error() => "refused",
        Err(_) => "error",
    };
    identity
        .metrics
        .counter(catalogue::IDENTITY_LOGINS_TOTAL, [outcome])
        .inc();
    tracing::info!(outcome, "sign-in");
    // RFC 6749 section 5.1: a token must not stay in any cache.
    Ok((
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(result?),
    )
        .into_response())
}

async fn jwks(State(identity): State<Arc<Identity>>) -> Response {
    #[derive(Serialize)]
    struct Jwks<'a> {
        keys: Vec<&'a Jwk>,
    }
    let keys = identity.keys.all();
    let cache = format!("public, max-age={}", MAX_AGE.as_secs());
    let list = Jwks {
        keys: keys.iter().map(|key| &key.public).collect(),
    };
    ([(header::CACHE_CONTROL, cache)], Json(list)).into_response()
}

impl Identity {
    async fn register(&self, credentials: Credentials) -> Result<Registered, Problem> {
        let email = Email::parse(&credentials.email).map_err(refused)?;
        check_password(&credentials.password).map_err(refused)?;
        // Asked before the costly part. That the address is taken is no secret here: registering tells it anyway.
        if self.store.find(&email).await.map_err(store_failed)?.is_some() {
            return Err(store_failed(StoreError::Exists));
        }
        let password_hash = self.hasher.hash(credentials.password).await.map_err(hash_failed)?;
        let user = User {
            id: Uuid::now_v7(),
            email,
            password_hash,
            created_at: chassis::now(),
        };
        let registered = Registered {
            user_id: user.id,
            email: user.email.to_string(),
        };
        self.store.add(user).await.map_err(store_failed)?;
        Ok(registered)
    }

    /// Whether the account is unknown or the password wrong is told neither by the answer nor by its time.
    async fn login(&self, credentials: Credentials) -> Result<Issued, Problem> {
        let email = Email::parse(&credentials.email).ok();
        let account = email.as_ref().map_or("", Email::as_str);
        let begun = self
            .throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .begin(account, Instant::now());
        begun.map_err(|wait| {
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_attempts",
                "too many failed logins",
            )
            .retry_after(wait)
        })?;
        let user = match &email {
            Some(email) => self.store.find(email).await.map_err(store_failed)?,
            None => None,
        };
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let right = self
            .hasher
            .verify(credentials.password, stored)
            .await
            .map_err(hash_failed)?;
        let Some(user) = user.filter(|_| right) else {
            let message = "the e-mail address or the password is wrong";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "bad_credentials", message));
        };
        self.throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .succeeded(account);
        let (keys, now) = (self.keys.all(), chassis::now());
        let signed = signer(&keys, now)
            .ok_or("no key")
            .and_then(|key| token::issue(key, user.id, now, self.lifetime).map_err(|_| "the key does not sign"));
        let access_token = signed.map_err(|reason| {
            tracing::error!(reason, "a token cannot be signed");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "a token cannot be signed",
            )
        })?;
        Ok(Issued {
            access_token,
            token_type: "Bearer",
            expires_in: self.lifetime.as_secs(),
        })
    }
}

fn refused(error: Refused) -> Problem {
    let code = match error {
        Refused::Email => "invalid_email",
        Refused::Password => "invalid_password",
    };
    Problem::new(StatusCode::BAD_REQUEST, code, error.to_string())
}

fn store_failed(error: StoreError) -> Problem {
    match error {
        StoreError::Exists => Problem::new(StatusCode::CONFLICT, "exists", error.to_string()),
        StoreError::Database(error) => error.into(),
    }
}

fn hash_failed(error: HashError) -> Problem {
    match error {
        HashError::Overloaded => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string()).retry_after(SOON)
        }
        HashError::Broken(reason) => {
            tracing::error!(reason, "a password cannot be checked");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "a password cannot be checked",
            )
        }
    }
}
