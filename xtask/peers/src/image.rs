//! Container images without Docker: an OCI image layout in one tar, as `ctr images import`, `docker load`, `podman load`
//! and `skopeo copy oci-archive:…` take it. The same contents give the same bytes, wherever and whenever they are made.
//! It copies no base image: what is not put in is not there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header, HeaderMode};

/// Where a client looks for the certificates that it trusts, here and in the image.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The time of every file. Another one would be another image.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// What an image is made of.
#[derive(Debug, Clone, Default)]
pub struct Image {
    name: String,
    entries: BTreeMap<PathBuf, Entry>,
    entrypoint: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<String>,
    folder: Option<String>,
    ports: Vec<u16>,
    user: u32,
    labels: BTreeMap<String, String>,
}

/// One path of the image.
#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Folder,
    Copy(PathBuf),
    Text(String),
    Link(PathBuf),
}

impl Image {
    /// An empty image called `name`, such as `opsctl/orders:1`. It runs as root until [`user`](Self::user) says otherwise.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// With a copy of the file `from` of this machine at `to`.
    #[must_use]
    pub fn file(self, from: impl Into<PathBuf>, to: &str, mode: u32) -> Self {
        self.entry(to, mode, Content::Copy(from.into()))
    }

    /// With a file that holds `text`.
    #[must_use]
    pub fn text(self, to: &str, text: impl Into<String>, mode: u32) -> Self {
        self.entry(to, mode, Content::Text(text.into()))
    }

    /// With an empty folder. Those that lead to other entries need not be named.
    #[must_use]
    pub fn folder(self, to: &str, mode: u32) -> Self {
        self.entry(to, mode, Content::Folder)
    }

    /// With a symbolic link at `to`.
    #[must_use]
    pub fn link(self, to: &str, target: impl Into<PathBuf>) -> Self {
        self.entry(to, 0o777, Content::Link(target.into()))
    }

