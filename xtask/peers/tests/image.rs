//! An image is what it was told to be, and the same bytes each time.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use peers::Image;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn image(program: &Path) -> Image {
    Image::new("opsctl/orders:1")
        .user(65532)
        .usual("service")
        .file(program, "/bin/deep/orders", 0o755)
        .folder("/var/lib/orders", 0o750)
        .link("/orders", "/bin/deep/orders")
        .entrypoint(["/orders"])
        .arguments(["--help"])
        .env("HTTP_ADDR", "0.0.0.0:8080")
        .port(8080)
        .label("org.opencontainers.image.version", "1")
}

/// Every entry of a tar: its mode, its kind and its bytes.
fn entries(tar: impl Read) -> BTreeMap<String, (u32, u8, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
        let (mode, kind) = (header.mode().unwrap(), header.entry_type().as_byte());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), (mode, kind, bytes))
    });
    entries.collect()
}

#[test]
fn an_image_is_what_it_was_told_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, "the program").unwrap();
    let path = folder.path().join("images/orders.tar");
    let digest = image(&program).write(&path).unwrap();

    let layout = entries(File::open(&path).unwrap());
    for (name, (_, _, bytes)) in &layout {
        if let Some(digest) = name.strip_prefix("blobs/sha256/").filter(|digest| !digest.is_empty()) {
            assert_eq!(
                digest,
                hex::encode(Sha256::digest(bytes)),
                "blobs are called by their digest"
            );
        }
    }
    let json = |name: &str| -> Value { serde_json::from_slice(&layout[name].2).unwrap() };
    let blob = |descriptor: &Value| -> &Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let (_, _, bytes) = &layout[&format!("blobs/sha256/{digest}")];
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    };
    let index = json("index.json");
    assert_eq!(index["manifests"][0]["digest"], digest);
    assert_eq!(
        index["manifests"][0]["annotations"]["io.containerd.image.name"],
        "docker.io/opsctl/orders:1"
    );
    let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(blob(&manifest["config"])).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/orders"]));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1");
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);

    let files = entries(blob(&manifest["layers"][0]).as_slice());
    assert_eq!(files["bin/deep/orders"], (0o755, b'0', b"the program".to_vec()));
    assert_eq!(files["bin/deep/"].0, 0o755, "folders on the way are made");
    assert_eq!(files["tmp/"].0, 0o1777);
    assert_eq!(files["var/lib/orders/"].0, 0o750);
    assert_eq!(files["orders"].1, b'2', "a symbolic link");
    assert!(!files["etc/ssl/certs/ca-certificates.crt"].2.is_empty());
    let users = String::from_utf8(files["etc/passwd"].2.clone()).unwrap();
    assert!(users.contains("service:x:65532:65532:"), "{users}");
}

#[test]
fn the_same_contents_are_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let written = ["one", "other"].map(|name| {
        let program = folder.path().join(name);
        fs::write(&program, "the program").unwrap();
        let path = folder.path().join(format!("{name}.tar"));
        (image(&program).write(&path).unwrap(), fs::read(path).unwrap())
    });
    assert!(written[0] == written[1], "two images of the same contents differ");
}

#[test]
fn a_file_that_is_not_there_is_named_and_leaves_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.tar");
    let error = image(Path::new("/no/such/program")).write(&path).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_name_is_kept_with_its_registry_and_tag() {
    for (name, full) in [
        ("pause", "docker.io/library/pause:latest"),
        ("opsctl/orders:1", "docker.io/opsctl/orders:1"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost:5000/orders", "localhost:5000/orders:latest"),
    ] {
        assert_eq!(Image::new(name).full_name(), full);
    }
}
