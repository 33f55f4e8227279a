//! A service that cleans up itself: it is asked, a batch a request, until it answers that nothing is left.
//!
//! It answers 204 when nothing was left, or 200 with JSON: `deleted` says how many went, and `remaining` (a number) or
//! `more` (true or false) whether to ask again; with `deleted` alone, until that is 0.

use std::time::Duration;

use opsctl_platform::local::{LocalPlatform, StateDir};
use serde::Deserialize;

use super::{Batch, Preview, failed};
use crate::config::{Call, CallTo, Cleanup, Config};
use crate::error::{self, Failure};
use crate::exit::Exit;

/// Who is asked, and how.
pub(super) struct Calls {
    cleanup: Cleanup,
    client: reqwest::Client,
    method: reqwest::Method,
    url: String,
    body: Option<String>,
}

/// One request may take this long.
const PATIENCE: Duration = Duration::from_mins(1);
/// Answers are short.
const LIMIT: usize = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
struct Answer {
    deleted: Option<u64>,
    remaining: Option<u64>,
    more: Option<bool>,
}

impl Calls {
    /// Finds the address; asks nobody.
    pub(super) fn open(config: &Config, cleanup: &Cleanup, call: &Call) -> Result<Self, Failure> {
        let base = match &call.to {
            CallTo::Url(url) => url.clone(),
            CallTo::Service(service) => front(config, service)?,
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|error| Failure::new(Exit::Failed, "io", failed(cleanup)).because(&error))?;
        let method = call
            .method
            .parse()
            .map_err(|_| Failure::bug(format!("`{}` is no method", call.method)))?;
        Ok(Self {
            cleanup: cleanup.clone(),
            client,
            method,
            url: format!("{base}{}", call.path),
            body: call.body.clone(),
        })
    }

    /// Asks once.
    pub(super) async fn batch(&self) -> Result<Batch, Failure> {
        let mut request = self.client.request(self.method.clone(), &self.url);
        if let Some(body) = &self.body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let unreachable = |error: reqwest::Error| {
            Failure::new(Exit::Unreachable, "unreachable", failed(&self.cleanup)).because(&error)
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let told = |cause: String| Failure::new(Exit::Failed, "cleanup_failed", failed(&self.cleanup)).cause(cause);
        if status == reqwest::StatusCode::NO_CONTENT {
            return Ok(Batch { rows: 0, last: true });
        }
        if !status.is_success() {
            return Err(told(format!("{} {} answered {status}", self.method, self.url)));
        }
        let body = answer.bytes().await.map_err(unreachable)?;
        let answer: Answer = serde_json::from_slice(&body[..body.len().min(LIMIT)])
            .map_err(|error| told(format!("{} did not answer with JSON", self.url)).because(&error))?;
        let last = match (answer.remaining, answer.more, answer.deleted) {
            (Some(remaining), _, _) => remaining == 0,
            (None, Some(more), _) => !more,
            (None, None, Some(deleted)) => deleted == 0,
            (None, None, None) => {
                return Err(told(format!("{} does not say what it deleted", self.url))
                    .help("it answers 204, or JSON with `deleted`, and `remaining` or `more`"));
            }
        };
        Ok(Batch {
            rows: answer.deleted.unwrap_or(0),
            last,
        })
    }

    /// What would be asked.
    pub(super) fn preview(&self) -> Preview {
        Preview {
            rows: None,
            sample: Vec::new(),
            how: format!("{} {}", self.method, self.url),
        }
    }
}

/// The front door of a service that runs here.
fn front(config: &Config, service: &str) -> Result<String, Failure> {
    let declared = config
        .services
        .get(service)
        .ok_or_else(|| crate::target::unknown_service(config, service))?;
    if let Some(url) = &declared.kubernetes.url
        && config.environment.platform == crate::config::PlatformKind::Kubernetes
    {
        return Ok(url.clone());
    }
    let state = StateDir::open(config.state())
        .map_err(|error| error::platform::failure("could not open the state folder", &error))?;
    let states = LocalPlatform::new(state, None)
        .service_states()
        .map_err(|error| error::platform::failure(format!("could not find `{service}`"), &error))?;
    states
        .into_iter()
        .find(|state| state.name == service)
        .and_then(|state| state.front.http)
        .map(|address| format!("http://{address}"))
        .ok_or_else(|| {
            Failure::new(
                Exit::Unreachable,
                "service_not_running",
                format!("`{service}` does not run here"),
            )
            .help(format!(
                "`opsctl up {service}` starts it, or write `url` in place of `service`"
            ))
        })
}
