//! The policies of this process on the admin listener: their figures, and a person's word over a breaker, which always
//! ends by itself. Policies decide nothing here; metrics of them are `bridge`'s matter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use resilience::{Force, Pipeline, PipelineSnapshot, State};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admin::Peer;
use crate::policy_events::PolicyEvents;

/// How long a force lasts when nobody says.
const DEFAULT_TTL: Duration = Duration::from_secs(10 * 60);
/// The longest that a force may last: what should last longer belongs into the settings.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes that an actor or a reason may have.
const MAX_WORDS: usize = 500;

/// The policies given to `Telemetry::watch_policy`. Clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    watched: Arc<Mutex<Vec<Watched>>>,
    events: PolicyEvents,
}

#[derive(Debug)]
struct Watched {
    policy: Pipeline,
    forced: Option<Forced>,
}

/// What somebody imposed, until it ends.
#[derive(Debug)]
struct Forced {
    state: State,
    ends: Instant,
    until: Timestamp,
    by: By,
    timer: JoinHandle<()>,
}

impl Drop for Forced {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// Who wants a change, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct By {
    actor: Option<String>,
    reason: Option<String>,
}

impl By {
    /// Refuses what would flood the log.
    fn check(&self) -> Result<(), ChangeError> {
        let long = |words: &Option<String>| words.as_ref().is_some_and(|words| words.len() > MAX_WORDS);
        if long(&self.actor) || long(&self.reason) {
            let told = format!("actor and reason: must be at most {MAX_WORDS} bytes each");
            return Err(ChangeError::Bad(told));
        }
        Ok(())
    }
}

/// A policy as `/policies` shows it.
#[derive(Debug, Serialize)]
struct PolicyView {
    #[serde(flatten)]
    snapshot: PipelineSnapshot,
    forced: Option<ForcedView>,
}

#[derive(Debug, Serialize)]
struct ForcedView {
    state: State,
    until: Timestamp,
    remaining_seconds: f64,
    #[serde(flatten)]
    by: By,
}

/// Why a breaker was not changed.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error("there is no policy {name}; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("policy {name} has no breaker")]
    NoBreaker { name: String },
    #[error("{0}")]
    Bad(String),
}

impl IntoResponse for ChangeError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::NoBreaker { .. } => StatusCode::CONFLICT,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
        };
        (status, format!("{self}\n")).into_response()
    }
}

impl Policies {
    /// Adds a policy.
    pub(crate) fn watch(&self, policy: &Pipeline) {
        self.lock().push(Watched {
            policy: policy.clone(),
            forced: None,
        });
    }

    /// The listener that all policies of this process may share.
    pub(crate) fn events(&self) -> PolicyEvents {
        self.events.clone()
    }

