//! Rust code from the `.proto` files of the reference services, checked in so that building them needs no generator.
//! It neither decides what the messages are (the `.proto` files do) nor touches any other generated file.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use prost_types::FileDescriptorSet;

/// What every generated file starts with.
const HEADER: &str = "//! Generated from `{proto}` by `cargo xtask codegen`; change that file, not this one.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    reason = \"the generator writes no documentation for its clients and servers, and follows its own style\"
)]

";

/// The packages, as `name` in `opsctl.<name>.v1`.
const PACKAGES: [&str; 3] = ["notifications", "orders", "payments"];

/// Generates `services/proto/src/<name>/v1.rs` from `services/proto/opsctl/<name>/v1/<name>.proto`, for every package.
///
/// With `check`, nothing is written: it is an error when a file differs from what would be written.
pub fn write(check: bool) -> anyhow::Result<()> {
    let root = peers::workspace_root().join("services/proto");
    let mut stale = Vec::new();
    for name in PACKAGES {
        let proto = format!("opsctl/{name}/v1/{name}.proto");
        let code = generate(&root, name, &proto)?;
        let path = root.join(format!("src/{name}/v1.rs"));
        if fs::read_to_string(&path).is_ok_and(|old| old == code) {
            continue;
        }
        if check {
            stale.push(format!("services/proto/src/{name}/v1.rs"));
            continue;
        }
        let folder = path.parent().context("a generated file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&path, code).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(
        stale.is_empty(),
        "{} differ from their .proto files: run `cargo xtask codegen`",
        stale.join(", ")
    );
    Ok(())
}

/// The Rust code of one `.proto` file, formatted as `cargo fmt` would.
fn generate(root: &Path, name: &str, proto: &str) -> anyhow::Result<String> {
    let descriptors = protox::compile([proto], [root]).with_context(|| format!("{proto} is not valid"))?;
    let methods = methods(&descriptors, proto);
    let out = Scratch::new(name)?;
    tonic_prost_build::configure()
        .out_dir(&out.0)
        .compile_fds(descriptors)
        .with_context(|| format!("cannot generate code for {proto}"))?;
    let file = out.0.join(format!("opsctl.{name}.v1.rs"));
    let code = fs::read_to_string(&file).with_context(|| format!("{proto} gave no package opsctl.{name}.v1"))?;
    format(root, &(HEADER.replace("{proto}", proto) + &code + &methods))
}

/// The names and kinds of the methods of a file's services, which the generated servers do not tell.
fn methods(descriptors: &FileDescriptorSet, proto: &str) -> String {
    let mut code = String::new();
    for file in descriptors.file.iter().filter(|file| file.name() == proto) {
        for service in &file.service {
            let methods = service.method.iter().map(|method| {
                let (many, answers) = (method.client_streaming(), method.server_streaming());
                format!("(\"{}\", {many}, {answers}),", method.name())
            });
            // Writing to a string cannot fail.
            let _ = write!(
                code,
                "\n/// The methods of `{}.{name}`, and whether the caller and the server send many messages.
                pub const {}_METHODS: &[(&str, bool, bool)] = &[{}];\n",
                file.package(),
                service.name().to_uppercase(),
                methods.collect::<String>(),
                name = service.name(),
            );
        }
    }
    code
}

/// Runs the toolchain's `rustfmt` over `code`, with the settings that hold in `root`.
fn format(root: &Path, code: &str) -> anyhow::Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt, which formats what was generated")?;
    let mut stdin = child.stdin.take().context("rustfmt was started with a pipe")?;
    let text = code.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().context("rustfmt did not end well")?;
    if let Ok(Err(error)) = writer.join() {
        return Err(error).context("rustfmt did not read what was generated");
    }
    if !output.status.success() {
        bail!("rustfmt refused what was generated ({})", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A folder for the generator's output, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("opsctl-codegen-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind at worst: a few generated files in the system's temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
