//! MinIO, an S3 of one disk. Versioning and object lock work as with many; a listing of multipart uploads finds one by
//! its whole key only.

use std::io;

use super::program;
use crate::{
    Place, Port, Program, Ready, Recipe,
    certificates::{Authority, Subject, write_private},
};

/// A MinIO with one user, who may do everything. Ports: `s3`, `console`.
#[derive(Debug, Clone, Default)]
pub struct MinIo {
    buckets: Vec<String>,
    encrypted: bool,
}

impl MinIo {
    /// The access key of the user who may do everything.
    pub const ACCESS_KEY: &str = "opsctl-root";
    /// The secret key of that user.
    pub const SECRET_KEY: &str = "not-much-of-a-secret";

    /// Has this bucket from the start.
    #[must_use]
    pub fn bucket(mut self, name: &str) -> Self {
        self.buckets.push(name.to_owned());
        self
    }

    /// Speaks TLS alone, under a certificate for 127.0.0.1 of the authority in `ca.pem` of its folder.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }
}

impl Recipe for MinIo {
    fn peer(&self) -> &'static str {
        "minio"
    }

    fn ports(&self) -> &'static [Port] {
        const { &[Port::http("s3"), Port::http("console")] }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let data = place.make_folder("data")?;
        for bucket in &self.buckets {
            // What lies beside its own folder is a bucket to it.
            std::fs::create_dir_all(data.join(bucket))?;
        }
        let certificates = place.make_folder("certificates")?;
        if self.encrypted {
            let authority = Authority::new("MinIO")?;
            let server = Subject {
                name: "minio",
                hosts: &["127.0.0.1"],
                ..Subject::default()
            };
            let server = authority.sign(server)?;
            write_private(&certificates.join("public.crt"), &server.certificate)?;
            write_private(&certificates.join("private.key"), &server.key)?;
            place.write("ca.pem", &authority.certificate())?;
            // It asks nobody for one; who looks whether it is ready has one.
            let client = authority.sign(Subject::default())?;
            place.write("client.pem", &client.certificate)?;
            place.write("client.key", &client.key)?;
        }
        let [s3, console] = ["s3", "console"].map(|port| place.address(port).to_string());
        let program = Program::new(program("minio")?)
            .env("HOME", place.folder())
            .env("MINIO_ROOT_USER", Self::ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", Self::SECRET_KEY)
            .env("MINIO_BROWSER", "off")
            // Else it refuses folders on the disk of the system.
            .env("MINIO_CI_CD", "1")
            .args(["server", "--quiet", "--address", &s3, "--console-address", &console])
            .arg("--certs-dir")
            .arg(certificates)
            .arg(data);
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        let (port, path) = ("s3", "/minio/health/ready");
        if self.encrypted {
            Ready::Https { port, path }
        } else {
            Ready::Http { port, path }
        }
    }
}
