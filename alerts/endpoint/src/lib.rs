//! Asking one HTTP server that is not trusted: a Prometheus, an Alertmanager, a Grafana. Every answer is bounded in time
//! and size, no redirect is followed, no proxy asked, nothing repeated, and what it is sent to know us by is shown to
//! nobody. It knows no path and no format.

mod access;
mod error;

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
pub use reqwest::header::HeaderMap;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
pub use reqwest::{Method, StatusCode, Url};
use serde::Serialize;

pub use access::Access;
pub use error::EndpointError;

/// One question with its answer, if nothing else is said.
const LIMIT: Duration = Duration::from_secs(10);
/// Who has not taken the connection by then is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// Longer answers are refused, if nothing else is said: more than ten thousand rules with their alerts.
const LARGEST: usize = 32 << 20;
/// What is shown of a server's words.
const WORDS: usize = 300;

/// A server below an address. Clones share connections.
#[derive(Clone)]
pub struct Endpoint {
    who: &'static str,
    base: Url,
    http: reqwest::Client,
    /// What is sent to let us in, for errors.
    sent: &'static str,
    secrets: Vec<String>,
    limit: Duration,
    largest: usize,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint")
            .field(&self.who)
            .field(&self.address())
            .finish()
    }
}

/// What came back, read to its end. It is none of 401, 403 and 3xx, which are errors.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// A question that is not sent yet.
#[must_use]
pub struct Question<'a> {
    endpoint: &'a Endpoint,
    request: reqwest::RequestBuilder,
}

impl Endpoint {
    /// The server below `url`, which is called `who` in errors; sends nothing. User and password of the URL are taken where
    /// `access` is open. `authority` is a PEM certificate that is trusted beside those of the system.
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(
        who: &'static str,
        url: &str,
        mut access: Access,
        authority: Option<&[u8]>,
    ) -> Result<Self, EndpointError> {
        let mut base: Url = url.parse().map_err(|_| EndpointError::Address(who))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(EndpointError::Address(who));
        }
        if matches!(access, Access::Open) && !base.username().is_empty() {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            access = Access::Basic {
                username: decoded(base.username()),
                password: decoded(base.password().unwrap_or_default()),
            };
        }
        // The address is shown in errors.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        // A prefix such as `/prometheus` is a folder.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = |source| EndpointError::Client { who, source };
        // An error says that one is installed already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .no_proxy();
        let mut secrets = Vec::new();
        if let Some((header, words)) = access.header() {
            let mut value = HeaderValue::from_str(&header)
                .map_err(|_| client("the token holds what no header of HTTP may".into()))?;
            value.set_sensitive(true);
            builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
            secrets = words;
        }
        if let Some(pem) = authority {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| client(error.into()))?;
            if certificates.is_empty() {
                return Err(client("the authority is no certificate in PEM".into()));
            }
            builder = certificates
                .into_iter()
                .fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(Self {
            who,
            base,
            http: builder.build().map_err(|error| client(error.into()))?,
            sent: access.sent(),
            secrets,
            limit: LIMIT,
            largest: LARGEST,
        })
    }

    /// The same with another limit of time for each question with its answer.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The same with another limit of bytes for each answer.
    #[must_use]
    pub fn largest(self, largest: usize) -> Self {
        Self { largest, ..self }
    }

    /// What it is called.
    pub fn who(&self) -> &'static str {
        self.who
    }

    /// The address, without credentials and without a slash at its end.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The address of a path, which may have a query. No path leads to another server.
    pub fn url(&self, path: &str) -> Url {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url.set_query(query);
        url
    }

    /// A question at an address that [`Endpoint::url`] gave.
    pub fn ask(&self, method: Method, url: Url) -> Question<'_> {
        let request = self.http.request(method, url);
        Question {
            endpoint: self,
            request,
        }
    }

    /// That it refuses the question, or cannot answer it now, in these words.
    pub fn refused(&self, status: StatusCode, words: &str) -> EndpointError {
        EndpointError::Refused {
            who: self.who,
            at: self.address().to_owned(),
            status,
            message: self.visible(words),
        }
    }

    /// That the answer is none of what it should be, and why.
    pub fn foreign(&self, why: impl fmt::Display) -> EndpointError {
        EndpointError::Foreign {
            who: self.who,
            at: self.address().to_owned(),
            source: self.visible(&why.to_string()).into(),
        }
    }

    /// As [`plain`], without the secrets that the server was sent, which it may say again.
    pub fn visible(&self, words: &str) -> String {
        let hide = |words: String, secret: &String| words.replace(secret, "…");
        plain(&self.secrets.iter().fold(words.to_owned(), hide))
    }
}

impl Question<'_> {
    /// The same with a form, which may be longer than an address.
    pub fn form(mut self, pairs: &[(&str, &str)]) -> Self {
        let mut form = self.endpoint.base.clone();
        form.query_pairs_mut().extend_pairs(pairs);
        let kind = "application/x-www-form-urlencoded";
        let body = form.query().unwrap_or_default().to_owned();
        self.request = self.request.header(CONTENT_TYPE, kind).body(body);
        self
    }

    /// The same with a document.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.request = self.request.json(value);
        self
    }

    /// Sends it. What a status means is the caller's matter, but for those that are the same for everybody.
    ///
    /// # Errors
    /// [`EndpointError::Unreachable`], [`EndpointError::TimedOut`], [`EndpointError::TooLarge`],
    /// [`EndpointError::Forbidden`] (401, 403), [`EndpointError::Redirected`] (3xx).
    pub async fn answer(self) -> Result<Answer, EndpointError> {
        let Endpoint {
            who,
            sent,
            limit,
            largest,
            ..
        } = *self.endpoint;
        let at = self.endpoint.address();
        let broken = |error: reqwest::Error| EndpointError::Unreachable {
            who,
            at: at.to_owned(),
            source: error.without_url().into(),
        };
        let exchange = async {
            let mut response = self.request.send().await.map_err(broken)?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(broken)? {
                if body.len() + chunk.len() > largest {
                    let (at, limit) = (at.to_owned(), largest);
                    return Err(EndpointError::TooLarge { who, at, limit });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer {
                status: response.status(),
                headers: std::mem::take(response.headers_mut()),
                body,
            })
        };
        let late = |_| EndpointError::TimedOut {
            who,
            at: at.to_owned(),
            limit,
        };
        let answer = tokio::time::timeout(limit, exchange).await.map_err(late)??;
        let (at, status) = (at.to_owned(), answer.status);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(EndpointError::Forbidden { who, at, sent, status }),
            _ if status.is_redirection() => Err(EndpointError::Redirected { who, at, status }),
            _ => Ok(answer),
        }
    }
}

/// The beginning of what somebody else says, on one line; nothing in it moves a cursor.
pub fn plain(words: &str) -> String {
    let line = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(WORDS).collect::<String>().trim().to_owned()
}
