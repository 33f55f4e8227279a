//! The client certificate of a kubeconfig, for one question: is its time over? An API server answers that with 401, like
//! every other doubt about who asks.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};

#[derive(Clone)]
pub(super) struct Certificate {
    own: CertificateDer<'static>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Certificate {
    /// The one in `config`; `None` when there is none, or none that can be read here.
    pub(super) fn of(config: &kube::Config) -> Option<Self> {
        let auth = &config.auth_info;
        let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
            (Some(data), _) => STANDARD.decode(data).ok()?,
            (None, Some(file)) => std::fs::read(file).ok()?,
            (None, None) => return None,
        };
        // A verifier wants a root. Times are looked at first, whoever signed.
        let mut roots = RootCertStore::empty();
        roots.add(config.root_cert.as_ref()?.first()?.clone().into()).ok()?;
        Some(Self {
            own: CertificateDer::from_pem_slice(&pem).ok()?,
            verifier: WebPkiClientVerifier::builder(Arc::new(roots)).build().ok()?,
        })
    }

    pub(super) fn expired(&self) -> bool {
        matches!(
            self.verifier.verify_client_cert(&self.own, &[], UnixTime::now()),
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            ))
        )
    }
}
