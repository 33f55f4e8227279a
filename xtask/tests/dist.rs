//! `cargo xtask dist`: what it writes, held against a small program of this test's own, so that it takes seconds. The
//! real programs go the same way when a cluster is started.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::{Command, Output},
    thread,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const STATIC: &[&str] = &["-C", "target-feature=+crt-static"];

/// Prints the addresses of a name.
const PROGRAM: &str = r#"
use std::net::ToSocketAddrs as _;
fn main() {
    let name = std::env::args().nth(1).expect("a name");
    for address in (name.as_str(), 80).to_socket_addrs().expect("an address") {
        println!("{}", address.ip());
    }
}
"#;

/// Builds the program as `name` in `folder`.
fn program(folder: &Path, name: &str, flags: &[&str]) {
    let source = folder.join("program.rs");
    fs::write(&source, PROGRAM).unwrap();
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--edition=2024", "--target=x86_64-unknown-linux-gnu"])
        .args(flags);
    succeeds(rustc.arg(source).arg("-o").arg(folder.join(name)));
}

fn dist(from: &Path, out: &Path, arguments: &[&str]) -> Command {
    let mut task = Command::new(env!("CARGO_BIN_EXE_xtask"));
    task.arg("dist")
        .arg("--from")
        .arg(from)
        .arg("--out")
        .arg(out)
        .args(arguments);
    task
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn refuses(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What an image file holds, by path.
fn layout(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(file).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(path, bytes);
    }
    files
}

/// The blob that a descriptor names; its digest and size must be those that it says.
fn blob<'a>(layout: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = &layout[&format!("blobs/sha256/{digest}")];
    assert_eq!(hex::encode(Sha256::digest(bytes)), digest);
    assert_eq!(json!(bytes.len()), descriptor["size"]);
    bytes
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Manifest, configuration and only layer of an image.
fn image(file: &Path) -> (Value, Value, Vec<u8>) {
    let layout = layout(file);
    let index = parsed(&layout["index.json"]);
    let manifest = parsed(blob(&layout, &index["manifests"][0]));
    let configuration = parsed(blob(&layout, &manifest["config"]));
    let layer = blob(&layout, &manifest["layers"][0]).to_vec();
    (index, configuration, layer)
}

#[test]
fn programs_become_images_checksums_and_a_summary_and_the_same_ones_every_time() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "orders", STATIC);
    program(folder.path(), "opsctl", STATIC);
    let make = |name: &str| {
        let out = folder.path().join(name);
        let arguments = [
            "orders",
            "opsctl",
            "--tag=v2",
            "--variant=bad=errors=5%,latency=50ms",
            "--json",
        ];
        let summary = succeeds(&mut dist(folder.path(), &out, &arguments));
        (out, parsed(summary.as_bytes()))
    };
    let (out, summary) = make("one");
    assert_eq!(summary["schema"], "opsctl.dist/v1");
    let files: BTreeSet<String> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = [
        "SHA256SUMS",
        "opsctl",
        "opsctl.oci.tar",
        "opsctl.spdx.json",
        "orders",
        "orders-bad.oci.tar",
        "orders.oci.tar",
        "orders.spdx.json",
    ];
    assert!(files.iter().eq(expected), "{files:?}");
    succeeds(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(&out),
    );
    assert_eq!(
        fs::read_to_string(out.join("SHA256SUMS")).unwrap().lines().count(),
        files.len() - 1
    );

    let orders = summary["programs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|program| program["name"] == "orders")
        .unwrap();
    let images = orders["images"].as_array().unwrap();
    let names: Vec<&Value> = images.iter().map(|image| &image["name"]).collect();
    assert_eq!(names, ["docker.io/opsctl/orders:v2", "docker.io/opsctl/orders:v2-bad"]);
    assert_eq!(
        (&images[0]["fault"], &images[1]["fault"]),
        (&Value::Null, &json!("errors=5%,latency=50ms"))
    );

    let (index, good, layer) = image(&out.join("orders.oci.tar"));
    assert_eq!(
        index["manifests"][0]["annotations"]["io.containerd.image.name"],
        names[0].clone()
    );
    assert_eq!(index["manifests"][0]["digest"], images[0]["digest"]);
    assert_eq!(good["config"]["User"], "65532:65532");
    assert_eq!(good["config"]["Entrypoint"], json!(["/orders"]));
    assert_eq!(good["config"]["Env"], json!(["DATA_DIR=/data", "SERVICE_VERSION=v2"]));
    for (label, value) in [("title", "orders"), ("version", "v2"), ("licenses", "Apache-2.0")] {
        assert_eq!(
            good["config"]["Labels"][format!("org.opencontainers.image.{label}")],
            value
        );
    }
    let (_, bad, layer_of_bad) = image(&out.join("orders-bad.oci.tar"));
    let variables = json!([
        "DATA_DIR=/data",
        "SERVICE_VERSION=v2-bad",
        "SERVICE_FAULT=errors=5%,latency=50ms"
    ]);
    assert_eq!(bad["config"]["Env"], variables);
    assert!(layer == layer_of_bad, "a cluster would keep the program twice");
    let (_, tool, _) = image(&out.join("opsctl.oci.tar"));
    assert_eq!(tool["config"]["Entrypoint"], json!(["/opsctl"]));

    let root = folder.path().join("root");
    tar::Archive::new(layer.as_slice()).unpack(&root).unwrap();
    assert_eq!(
        fs::read(root.join("orders")).unwrap(),
        fs::read(out.join("orders")).unwrap()
    );
    let certificates = fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(certificates.matches("-----BEGIN CERTIFICATE-----").count() > 100);

    let (again, _) = make("two");
    for file in files {
        assert!(
            fs::read(out.join(&file)).unwrap() == fs::read(again.join(&file)).unwrap(),
            "{file} differs"
        );
    }
}

