//! A certificate authority of one test or cluster, and what clients of Kubernetes need to find and prove who they are.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Signs certificates. Its own is what others trust.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: String,
}

/// A certificate and its private key, as PEM.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Whom a certificate names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The user, to Kubernetes.
    pub name: &'a str,
    /// The user's groups, to Kubernetes.
    pub groups: &'a [&'a str],
    /// The names and addresses that a server answers on; none for a client.
    pub hosts: &'a [&'a str],
    /// Whether it ended long ago.
    pub expired: bool,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When the system has no randomness for a key.
    pub fn new(name: &str) -> io::Result<Self> {
        Self::with(name, KeyPair::generate().map_err(io::Error::other)?)
    }

    /// The authority `name` that has this key, as PEM: what it signs is trusted as before.
    ///
    /// # Errors
    /// When that is no key.
    pub fn again(name: &str, key: &str) -> io::Result<Self> {
        Self::with(name, KeyPair::from_pem(key).map_err(io::Error::other)?)
    }

    fn with(name: &str, key: KeyPair) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            key: key.serialize_pem(),
            issuer: CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?,
        })
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Its private key, as PEM, for a controller that signs in its name.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Signs a certificate for a client and, where `subject` has hosts, for a server.
    ///
    /// # Errors
    /// When a host is no name, or the system has no randomness for a key.
    pub fn sign(&self, subject: Subject<'_>) -> io::Result<Signed> {
        let hosts: Vec<String> = subject.hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, subject.name);
        for group in subject.groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if subject.expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok(Signed {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Signed {
    /// Writes `NAME.pem` and `NAME.key` to `folder`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        write_private(&folder.join(format!("{name}.pem")), &self.certificate)?;
        write_private(&folder.join(format!("{name}.key")), &self.key)
    }
}

/// A pair of keys for tokens of service accounts: the private one, the public one.
///
/// # Errors
/// When the system has no randomness for a key.
pub fn token_keys() -> io::Result<(String, String)> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// A kubeconfig with one cluster, user and context, all called `name`. Everything is in it, so that it can be moved.
pub fn kubeconfig(name: &str, server: &str, authority: &str, user: &Signed) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (authority, certificate, key) = (
        STANDARD.encode(authority),
        STANDARD.encode(&user.certificate),
        STANDARD.encode(&user.key),
    );
    format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters: [{{name: {name}, cluster: {{server: \"{server}\", certificate-authority-data: {authority}}}}}]
users: [{{name: {name}, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]
contexts: [{{name: {name}, context: {{cluster: {name}, user: {name}}}}}]
"
    )
}

/// Writes what only its owner may read.
///
/// # Errors
/// What the file system says.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
