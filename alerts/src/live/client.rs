//! Asking a server over HTTP, bounded in time and size, without following redirects, and without telling anybody the
//! credentials. What is asked and what the answers mean stands in `prometheus` and `alertmanager`.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

/// Longer answers are refused: more than ten thousand rules with their alerts.
const LARGEST: usize = 32 << 20;
/// Nor does any answer of that size hold more braces: an empty object takes two bytes there and hundreds here.
const BRACES: usize = 500_000;
/// What is shown of a server's words.
const WORDS: usize = 300;
/// One question with its answer, if nothing else is said.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Not an `http://host…` or `https://host…` URL.
    #[error("the address of {0} must be an http:// or https:// URL with a host")]
    Address(&'static str),
    /// There is no TLS here, or the certificate authority is none.
    #[error("a client for {0} cannot be made")]
    Client(&'static str, #[source] reqwest::Error),
    /// Nobody answered, or the connection broke.
    #[error("{who} at {at} cannot be reached")]
    Unreachable {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("{who} at {at} took longer than {} s", .limit.as_secs_f64())]
    TimedOut {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// The limit.
        limit: Duration,
    },
    /// It wants other credentials.
    #[error("{who} at {at} refuses the credentials (HTTP {status})")]
    Forbidden {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// 401 or 403.
        status: u16,
    },
    /// It sends the question elsewhere, where credentials do not follow.
    #[error("{who} at {at} answers with a redirect (HTTP {status}), which is not followed; configure where it leads")]
    Redirected {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// 3xx.
        status: u16,
    },
    /// It refuses the question, or cannot answer now.
    #[error("{who} at {at} refuses (HTTP {status}): {message}")]
    Refused {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// The status.
        status: u16,
        /// The beginning of its words.
        message: String,
    },
    /// The answer is too large.
    #[error("the answer of {who} at {at} is larger than {limit} bytes")]
    TooLarge {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// The limit.
        limit: usize,
    },
    /// Something answered that is not what it should be.
    #[error("{at} does not answer as {who} does")]
    Foreign {
        /// Prometheus or Alertmanager.
        who: &'static str,
        /// Its address.
        at: String,
        /// What could not be read.
        #[source]
        source: serde_json::Error,
    },
}

impl LiveError {
    /// Whether the server was not there, as opposed to wrong.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }
}

/// Who asks. Secrets are never shown.
#[derive(Clone, Default)]
pub enum Access {
    /// Anybody may.
    #[default]
    Open,
    /// `Authorization: Bearer`.
    Bearer(String),
    /// `Authorization: Basic`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Bearer(_) => "Bearer",
            Self::Basic { .. } => "Basic",
        })
    }
}

/// A server below an address.
#[derive(Debug, Clone)]
pub(super) struct Client {
    who: &'static str,
    base: Url,
    http: reqwest::Client,
    access: Access,
    limit: Duration,
}

impl Client {
    /// A client for the server below `url`; sends nothing. User and password of the URL are taken where `access` is open.
    pub fn new(who: &'static str, url: &str, mut access: Access, authority: Option<&[u8]>) -> Result<Self, LiveError> {
        let mut base: Url = url.parse().map_err(|_| LiveError::Address(who))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(LiveError::Address(who));
        }
        base.set_query(None);
        base.set_fragment(None);
        if matches!(access, Access::Open) && !base.username().is_empty() {
            access = Access::Basic {
                username: base.username().to_owned(),
                password: base.password().unwrap_or_default().to_owned(),
            };
        }
        // The address is shown in errors.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        // A prefix such as `/prometheus` is a folder to `Url::join`.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // An error says that one is installed already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy();
        if let Some(pem) = authority {
            for certificate in
                reqwest::Certificate::from_pem_bundle(pem).map_err(|error| LiveError::Client(who, error))?
            {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self {
            who,
            base,
            http: builder.build().map_err(|error| LiveError::Client(who, error))?,
            access,
            limit: LIMIT,
        })
    }