#[test]
fn the_bill_of_materials_names_what_is_linked_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    program(folder.path(), "payments", STATIC);
    succeeds(&mut dist(folder.path(), &out, &["payments"]));
    let document = parsed(&fs::read(out.join("payments.spdx.json")).unwrap());
    for (field, value) in [
        ("spdxVersion", "SPDX-2.3"),
        ("dataLicense", "CC0-1.0"),
        ("SPDXID", "SPDXRef-DOCUMENT"),
    ] {
        assert_eq!(document[field], value);
    }
    assert!(document["documentNamespace"].as_str().unwrap().starts_with("https://"));
    assert!(document["creationInfo"]["created"].as_str().unwrap().ends_with('Z'));
    assert!(
        document["creationInfo"]["creators"][0]
            .as_str()
            .unwrap()
            .starts_with("Tool: ")
    );

    let locked: toml::Table = fs::read_to_string(peers::workspace_root().join("Cargo.lock"))
        .unwrap()
        .parse()
        .unwrap();
    let locked = locked["package"].as_array().unwrap();
    let packages = document["packages"].as_array().unwrap();
    let mut by_id = BTreeMap::new();
    for package in packages {
        let text = |field: &str| {
            package[field]
                .as_str()
                .unwrap_or_else(|| panic!("{package} has no {field}"))
        };
        assert!(
            by_id.insert(text("SPDXID"), text("name")).is_none(),
            "{package} is there twice"
        );
        assert_ne!(text("licenseDeclared"), "NOASSERTION", "{package}");
        assert!(!text("licenseDeclared").contains('/'), "{package}");
        assert!(
            package["externalRefs"][0]["referenceLocator"]
                .as_str()
                .unwrap()
                .starts_with("pkg:")
        );
        assert_eq!(package["filesAnalyzed"], false);
        let same = |row: &&toml::Value| {
            row["name"].as_str() == Some(text("name")) && row["version"].as_str() == Some(text("versionInfo"))
        };
        let checksum = locked
            .iter()
            .find(same)
            .and_then(|row| row.get("checksum"))
            .and_then(toml::Value::as_str);
        if let Some(checksum) = checksum {
            assert_eq!(
                package["checksums"],
                json!([{ "algorithm": "SHA256", "checksumValue": checksum }])
            );
            assert!(text("downloadLocation").starts_with("https://"));
        }
    }
    let program = hex::encode(Sha256::digest(fs::read(out.join("payments")).unwrap()));
    assert_eq!(packages[0]["checksums"][0]["checksumValue"], program);

    let mut related = BTreeSet::from(["SPDXRef-DOCUMENT"]);
    let mut of_build = BTreeSet::new();
    for relation in document["relationships"].as_array().unwrap() {
        let (one, other) = (&relation["spdxElementId"], &relation["relatedSpdxElement"]);
        related.extend([one.as_str().unwrap(), other.as_str().unwrap()]);
        if relation["relationshipType"] == "BUILD_DEPENDENCY_OF" {
            of_build.insert(by_id[one.as_str().unwrap()]);
        }
    }
    let known: BTreeSet<&str> = by_id.keys().copied().chain(["SPDXRef-DOCUMENT"]).collect();
    assert_eq!(
        related, known,
        "every part hangs together with the others, and there is no other"
    );

    let names: BTreeSet<&str> = by_id.values().copied().collect();
    for part in ["payments", "tokio", "libsqlite3-sys", "resilience", "glibc", "rust-std"] {
        assert!(names.contains(part) && !of_build.contains(part), "{part} is linked");
    }
    for part in ["serde_derive", "cc"] {
        assert!(of_build.contains(part), "{part} only takes part in the build");
    }
    for part in ["clap_mangen", "restic", "insta", "tempfile", "xtask"] {
        assert!(!names.contains(part), "{part} is another program's, or a test's");
    }
}