    /// With a copy of the folder `from` of this machine and all that is in it; what is executable stays so.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tree(mut self, from: &Path, to: &str) -> io::Result<Self> {
        self = self.folder(to, 0o755);
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let place = format!("{to}/{}", path.file_name().unwrap_or_default().display());
            let kind = fs::symlink_metadata(&path)?;
            self = if kind.is_dir() {
                self.tree(&path, &place)?
            } else if kind.is_symlink() {
                self.link(&place, fs::read_link(&path)?)
            } else {
                let mode = if executable(&kind) { 0o755 } else { 0o644 };
                self.file(path, &place, mode)
            };
        }
        Ok(self)
    }

    /// With what nearly every program looks for: `/tmp`, the certificates that this machine trusts, and the users root and
    /// `name`. The latter has the number that [`user`](Self::user) gave before.
    #[must_use]
    pub fn usual(self, name: &str) -> Self {
        let (user, group) = match self.user {
            0 => (String::new(), String::new()),
            user => (
                format!("{name}:x:{user}:{user}:{name}:/:/sbin/nologin\n"),
                format!("{name}:x:{user}:\n"),
            ),
        };
        self.folder("/tmp", 0o1777)
            .file(CERTIFICATES, CERTIFICATES, 0o644)
            .text("/etc/passwd", format!("root:x:0:0:root:/:/sbin/nologin\n{user}"), 0o644)
            .text("/etc/group", format!("root:x:0:\n{group}"), 0o644)
    }

    /// What is run.
    #[must_use]
    pub fn entrypoint<I: IntoIterator<Item: Into<String>>>(mut self, words: I) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// What it is run with unless the one who runs it says otherwise.
    #[must_use]
    pub fn arguments<I: IntoIterator<Item: Into<String>>>(mut self, words: I) -> Self {
        self.arguments = words.into_iter().map(Into::into).collect();
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// The folder that it is run in.
    #[must_use]
    pub fn working_folder(mut self, path: &str) -> Self {
        self.folder = Some(path.to_owned());
        self
    }

    /// A TCP port that it listens on, for people to read.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// The number of the user and of the group that it runs as.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = user;
        self
    }

    /// With a label, such as `org.opencontainers.image.version`.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The name as container runtimes keep it: with registry and tag.
    pub fn full_name(&self) -> String {
        let name = &self.name;
        let registry = name.split_once('/').map(|(first, _)| first);
        let name = match registry {
            Some(first) if first.contains(['.', ':']) || first == "localhost" => name.clone(),
            Some(_) => format!("docker.io/{name}"),
            None => format!("docker.io/library/{name}"),
        };
        let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if tagged { name } else { format!("{name}:latest") }
    }

    /// Writes the image to the file `path`, as a whole or not at all, and returns its digest: `sha256:` and the number in
    /// hexadecimal digits.
    ///
    /// # Errors
    /// When a file that goes into it cannot be read, or the image cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<String> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut layer = Blob::layer(self, folder)?;
        let config = Blob::json(&self.configuration(&layer));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
            "annotations": self.labels,
        });
        let manifest = Blob::json(&manifest);
        let file = tempfile::NamedTempFile::new_in(folder)?;
        let mut layout = Builder::new(io::BufWriter::new(file));
        append(&mut layout, "blobs/", 0o755, EntryType::Directory, 0, io::empty())?;
        append(
            &mut layout,
            "blobs/sha256/",
            0o755,
            EntryType::Directory,
            0,
            io::empty(),
        )?;
        let (index, legacy) = (self.index(&manifest), self.legacy(&config, &layer));
        let digest = format!("sha256:{}", manifest.digest);
        for blob in [config, manifest] {
            blob.append_to(&mut layout)?;
        }
        layer.content.rewind()?;
        layer.append_to(&mut layout)?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        for (name, value) in [
            ("index.json", index),
            ("manifest.json", legacy),
            ("oci-layout", version),
        ] {
            let text = value.to_string();
            append(
                &mut layout,
                name,
                0o644,
                EntryType::Regular,
                text.len() as u64,
                text.as_bytes(),
            )?;
        }
        let file = layout
            .into_inner()?
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        // Who made it decides who reads it, as with any other file; a temporary one is its maker's alone.
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(digest)
    }

    fn entry(mut self, to: &str, mode: u32, content: Content) -> Self {
        let path = PathBuf::from(to.trim_matches('/'));
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            let folder = Entry {
                mode: 0o755,
                content: Content::Folder,
            };
            self.entries.entry(parent.to_owned()).or_insert(folder);
        }
        self.entries.insert(path, Entry { mode, content });
        self
    }

    fn configuration(&self, layer: &Blob<File>) -> Value {
        let ports: serde_json::Map<_, _> = self
            .ports
            .iter()
            .map(|port| (format!("{port}/tcp"), json!({})))
            .collect();
        json!({
            "created": EPOCH,
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{0}:{0}", self.user),
                "ExposedPorts": ports,
                "Env": self.environment,
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "WorkingDir": self.folder.as_deref().unwrap_or("/"),
                "Labels": self.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
            "history": [{ "created": EPOCH, "created_by": "opsctl" }],
        })
    }

    fn index(&self, manifest: &Blob<io::Cursor<Vec<u8>>>) -> Value {
        let name = self.full_name();
        let tag = name.rsplit(':').next();
        let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        })
    }

    /// What a Docker before version 25 reads instead of the index.
    fn legacy(&self, config: &Blob<io::Cursor<Vec<u8>>>, layer: &Blob<File>) -> Value {
        json!([{ "Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()] }])
    }
}

/// Bytes that are called by their digest.
struct Blob<R> {
    digest: String,
    size: u64,
    content: R,
}

impl Blob<io::Cursor<Vec<u8>>> {
    fn json(value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        Self {
            digest: hex::encode(Sha256::digest(&bytes)),
            size: bytes.len() as u64,
            content: io::Cursor::new(bytes),
        }
    }
}

impl Blob<File> {
    /// All entries of the image, in a file without a name.
    fn layer(image: &Image, folder: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        let mut layer = Builder::new(Hashing {
            inner: io::BufWriter::new(file),
            digest: Sha256::new(),
            size: 0,
        });
        for (path, entry) in &image.entries {
            let path = path.to_string_lossy();
            let (mode, none) = (entry.mode, io::empty());
            match &entry.content {
                Content::Folder => append(&mut layer, &format!("{path}/"), mode, EntryType::Directory, 0, none)?,
                Content::Text(text) => {
                    let size = text.len() as u64;
                    append(&mut layer, &path, mode, EntryType::Regular, size, text.as_bytes())?;
                }
                Content::Copy(from) => {
                    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
                    let file = File::open(from).map_err(named)?;
                    let size = file.metadata()?.len();
                    append(&mut layer, &path, mode, EntryType::Regular, size, file)?;
                }
                Content::Link(target) => {
                    let mut header = header(mode, EntryType::Symlink, 0);
                    layer.append_link(&mut header, path.as_ref(), target)?;
                }
            }
        }
        let hashed = layer.into_inner()?;
        Ok(Self {
            digest: hex::encode(hashed.digest.finalize()),
            size: hashed.size,
            content: hashed.inner.into_inner().map_err(io::IntoInnerError::into_error)?,
        })
    }
}

impl<R: Read> Blob<R> {
    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.size })
    }

    fn append_to(self, layout: &mut Builder<impl Write>) -> io::Result<()> {
        append(layout, &self.path(), 0o644, EntryType::Regular, self.size, self.content)
    }
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    inner: W,
    digest: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn header(mode: u32, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    mode: u32,
    kind: EntryType,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    tar.mode(HeaderMode::Deterministic);
    tar.append_data(&mut header(mode, kind, size), path, content)
}

fn executable(kind: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&kind.permissions()) & 0o111 != 0
}

/// This machine's architecture, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