    /// The same with another limit of time for each question.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The address, without credentials.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LiveError> {
        let body = self.send(Method::GET, path, None).await?;
        self.read(&body)
    }

    /// What is no JSON, as `take` reads it.
    pub async fn text<T>(&self, path: &str, take: impl Fn(&str) -> Result<T, String>) -> Result<T, LiveError> {
        let body = self.send(Method::GET, path, None).await?;
        take(&String::from_utf8_lossy(&body)).map_err(|what| LiveError::Foreign {
            who: self.who,
            at: self.address().to_owned(),
            source: serde_json::Error::custom(self.visible(&what)),
        })
    }

    /// What a form is answered with.
    pub async fn form<T: DeserializeOwned>(&self, path: &str, pairs: &[(&str, &str)]) -> Result<T, LiveError> {
        let mut form = self.base.clone();
        form.query_pairs_mut().extend_pairs(pairs);
        let form = form.query().unwrap_or_default().to_owned();
        let body = self
            .send(Method::POST, path, Some(("application/x-www-form-urlencoded", form)))
            .await?;
        self.read(&body)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T, LiveError> {
        // Only maps without text as keys cannot be written.
        let json = serde_json::to_string(value).unwrap_or_default();
        let body = self.send(Method::POST, path, Some(("application/json", json))).await?;
        self.read(&body)
    }

    pub async fn delete(&self, path: &str) -> Result<(), LiveError> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, LiveError> {
        let many = body.split(|byte| *byte == b'{').nth(BRACES + 1).is_some();
        let read = if many {
            let what = format!("it holds more than {BRACES} objects");
            Err(serde_json::Error::custom(what))
        } else {
            serde_json::from_slice(body)
        };
        read.map_err(|source: serde_json::Error| {
            // It repeats what stands where something else should, however long that is.
            let source = match source.to_string() {
                long if long.len() > WORDS => serde_json::Error::custom(self.visible(&long)),
                _ => source,
            };
            LiveError::Foreign {
                who: self.who,
                at: self.address().to_owned(),
                source,
            }
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Result<Vec<u8>, LiveError> {
        let (who, at, limit) = (self.who, self.address().to_owned(), self.limit);
        let url = self.base.join(path).map_err(|_| LiveError::Address(who))?;
        let mut request = self.http.request(method, url);
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body);
        }
        request = match &self.access {
            Access::Open => request,
            Access::Bearer(token) => request.bearer_auth(token.trim()),
            Access::Basic { username, password } => request.basic_auth(username, Some(password)),
        };
        let exchange = async {
            let mut response = request.send().await.map_err(Fault::Transport)?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(Fault::Transport)? {
                if body.len() + chunk.len() > LARGEST {
                    return Err(Fault::TooLarge);
                }
                body.extend_from_slice(&chunk);
            }
            Ok((response.status(), body))
        };
        let (status, body) = match tokio::time::timeout(limit, exchange).await {
            Err(_) => return Err(LiveError::TimedOut { who, at, limit }),
            Ok(Err(Fault::TooLarge)) => {
                return Err(LiveError::TooLarge {
                    who,
                    at,
                    limit: LARGEST,
                });
            }
            Ok(Err(Fault::Transport(error))) => {
                let source = error.without_url();
                return Err(LiveError::Unreachable { who, at, source });
            }
            Ok(Ok(answer)) => answer,
        };
        let code = status.as_u16();
        match status {
            status if status.is_success() => Ok(body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(LiveError::Forbidden { who, at, status: code }),
            status if status.is_redirection() => Err(LiveError::Redirected { who, at, status: code }),
            _ => Err(LiveError::Refused {
                who,
                at,
                status: code,
                message: self.words(&body),
            }),
        }
    }

    /// The beginning of what a server says, without the secrets that it may have been sent.
    fn words(&self, body: &[u8]) -> String {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
        }
        // Prometheus speaks in objects, Alertmanager in text or in JSON text.
        let text = serde_json::from_slice::<Refusal>(body)
            .map(|refusal| refusal.error)
            .or_else(|_| serde_json::from_slice::<String>(body))
            .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
        self.visible(&text)
    }

    /// The beginning of foreign words, without the secrets that it may have been sent, and on one line.
    fn visible(&self, text: &str) -> String {
        let text = match &self.access {
            Access::Bearer(secret) | Access::Basic { password: secret, .. } if !secret.trim().is_empty() => {
                text.replace(secret.trim(), "…")
            }
            _ => text.to_owned(),
        };
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.take(WORDS).collect::<String>().trim().to_owned()
    }
}

enum Fault {
    TooLarge,
    Transport(reqwest::Error),
}
