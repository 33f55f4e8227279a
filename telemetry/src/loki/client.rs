//! One push to Loki and its answer, within its time whatever the other side does. What the answer means for the lines is
//! [`parcel`](super::parcel)'s matter, and when to send again the [`worker`](super::worker)'s.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};

use super::wire::LokiCompression;
use crate::sink::retry::{Verdict, verdict};

/// As much of an answer is read: it says why lines are refused. More would only be held in memory.
const LONGEST_TEXT: usize = 16 * 1024;
/// How long the rest of an answer is waited for when its status has said all.
const REST: Duration = Duration::from_millis(500);

/// Who we are for Loki, or for what stands in front of it. Files are read again when they were refused: they rotate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LokiAuth {
    /// `Authorization: Basic`.
    Basic {
        /// The name.
        user: String,
        /// The file that holds the password; white space at its end is left out.
        password_file: PathBuf,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// The file that holds the token; white space at its end is left out.
        token_file: PathBuf,
    },
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Loki, or something before it, has answered.
    Given {
        verdict: Verdict,
        status: u16,
        text: String,
    },
    /// There was no connection: nothing has arrived.
    Unreachable,
    /// It was sent, and no answer came: it may have arrived.
    None,
}

/// What a client is made from.
pub(crate) struct Target {
    /// The whole address of the push.
    pub(crate) url: reqwest::Url,
    pub(crate) timeout: Duration,
    pub(crate) headers: HeaderMap,
    pub(crate) auth: Option<LokiAuth>,
    pub(crate) compression: LokiCompression,
    /// Certificates beside those of the system, in PEM.
    pub(crate) certificates: Vec<reqwest::Certificate>,
}

/// Pushes to one address.
pub(crate) struct Client {
    http: reqwest::Client,
    url: reqwest::Url,
    auth: Option<LokiAuth>,
    /// From the file, until it is refused.
    secret: Option<String>,
}

impl Client {
    /// Must be called on the runtime that will be used.
    pub(crate) fn new(mut target: Target) -> Result<Self, reqwest::Error> {
        crate::init_tls();
        let headers = &mut target.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if let Some(encoding) = target.compression.content_encoding() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("opsctl-telemetry/", env!("CARGO_PKG_VERSION")))
            .default_headers(target.headers)
            .timeout(target.timeout)
            // A redirected push loses its body, and its status would lie.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_certs_merge(target.certificates)
            .build()?;
        Ok(Self {
            http,
            url: target.url,
            auth: target.auth,
            secret: None,
        })
    }

    /// Sends a push and reads as much of the answer as is of use.
    pub(crate) async fn push(&mut self, body: Bytes) -> Answer {
        if self.secret.is_none() {
            self.secret = self.auth.as_ref().and_then(secret);
        }
        let mut request = self.http.post(self.url.clone()).body(body);
        request = match (&self.auth, &self.secret) {
            (Some(LokiAuth::Basic { user, .. }), Some(password)) => request.basic_auth(user, Some(password)),
            (Some(LokiAuth::Bearer { .. }), Some(token)) => request.bearer_auth(token),
            _ => request,
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_builder() => return Answer::Unreachable,
            Err(_) => return Answer::None,
        };
        let status = response.status().as_u16();
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let verdict = verdict(status, after, crate::wall_clock());
        if verdict == Verdict::Closed {
            self.secret = None;
        }
        let text = text(response, verdict).await;
        Answer::Given { verdict, status, text }
    }
}

/// The beginning of an answer's body. A connection whose body was read to its end is used again.
async fn text(mut response: reqwest::Response, verdict: Verdict) -> String {
    let mut text = Vec::new();
    let read = async {
        while text.len() < LONGEST_TEXT {
            match response.chunk().await {
                Ok(Some(chunk)) => text.extend_from_slice(&chunk[..chunk.len().min(LONGEST_TEXT)]),
                Ok(None) | Err(_) => break,
            }
        }
    };
    if verdict == Verdict::Bad {
        // The request's own time-out bounds it.
        read.await;
    } else {
        let _ = tokio::time::timeout(REST, read).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A file that cannot be read gives nothing: Loki will say that it wants credentials, and the file is read again.
fn secret(auth: &LokiAuth) -> Option<String> {
    let (LokiAuth::Basic {
        password_file: file, ..
    }
    | LokiAuth::Bearer { token_file: file }) = auth;
    Some(std::fs::read_to_string(file).ok()?.trim_end().to_owned())
}
