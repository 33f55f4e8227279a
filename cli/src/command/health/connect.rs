//! Connections for one question: TCP, and TLS over it where the address says so. Certificates are loaded only then: a
//! question to the same machine must not cost more than the question.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::Endpoint;

/// What hyper speaks over.
pub(super) type Connection = TokioIo<Box<dyn Io>>;

/// A stream of bytes, secured or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// A word for scripts: `refused`, `timeout`, `dns`, `tls`, `protocol`, `network`.
    pub(super) reason: &'static str,
    /// The same for people.
    pub(super) detail: String,
}

impl Trouble {
    pub(super) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// Connects; `alpn` is the protocol that TLS agrees upon.
pub(super) async fn connect(endpoint: &Endpoint, alpn: &[u8]) -> Result<Connection, Trouble> {
    if let Some(forward) = &endpoint.through {
        return Ok(TokioIo::new(Box::new(forward.connect(endpoint.port).await?)));
    }
    let stream = tcp(endpoint).await?;
    if !endpoint.tls {
        return Ok(TokioIo::new(Box::new(stream)));
    }
    let failed = |error: &dyn std::error::Error| Trouble::new("tls", format!("TLS: {}", innermost(error)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| failed(&error))?
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| failed(&error))?;
    Ok(TokioIo::new(Box::new(stream)))
}

/// Takes the first address of the host that accepts.
pub(super) async fn tcp(endpoint: &Endpoint) -> Result<TcpStream, Trouble> {
    let addresses: Vec<SocketAddr> = match endpoint.host.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, endpoint.port)],
        Err(_) => tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))
            .await
            .map_err(|error| Trouble::new("dns", format!("the name `{}` is not known: {error}", endpoint.host)))?
            .collect(),
    };
    let mut last = Trouble::new("dns", format!("the name `{}` has no address", endpoint.host));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = Trouble::new(
                    "refused",
                    format!("connection refused: nothing listens on port {}", endpoint.port),
                );
            }
            Err(error) => last = Trouble::new("network", format!("could not connect: {error}")),
        }
    }
    Err(last)
}

/// The message at the bottom of an error: the one that says what happened.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
