//! One GET over plain HTTP/1.1: no redirects, no proxy, the body is not read. For TLS use a closure over the
//! application's own client.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::check::{Check, Failure, Outcome, Reason};

/// Passes when a GET answers with the expected status.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    uri: Uri,
    expect: Option<StatusCode>,
}

impl HttpCheck {
    /// GET `uri` (`http://host:port/path`), any 2xx passes.
    ///
    /// # Errors
    /// A failure of kind `protocol` when `uri` is no absolute `http://` URI.
    pub fn get(uri: &str) -> Result<Self, Failure> {
        let uri: Uri = uri
            .parse()
            .map_err(|error: http::uri::InvalidUri| Failure::from(error))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(Failure::new(
                Reason::Protocol,
                format!("not an absolute http:// URI: {uri}"),
            ));
        }
        Ok(Self { uri, expect: None })
    }

    /// Exactly this status passes.
    #[must_use]
    pub fn expect(mut self, status: StatusCode) -> Self {
        self.expect = Some(status);
        self
    }

    async fn ask(&self) -> Result<(), Failure> {
        let host = self.uri.host().unwrap_or_default();
        let port = self.uri.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|error| Failure::new(reason_of_connect(&error), error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let path = self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = Request::get(path)
            .header(
                http::header::HOST,
                self.uri.authority().map_or(host, http::uri::Authority::as_str),
            )
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        // The connection is polled beside the request and dropped with it, so nothing outlives the check.
        let exchange = sender.send_request(request);
        let driven = async {
            // An error of the connection is also the exchange's error.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let response = tokio::select! {
            response = exchange => response?,
            () = driven => return Err(Failure::new(Reason::Protocol, "connection ended")),
        };
        let status = response.status();
        let good = self.expect.map_or(status.is_success(), |expect| expect == status);
        if good {
            return Ok(());
        }
        let reason = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Reason::Auth,
            _ => Reason::Protocol,
        };
        Err(Failure::new(reason, format!("status {status}")))
    }
}

/// The resolver's errors have no kind of their own; they are those without an operating system code.
fn reason_of_connect(error: &std::io::Error) -> Reason {
    match (Reason::of_io(error), error.raw_os_error()) {
        (Reason::Error, None) => Reason::Dns,
        (reason, _) => reason,
    }
}

impl Check for HttpCheck {
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        Box::pin(async move { self.ask().await.into() })
    }
}
