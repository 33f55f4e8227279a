//! OTLP over gRPC.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::answer::{Answer, of_code, taken};
use super::{Compression, Target};
use crate::InitError;

#[derive(Debug)]
pub(super) struct Grpc {
    channel: Channel,
    path: PathAndQuery,
    metadata: MetadataMap,
    gzip: bool,
}

impl Grpc {
    /// Needs a runtime.
    pub(super) fn new(target: &Target) -> Result<Self, InitError> {
        let otlp = |source: tonic::transport::Error| InitError::Otlp { source: source.into() };
        let mut endpoint = Endpoint::from_shared(target.endpoint.clone())
            .map_err(|_| target.bad_endpoint())?
            .connect_timeout(target.timeout.min(Duration::from_secs(5)))
            // A connection that was cut without a word is noticed although nothing is sent.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .user_agent(concat!("opsctl-telemetry/", env!("CARGO_PKG_VERSION")))
            .map_err(otlp)?;
        if target.endpoint.starts_with("https") {
            crate::init_tls();
            let mut tls = ClientTlsConfig::new();
            if let Some(certificates) = target.certificates()? {
                tls = tls.ca_certificate(Certificate::from_pem(certificates));
            }
            if let Some([certificate, key]) = target.identity()? {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(otlp)?;
        }
        Ok(Self {
            channel: endpoint.connect_lazy(),
            path: PathAndQuery::from_static(target.signal.method()),
            metadata: MetadataMap::from_headers(target.headers.clone()),
            gzip: target.compression == Compression::Gzip,
        })
    }

    pub(super) async fn send(&self, message: Bytes) -> Answer {
        // grpc-go answers in the compression in which it was asked.
        let mut client = tonic::client::Grpc::new(self.channel.clone()).accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        if let Err(error) = client.ready().await {
            return Answer::Later {
                after: None,
                why: error.to_string(),
            };
        }
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        match client.unary(request, self.path.clone(), Encoded).await {
            Ok(response) => taken(response.get_ref()),
            Err(status) => of_code(status.code(), status.message(), status.details()),
        }
    }
}

/// Messages that are encoded already: the queue holds them so, for its bound in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = message.remaining();
        Ok(Some(message.copy_to_bytes(length)))
    }
}
