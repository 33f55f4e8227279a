//! Asking a server that keeps lines or traces: its address, what lets us in, bounded answers, and what is told when it
//! does not answer. What is asked and what the answer means is in the files of each kind of server.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use serde_json::Value;

use crate::config::{Backend, Key};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::printable;

/// The largest answer that is read.
const LARGEST: usize = 64 * 1024 * 1024;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// The most of a server's own words that is told.
const TOLD: usize = 300;

/// A server, and how to be let in.
#[derive(Debug)]
pub(super) struct Server {
    /// `Loki` or `the trace server`.
    what: &'static str,
    /// The key of opsctl.toml that names it.
    key: &'static str,
    client: Client,
    url: String,
    tenant: Option<String>,
    authorization: Option<Authorization>,
}

enum Authorization {
    Token(crate::config::Secret),
    Password(String, crate::config::Secret),
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization(…)")
    }
}

impl Server {
    /// Fetches the secrets; connects to nothing yet.
    pub(super) fn new(
        context: &Context,
        what: &'static str,
        key: &'static str,
        backend: &Backend,
    ) -> Result<Self, Failure> {
        let authorization = match &backend.key {
            None => None,
            Some(Key::Token(token)) => Some(Authorization::Token(
                token.fetch(context, &format!("the token of {what}"))?,
            )),
            Some(Key::Password(user, password)) => {
                let password = password.fetch(context, &format!("the password of {what}"))?;
                Some(Authorization::Password(user.clone(), password))
            }
        };
        // The client insists on a provider before it knows whether it will need one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT)
            // What lets us in is for this server alone.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| Failure::bug(format!("could not make a client for {what}")).because(&error))?;
        Ok(Self {
            what,
            key,
            client,
            url: backend.url.clone(),
            tenant: backend.tenant.clone(),
            authorization,
        })
    }

    /// The server in words.
    pub(super) fn words(&self) -> String {
        format!("{} at {}", self.what, self.url)
    }

    /// `GET` of a path: the document, or `None` where there is nothing.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Option<Value>, Failure> {
        let address = format!("{}{path}", self.url);
        let mut address =
            reqwest::Url::parse(&address).map_err(|error| Failure::bug("could not make an address").because(&error))?;
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.get(address).header("accept", "application/json");
        if let Some(tenant) = &self.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        request = match &self.authorization {
            None => request,
            Some(Authorization::Token(token)) => request.bearer_auth(token.expose()),
            Some(Authorization::Password(user, password)) => request.basic_auth(user, Some(password.expose())),
        };
        let unreachable = |error: reqwest::Error| {
            let late = if error.is_timeout() { " in time" } else { "" };
            Failure::new(
                Exit::Unreachable,
                "unreachable",
                format!("{} does not answer{late}", self.words()),
            )
            .because(&error.without_url())
            .help(format!("is `{}` in opsctl.toml right, and does it run?", self.key))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(self
                    .failed(Exit::Failed, "bad_answer", "answers too much")
                    .cause(format!("more than {}", crate::output::bytes(LARGEST as u64))));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map(Some).map_err(|error| {
                self.failed(Exit::Failed, "bad_answer", "answers what cannot be understood")
                    .because(&error)
                    .help(format!("does `{}` in opsctl.toml name the right server?", self.key))
            });
        }
        if status == StatusCode::NOT_FOUND {
            return Ok(serde_json::from_slice(&body).ok());
        }
        Err(self.refused(status, &body))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let said: String = String::from_utf8_lossy(body).trim().chars().take(TOLD).collect();
        let said = printable(&said);
        let said = if said.is_empty() {
            status.to_string()
        } else {
            format!("{status}: {said}")
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self
                .failed(Exit::Usage, "not_let_in", "does not let us in")
                .cause(said)
                .help(format!(
                    "give `token`, or `user` and `password`, in `{} = {{ url = … }}` of opsctl.toml",
                    self.key
                )),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => self
                .failed(Exit::Unreachable, "unreachable", "cannot answer now")
                .cause(said)
                .help("try again in a moment"),
            status if status.is_redirection() => self
                .failed(Exit::Usage, "bad_answer", "sends us elsewhere, which is not followed")
                .cause(said)
                .help(format!("name the right address in `{}` of opsctl.toml", self.key)),
            _ => self
                .failed(Exit::Failed, "bad_answer", "refuses the question")
                .cause(said),
        }
    }

    fn failed(&self, exit: Exit, code: &'static str, what: &str) -> Failure {
        Failure::new(exit, code, format!("{} {what}", self.words()))
    }
}
