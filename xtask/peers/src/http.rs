//! The smallest HTTP client that asks a peer something: HTTP/1.0, one request a connection, TLS where the peer knows
//! its clients by their certificates. It is no client to measure or to ship with.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// How long a whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, with what is not UTF-8 replaced.
    pub body: String,
}

impl Answer {
    /// The body as JSON, or `null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// `GET path` from `address`. The path is sent as it is: encode what a query holds with [`encode`].
///
/// # Errors
/// As [`send`].
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    send(address, "GET", path, &[], "").await
}

/// `POST path` with a body.
///
/// # Errors
/// As [`send`].
pub async fn post(address: SocketAddr, path: &str, content_type: &str, body: &str) -> io::Result<Answer> {
    send(address, "POST", path, &[("Content-Type", content_type)], body).await
}

/// Any request, with headers beside `Content-Length`, and beside `Host` unless that is among them.
///
/// # Errors
/// When the server cannot be reached, is silent for ten seconds, or does not speak HTTP.
pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let length = body.len();
    let address_as_text = address.to_string();
    let named = headers.iter().any(|(name, _)| *name == "Host");
    let host = (!named).then_some(("Host", address_as_text.as_str()));
    let headers: Vec<String> = host
        .iter()
        .chain(headers)
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let headers = headers.concat();
    let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    exchange(address, &request).await
}

/// Text as it may stand in a query.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// A client with a certificate, of servers that show one of the same authority.
#[derive(Clone)]
pub struct Secure {
    connector: TlsConnector,
}

impl Secure {
    /// Reads whom to trust and what to show from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub fn read(authority: &Path, certificate: &Path, key: &Path) -> io::Result<Self> {
        let certificates = |path: &Path| -> io::Result<Vec<CertificateDer<'static>>> {
            let read = CertificateDer::pem_file_iter(path).map_err(io::Error::other)?;
            read.collect::<Result<_, _>>().map_err(io::Error::other)
        };
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(certificates(authority)?);
        let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(trusted)
            .with_client_auth_cert(certificates(certificate)?, key)
            .map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { connector })
    }

    /// `GET path` from `address`.
    ///
    /// # Errors
    /// When the server cannot be reached, is not trusted, is silent for ten seconds, or does not speak HTTP.
    pub async fn get(&self, address: SocketAddr, path: &str) -> io::Result<Answer> {
        let exchange = async {
            let stream = TcpStream::connect(address).await?;
            let stream = self.connector.connect(address.ip().into(), stream).await?;
            let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
            converse(stream, &request).await
        };
        parse(&timeout(PATIENCE, exchange).await??)
    }
}

async fn exchange(address: SocketAddr, request: &str) -> io::Result<Answer> {
    let exchange = async { converse(TcpStream::connect(address).await?, request).await };
    parse(&timeout(PATIENCE, exchange).await??)
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> io::Result<Answer> {
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let body = body.to_owned();
        Some(Answer { status, body })
    });
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
