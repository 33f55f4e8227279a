//! The container images of our programs: the program, the certificates that it trusts, how it looks names up, and a user
//! who is not root. Nothing else is in them; how an image is written stands in the crate `peers`.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use peers::Image;

/// Nobody that a machine knows. Numbers, since Kubernetes cannot tell of a name that it is not root.
const USER: u32 = 65532;
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What images are called: `REPOSITORY/PROGRAM:TAG`.
#[derive(Debug, clap::Args)]
pub struct Naming {
    /// What stands before a program's name in the name of its image
    #[arg(long, default_value = "opsctl")]
    repository: String,
    /// The tag of every image [default: the first digits of the program's SHA-256]
    #[arg(long, value_parser = tag)]
    tag: Option<String>,
}

impl Naming {
    /// `opsctl/PROGRAM:TAG`.
    pub fn tagged(tag: &str) -> Self {
        Self {
            repository: "opsctl".to_owned(),
            tag: Some(tag.to_owned()),
        }
    }
}

/// A version that is bad on purpose.
#[derive(Debug, Clone)]
pub struct Variant {
    name: String,
    fault: String,
}

impl Variant {
    /// Calls it by `name`; an empty fault is a version as good as the first.
    pub fn new(name: &str, fault: &str) -> Self {
        Self {
            name: name.to_owned(),
            fault: fault.to_owned(),
        }
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, fault) = text.split_once('=').ok_or("it is not of the form NAME=FAULT")?;
        Ok(Self {
            name: tag(name)?,
            fault: fault.to_owned(),
        })
    }
}

/// Refuses what cannot be a tag, or the end of one.
fn tag(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !(1..=64).contains(&text.len()) || !text.bytes().all(allowed) || text.starts_with(['.', '-']) {
        return Err(
            "a tag is 1 to 64 letters, digits, dots, dashes and underscores, and begins with neither of the \
                    first two"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// What the images of one program are made from.
pub struct About<'a> {
    /// Its name.
    pub program: &'static str,
    /// One line for people.
    pub description: &'a str,
    /// Of its bytes.
    pub sha256: &'a str,
    /// The commit that it was made from.
    pub revision: Option<&'a str>,
    /// In PEM.
    pub certificates: &'a str,
}

/// An image that is only missing its program.
pub struct Named {
    /// The program.
    pub program: &'static str,
    /// The file that the image is to be in.
    pub file: String,
    /// What is wrong with it.
    pub fault: Option<String>,
    /// The image.
    pub image: Image,
}

impl About<'_> {
    /// The program's image, and one for each variant when it is a service.
    pub fn images(&self, naming: &Naming, variants: &[Variant]) -> Vec<Named> {
        let tag = naming.tag.as_deref().unwrap_or(&self.sha256[..12]);
        let mut images = vec![self.image(naming, tag, None)];
        if self.is_service() {
            images.extend(variants.iter().map(|variant| self.image(naming, tag, Some(variant))));
        }
        images
    }

    fn is_service(&self) -> bool {
        self.program != "opsctl"
    }

    fn image(&self, naming: &Naming, tag: &str, variant: Option<&Variant>) -> Named {
        let program = self.program;
        let (tag, file) = match variant {
            Some(Variant { name, .. }) => (format!("{tag}-{name}"), format!("{program}-{name}.oci.tar")),
            None => (tag.to_owned(), format!("{program}.oci.tar")),
        };
        let mut image = Image::new(&format!("{}/{program}:{tag}", naming.repository))
            .user(USER)
            .usual("opsctl")
            .text(CERTIFICATES, self.certificates, 0o644)
            // As everywhere; without it the C library would ask name servers even for what the hosts file says.
            .text("/etc/nsswitch.conf", "hosts: files dns\n", 0o644)
            .entrypoint([format!("/{program}")])
            .label("org.opencontainers.image.title", program)
            .label("org.opencontainers.image.description", self.description)
            .label("org.opencontainers.image.version", &tag)
            .label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE"));
        if let Some(revision) = self.revision {
            image = image.label("org.opencontainers.image.revision", revision);
        }
        if self.is_service() {
            image = image
                .folder("/data", 0o1777)
                .env("DATA_DIR", "/data")
                .env("SERVICE_VERSION", &tag);
        }
        let fault = variant.map(|variant| variant.fault.clone());
        if let Some(fault) = &fault {
            image = image.env("SERVICE_FAULT", fault).label("dev.opsctl.fault", fault);
        }
        Named {
            program,
            file,
            fault,
            image,
        }
    }
}

/// What programs trust. Not what this machine trusts: that may be more than others want, and would make other images of
/// the same source.
///
/// # Errors
/// When `file` cannot be read or holds no certificate.
pub fn certificates(file: Option<&Path>) -> Result<String> {
    let Some(file) = file else {
        return Ok(webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|der| pem(der))
            .collect());
    };
    let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let found = text.contains("-----BEGIN CERTIFICATE-----");
    ensure!(found, "{} holds no certificate in PEM", file.display());
    Ok(text)
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem += line;
        pem.push('\n');
        rest = next;
    }
    pem + "-----END CERTIFICATE-----\n"
}
