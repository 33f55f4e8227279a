//! Asking an instance whether it is ready: HTTP, else gRPC health, else a TCP connect. One question, bounded in time.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Health;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) health: Health,
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    /// Without a health question: the first of these that takes a connection makes it ready.
    pub(super) connect: Vec<SocketAddr>,
}

/// Whether it says that it is ready.
pub(super) async fn ready(target: &Target) -> bool {
    let ask = async {
        if let Some(path) = &target.health.http {
            http(target.http, path).await
        } else if let Some(service) = &target.health.grpc {
            grpc(target.grpc, service).await
        } else {
            for addr in &target.connect {
                if TcpStream::connect(addr).await.is_ok() {
                    return true;
                }
            }
            false
        }
    };
    tokio::time::timeout(LIMIT, ask).await.unwrap_or(false)
}

async fn http(addr: SocketAddr, path: &str) -> bool {
    let Ok(stream) = TcpStream::connect(addr).await else {
        return false;
    };
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
        return false;
    };
    let request = hyper::Request::get(path)
        .header(http::header::HOST, addr.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return false };
    let answer = async {
        sender
            .send_request(request)
            .await
            .is_ok_and(|answer| answer.status().is_success())
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            ready = &mut answer => return ready,
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn grpc(addr: SocketAddr, service: &str) -> bool {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let Ok(endpoint) = tonic::transport::Endpoint::from_shared(format!("http://{addr}")) else {
        return false;
    };
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    HealthClient::new(channel)
        .check(request)
        .await
        .is_ok_and(|answer| answer.into_inner().status == ServingStatus::Serving as i32)
}