    /// `GET /policies`, `POST /policies/{name}/force` and `POST /policies/{name}/reset`.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/policies", get(show))
            .route("/policies/{name}/force", post(force))
            .route("/policies/{name}/reset", post(reset))
            .with_state(self.clone())
    }

    fn views(&self) -> Vec<PolicyView> {
        self.lock().iter().map(Watched::view).collect()
    }

    /// Forces the breaker of every policy of that name for `ttl`; an earlier force ends. Needs a runtime.
    fn force(&self, name: &str, state: State, ttl: Duration, by: &By) -> Result<PolicyView, ChangeError> {
        self.change(name, |this, watched| {
            let Some(breaker) = watched.policy.breaker() else {
                return false;
            };
            let force = match state {
                State::ForcedClosed => Force::Closed,
                _ => Force::Open,
            };
            // The breaker ends it by itself, also if the timer below never came.
            breaker.force(force, Some(ttl));
            let ends = Instant::now() + ttl;
            watched.forced = Some(Forced {
                state,
                ends,
                until: crate::wall_clock() + ttl,
                by: by.clone(),
                timer: tokio::spawn(this.clone().tell_end(name.to_owned(), ends)),
            });
            true
        })
    }

    /// Ends what was forced, and an open state too: closed, with nothing remembered.
    fn reset(&self, name: &str) -> Result<PolicyView, ChangeError> {
        self.change(name, |_, watched| {
            let Some(breaker) = watched.policy.breaker() else {
                return false;
            };
            breaker.release();
            watched.forced = None;
            true
        })
    }

    /// Does something to every policy of that name; false says that it has no breaker.
    fn change(
        &self,
        name: &str,
        mut change: impl FnMut(&Self, &mut Watched) -> bool,
    ) -> Result<PolicyView, ChangeError> {
        let mut watched = self.lock();
        let mut result = None;
        for entry in watched.iter_mut().filter(|entry| entry.policy.name() == name) {
            if !change(self, entry) {
                return Err(ChangeError::NoBreaker { name: name.to_owned() });
            }
            result = Some(entry.view());
        }
        result.ok_or_else(|| {
            let known: Vec<&str> = watched.iter().map(|entry| entry.policy.name()).collect();
            ChangeError::Unknown {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
    }

    /// Tells the end of a force, which the breaker itself would notice with the next call alone. What was forced anew
    /// meanwhile ends at another time.
    async fn tell_end(self, name: String, ends: Instant) {
        tokio::time::sleep_until(ends).await;
        for entry in self.lock().iter_mut() {
            if entry.policy.name() != name || entry.forced.as_ref().is_none_or(|forced| forced.ends != ends) {
                continue;
            }
            if let Some(breaker) = entry.policy.breaker() {
                breaker.release();
            }
            entry.forced = None;
            tracing::warn!(target: "audit", policy = name, "forced state of a breaker ended");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn view(&self) -> PolicyView {
        PolicyView {
            snapshot: self.policy.snapshot(),
            forced: self.forced.as_ref().map(|forced| ForcedView {
                state: forced.state,
                until: forced.until,
                remaining_seconds: forced.ends.saturating_duration_since(Instant::now()).as_secs_f64(),
                by: forced.by.clone(),
            }),
        }
    }
}

async fn show(Extract(policies): Extract<Policies>) -> Response {
    axum::Json(policies.views()).into_response()
}

/// Body of a force.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForceBody {
    /// `open` or `closed`.
    state: String,
    /// `10m`; default ten minutes.
    ttl: Option<String>,
    actor: Option<String>,
    reason: Option<String>,
}

async fn force(
    Extract(policies): Extract<Policies>,
    Path(name): Path<String>,
    peer: Option<axum::Extension<ConnectInfo<Peer>>>,
    body: axum::body::Bytes,
) -> Result<Response, ChangeError> {
    let wanted: ForceBody = parse(&body)?;
    let state = match wanted.state.as_str() {
        "open" => State::ForcedOpen,
        "closed" => State::ForcedClosed,
        other => return Err(ChangeError::Bad(format!("state: {other} is neither open nor closed"))),
    };
    let ttl = match wanted.ttl.as_deref().map(humantime::parse_duration).transpose() {
        Ok(ttl) => ttl.unwrap_or(DEFAULT_TTL),
        Err(error) => return Err(ChangeError::Bad(format!("ttl: {error}"))),
    };
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(ChangeError::Bad("ttl: must be above zero and at most 24h".to_owned()));
    }
    let by = By {
        actor: wanted.actor,
        reason: wanted.reason,
    };
    by.check()?;
    let view = policies.force(&name, state, ttl, &by)?;
    tracing::warn!(
        target: "audit",
        policy = name,
        state = state.as_str(),
        ttl_seconds = ttl.as_secs_f64(),
        actor = by.actor.as_deref().unwrap_or("unknown"),
        reason = by.reason.as_deref().unwrap_or_default(),
        uid = peer.and_then(|peer| peer.0.0.uid),
        "breaker forced"
    );
    Ok(axum::Json(view).into_response())
}

async fn reset(
    Extract(policies): Extract<Policies>,
    Path(name): Path<String>,
    peer: Option<axum::Extension<ConnectInfo<Peer>>>,
    body: axum::body::Bytes,
) -> Result<Response, ChangeError> {
    let by: By = parse(&body)?;
    by.check()?;
    let view = policies.reset(&name)?;
    tracing::warn!(
        target: "audit",
        policy = name,
        actor = by.actor.as_deref().unwrap_or("unknown"),
        reason = by.reason.as_deref().unwrap_or_default(),
        uid = peer.and_then(|peer| peer.0.0.uid),
        "breaker reset"
    );
    Ok(axum::Json(view).into_response())
}

/// A body of JSON; none at all is an empty object.
fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ChangeError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| ChangeError::Bad(error.to_string()))
}
