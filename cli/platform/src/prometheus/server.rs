//! The policy under which a server is read, again where an attempt failed, and what it means when it refuses. It knows no
//! path and no format of an answer.

use std::time::Duration;

use endpoint::{Access, Answer, Endpoint, EndpointError, Method, Question};
use resilience::{Breaker, Pipeline, Retry, Safety, Verdict};

use super::{PrometheusError, answer};

/// Longer answers are refused: a query that matches too much, or another server.
const LARGEST: usize = 16 << 20;
/// One attempt, and what Prometheus itself is asked to keep to.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
/// All attempts of one read.
const TOTAL: Duration = Duration::from_secs(12);

/// A server. Clones share connections and policy.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    policy: Pipeline,
}

impl Server {
    /// The server below `url`; sends nothing.
    pub(super) fn new(
        name: &'static str,
        url: &str,
        access: Access,
        authority: Option<&[u8]>,
    ) -> Result<Self, EndpointError> {
        // An attempt ends before the endpoint would end it: by the policy, which counts that.
        let endpoint = Endpoint::new(name, url, access, authority)?
            .largest(LARGEST)
            .limit(TOTAL);
        let called = name.to_lowercase();
        let policy = Pipeline::builder(called.as_str())
            .total_timeout(TOTAL)
            .attempt_timeout(ATTEMPT)
            .retry(
                Retry::default()
                    .max(2)
                    .backoff(Duration::from_millis(100), Duration::from_secs(1)),
            )
            .breaker(Breaker::builder(called.as_str()).open(Duration::from_secs(1), Duration::from_secs(10)))
            .build()
            .map_err(|error| EndpointError::Client {
                who: name,
                source: error.into(),
            })?;
        Ok(Self { endpoint, policy })
    }

    /// What `read` makes of the answer at a path.
    pub(super) async fn get<T>(
        &self,
        path: &str,
        read: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, PrometheusError> {
        let make = || self.endpoint.ask(Method::GET, self.endpoint.url(path));
        let body = self.read(make, "").await?;
        Ok(read(&body).map_err(|error| self.endpoint.foreign(error))?)
    }

    /// The body of a good answer; reads may always be repeated, whatever their method.
    pub(super) async fn read<'a>(
        &'a self,
        make: impl Fn() -> Question<'a>,
        query: &str,
    ) -> Result<Vec<u8>, PrometheusError> {
        let attempt = |_| make().answer();
        // Boxed, or every future of a drill would carry it.
        let answer = Box::pin(self.policy.call_with(Safety::Idempotent, &verdict, attempt)).await;
        let (who, at) = (self.endpoint.who(), || self.endpoint.address().to_owned());
        let answer = answer.map_err(|error| match error {
            resilience::Error::Inner(error) => error,
            resilience::Error::Timeout { limit, .. } => EndpointError::TimedOut { who, at: at(), limit },
            resilience::Error::Rejected(rejected) => EndpointError::Unreachable {
                who,
                at: at(),
                source: rejected.into(),
            },
        })?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let (kind, message) = answer::refusal(&answer.body);
        Err(match kind.as_str() {
            "bad_data" | "execution" => PrometheusError::BadQuery {
                query: query.to_owned(),
                message: self.endpoint.visible(&message),
            },
            _ => self.endpoint.refused(answer.status, &message).into(),
        })
    }
}

fn verdict(result: Result<&Answer, &EndpointError>) -> Verdict {
    match result {
        Ok(answer) => resilience::http::verdict(answer.status, &answer.headers),
        Err(error) if error.is_unreachable() => Verdict::Failure(resilience::http::error_kind(error)),
        Err(_) => Verdict::Ignore,
    }
}