#[test]
fn what_would_not_start_in_an_empty_root_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = |arguments: &[&str]| refuses(&mut dist(folder.path(), &out, arguments));
    let missing = refused(&["payments"]);
    assert!(
        missing.contains("could not read") && missing.contains("payments"),
        "{missing}"
    );
    program(folder.path(), "payments", &["-C", "target-feature=-crt-static"]);
    let dynamic = refused(&["payments"]);
    assert!(
        dynamic.contains("it is not static: it needs /lib64/ld-linux-x86-64.so.2"),
        "{dynamic}"
    );
    fs::write(folder.path().join("payments"), "#!/bin/sh\n").unwrap();
    let script = refused(&["payments"]);
    assert!(script.contains("it is not an ELF file"), "{script}");
    assert!(!out.join("SHA256SUMS").exists() && !out.join("payments").exists());
    let certificates = folder.path().join("none.pem");
    let option = format!("--certificates={}", certificates.display());
    assert!(refused(&[&option]).contains("none.pem"));
    fs::write(&certificates, "nothing").unwrap();
    assert!(refused(&[&option]).contains("holds no certificate"));
}

#[test]
fn names_are_looked_up_in_the_root_of_an_image() {
    let test = "names_are_looked_up_in_the_root_of_an_image";
    let Some((server, address)) = name_server() else {
        peers::skip(test, "only root may serve names and change the root directory");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    program(folder.path(), "payments", STATIC);
    succeeds(&mut dist(folder.path(), &out, &["payments"]));
    let root = folder.path().join("root");
    let (_, _, layer) = image(&out.join("payments.oci.tar"));
    tar::Archive::new(layer.as_slice()).unpack(&root).unwrap();
    // Whoever runs a container puts these two into it.
    fs::write(
        root.join("etc/resolv.conf"),
        format!("nameserver {address}\noptions attempts:1 timeout:5\n"),
    )
    .unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n10.1.2.3 by-file\n").unwrap();
    let look_up = |name: &str| {
        let mut program = Command::new("chroot");
        program
            .arg("--userspec=65532:65532")
            .arg(&root)
            .args(["/payments", name]);
        succeeds(program.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    };
    // A temporary folder is its maker's alone; the program runs as somebody else.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let answering = thread::spawn(move || answer_one_name(&server));
    assert_eq!(look_up("by-dns.shop.svc"), "10.96.0.7\n");
    answering.join().unwrap();
    assert_eq!(look_up("by-file"), "10.1.2.3\n");
    assert!(look_up("localhost").contains("127.0.0.1\n"));
}

/// A socket on the port of name servers: `resolv.conf` knows no other. Nobody else is on this address.
fn name_server() -> Option<(UdpSocket, Ipv4Addr)> {
    let id = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 64 | (id[1] & 63), id[2], id[3].clamp(1, 254));
    let server = UdpSocket::bind((address, 53)).ok()?;
    server
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    Some((server, address))
}

/// Answers the two questions that belong to one name: an IPv4 address there is, an IPv6 address there is not.
fn answer_one_name(server: &UdpSocket) {
    for _ in 0..2 {
        let mut question = [0; 512];
        let (length, from) = server.recv_from(&mut question).expect("a question");
        // After the header of 12 bytes the name ends with a zero; a type and a class follow. What comes then is optional.
        let name = question[12..length].iter().position(|byte| *byte == 0).expect("a name");
        let end = 12 + name + 5;
        let of_ipv4 = question[end - 4..end - 2] == [0, 1];
        let mut answer = question[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(of_ipv4), 0, 0, 0, 0]);
        if of_ipv4 {
            // The same name, type A, class IN, for a minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 96, 0, 7]);
        }
        server.send_to(&answer, from).expect("an answer");
    }
}
