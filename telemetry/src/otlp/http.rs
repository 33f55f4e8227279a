//! OTLP over HTTP with binary protobuf.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};

use super::answer::{Answer, of_status, taken};
use super::{Compression, Target};
use crate::InitError;

/// Longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    url: reqwest::Url,
    headers: http::HeaderMap,
    gzip: bool,
}

impl Http {
    pub(super) fn new(target: &Target) -> Result<Self, InitError> {
        Ok(Self {
            client: client(target)?,
            url: target.endpoint.parse().map_err(|_| target.bad_endpoint())?,
            headers: target.headers.clone(),
            gzip: target.compression == Compression::Gzip,
        })
    }

    pub(super) async fn send(&self, message: Bytes) -> Answer {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf");
        let request = if self.gzip {
            request.header(CONTENT_ENCODING, "gzip").body(gzip(&message))
        } else {
            request.body(message)
        };
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return later(&error),
        };
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_LIMIT => body.extend_from_slice(&chunk),
                // The rest of a long answer is of no use: the status and the first bytes tell.
                Ok(_) => break,
                // A success that broke off has no verdict on the single items.
                Err(error) => return later(&error),
            }
        }
        if response.status().is_success() {
            return taken(&body);
        }
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        of_status(response.status().as_u16(), after, &body)
    }
}

/// reqwest's client with the time-outs and certificates that are set.
pub(crate) fn client(target: &Target) -> Result<reqwest::Client, InitError> {
    crate::init_tls();
    let otlp = |source: reqwest::Error| InitError::Otlp { source: source.into() };
    let mut client = reqwest::Client::builder()
        .connect_timeout(target.timeout.min(Duration::from_secs(5)))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("opsctl-telemetry/", env!("CARGO_PKG_VERSION")));
    if let Some(certificates) = target.certificates()? {
        for certificate in reqwest::Certificate::from_pem_bundle(&certificates).map_err(otlp)? {
            client = client.add_root_certificate(certificate);
        }
    }
    if let Some(identity) = target.identity()? {
        client = client.identity(reqwest::Identity::from_pem(&identity.concat()).map_err(otlp)?);
    }
    client.build().map_err(otlp)
}

fn later(error: &reqwest::Error) -> Answer {
    let why = if error.is_connect() {
        "cannot connect"
    } else {
        "the connection broke"
    };
    Answer::Later {
        after: None,
        why: why.to_owned(),
    }
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(message.len() / 4), flate2::Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}
