//! TLS with a server, as much of it as the address asks for, and what binds a password to its certificate.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::{Authority, SslMode, Tls};
use crate::error::Error;

/// Files of certificates and keys are not larger.
const LARGEST: u64 = 4 << 20;

/// Speaks TLS with the server `name` at `at`.
pub(crate) async fn connect(stream: TcpStream, name: &str, tls: &Tls, at: &str) -> Result<TlsStream<TcpStream>, Error> {
    let failed = |source| {
        let at = at.to_owned();
        Error::Tls { at, source }
    };
    let config = config(tls, at)?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(failed)
}

fn config(tls: &Tls, at: &str) -> Result<ClientConfig, Error> {
    let failed = |error: rustls::Error| Error::Tls {
        at: at.to_owned(),
        source: io::Error::other(error),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match (tls.mode, &tls.authority) {
        (SslMode::VerifyFull | SslMode::VerifyCa, Authority::System) => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(failed)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        (SslMode::VerifyFull | SslMode::VerifyCa, Authority::File(file)) => {
            let verifier = Named::new(file, tls.mode == SslMode::VerifyFull, provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        _ => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    let Some((certificate, key)) = tls.certificate.as_ref().zip(tls.key.as_ref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("the certificate", certificate)?;
    let pem = read("the key", key, 0o027)?;
    let secret = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable("the key", key, error))?;
    let config = builder.with_client_auth_cert(chain, secret);
    config.map_err(|error| unusable("the certificate", certificate, error))
}

fn unusable(what: &'static str, path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let (path, source) = (path.to_owned(), io::Error::other(error));
    Error::File { what, path, source }
}

/// A file's content, if it grants none of the permissions in `refused`.
fn read(what: &'static str, path: &Path, refused: u32) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
    let content = || {
        let about = fs::metadata(path)?;
        if !about.is_file() || about.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no such file"));
        }
        if about.mode() & refused != 0 {
            let why = "others than its owner may read it; its permissions must be 0600";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        fs::read(path).map(zeroize::Zeroizing::new)
    };
    content().map_err(|source| Error::File {
        what,
        path: path.to_owned(),
        source,
    })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(what, path, 0)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| unusable(what, path, error))?;
    if found.is_empty() {
        return Err(unusable(what, path, "it holds no certificate in PEM"));
    }
    Ok(found)
}

/// Takes any certificate of a server that has the key to it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes certificates that those in a file signed, for the server's name or for any. A server's own certificate in the
/// file is taken for what it is, as libpq does: that is what a certificate that nobody else signed looks like.
#[derive(Debug)]
struct Named {
    chain: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
    by_name: bool,
}

impl Named {
    fn new(file: &Path, by_name: bool, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let what = "the certificate of the authority";
        let own = certificates(what, file)?;
        let mut roots = RootCertStore::empty();
        for certificate in &own {
            roots
                .add(certificate.clone())
                .map_err(|error| unusable(what, file, error))?;
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let chain = chain.map_err(|error| unusable(what, file, error))?;
        Ok(Self { chain, own, by_name })
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let known = self.own.iter().any(|own| own.as_ref() == certificate.as_ref());
        if known && let Some((from, until)) = crate::der::validity(certificate) {
            if now.as_secs() < from {
                return Err(CertificateError::NotValidYet.into());
            }
            if now.as_secs() > until {
                return Err(CertificateError::Expired.into());
            }
            if self.by_name {
                let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match self.chain.verify_server_cert(certificate, others, name, ocsp, now) {
            // The name is looked at last: the rest of it holds.
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if !self.by_name =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// What a password is bound to: the hash of the server's certificate (`tls-server-end-point`, RFC 5929), with the hash
/// that the certificate is signed with. `None` where that is none, as with Ed25519.
pub(crate) fn end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    match crate::der::signature_hash(certificate)? {
        crate::der::Hash::Sha256 => Some(Sha256::digest(certificate).to_vec()),
        crate::der::Hash::Sha384 => Some(Sha384::digest(certificate).to_vec()),
        crate::der::Hash::Sha512 => Some(Sha512::digest(certificate).to_vec()),
    }
}
