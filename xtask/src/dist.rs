//! `cargo xtask dist`: what is shipped. Programs that need nothing of the machine they run on, a container image of each,
//! what each is made of, and the checksums of all these files. The same programs make the same files, byte for byte.

mod build;
mod elf;
mod image;
mod sbom;
mod source;

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::step;
use build::{Built, PROGRAMS, TARGET};
use image::{Naming, Variant};
use sbom::Inventory;
use source::Source;

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which programs; all without a name
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(PROGRAMS))]
    names: Vec<String>,
    /// The folder that everything is written to [default: `packages` in the target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Cargo's profile: `dist` for what is shipped, `image` for what only a cluster of tests sees
    #[arg(long, default_value = "dist", value_parser = ["dist", "release", "image", "dev"])]
    profile: String,
    /// Take the programs that lie in this folder instead of building them
    #[arg(long, value_name = "DIR", conflicts_with = "profile")]
    from: Option<PathBuf>,
    #[command(flatten)]
    naming: Naming,
    /// One more image of every service, which behaves badly: `slow=latency=300ms`, `bad=errors=5%`. Its tag ends with
    /// `-slow`. A fault that no service understands makes a container that ends at once; none, a version as good as the first
    #[arg(long, value_name = "NAME=FAULT")]
    variant: Vec<Variant>,
    /// The certificates that programs trust, as PEM [default: Mozilla's, of the version in Cargo.lock]
    #[arg(long, value_name = "FILE")]
    certificates: Option<PathBuf>,
    /// Say what was made as one JSON document
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What a cluster of tests wants: every image soon, and of the services a good, a failing and a slow version.
    pub fn for_tests(folder: PathBuf) -> Self {
        Self {
            names: Vec::new(),
            out: Some(folder),
            profile: "image".to_owned(),
            from: None,
            naming: Naming::tagged("v1"),
            variant: vec![
                Variant::new("next", ""),
                Variant::new("bad", "errors=5%"),
                Variant::new("slow", "latency=400ms"),
            ],
            certificates: None,
            json: false,
        }
    }
}

/// Makes what was asked for.
///
/// # Errors
/// When a program does not build or is not static, or a file cannot be read or written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let named = |program: &&str| arguments.names.is_empty() || arguments.names.iter().any(|name| name == program);
    let names: Vec<&str> = PROGRAMS.into_iter().filter(named).collect();
    let certificates = image::certificates(arguments.certificates.as_deref())?;
    let source = Source::read()?;
    let inventory = Inventory::read()?;
    let built = if let Some(folder) = arguments.from.clone() {
        Built { folder, profile: None }
    } else {
        eprintln!("building {} with profile {}", names.join(", "), arguments.profile);
        build::programs(&names, &arguments.profile)?
    };
    let folder = arguments.out.clone().unwrap_or_else(|| step::target().join("packages"));
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let mut out = Out {
        folder: fs::canonicalize(folder)?,
        sums: String::new(),
    };
    let mut programs = Vec::new();
    for name in names {
        let file = built.folder.join(name);
        let bytes = fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
        elf::require_static(&bytes).with_context(|| format!("{} cannot be shipped", file.display()))?;
        let sha256 = out.write(name, &bytes, 0o755)?;
        let document = inventory.document(name, &sha256, &source)?;
        let sbom = format!("{name}.spdx.json");
        out.write(&sbom, format!("{document:#}\n").as_bytes(), 0o644)?;
        eprintln!(
            "{name}: {:.1} MiB, {} parts",
            bytes.len() as f64 / f64::from(1 << 20),
            parts(&document)
        );
        let about = image::About {
            program: name,
            description: inventory.description(name)?,
            sha256: &sha256,
            revision: source.revision.as_deref(),
            certificates: &certificates,
        };
        let images = about.images(&arguments.naming, &arguments.variant);
        let images: Result<Vec<Value>> = images.into_iter().map(|image| out.image(&image)).collect();
        programs.push(json!({
            "name": name,
            "file": out.folder.join(name),
            "bytes": bytes.len(),
            "sha256": sha256,
            "sbom": out.folder.join(sbom),
            "images": images?,
        }));
    }
    let sums = out.folder.join("SHA256SUMS");
    fs::write(&sums, &out.sums)?;
    if arguments.json {
        let summary = json!({
            "schema": "opsctl.dist/v1",
            "target": TARGET,
            "profile": built.profile,
            "revision": source.revision,
            "folder": out.folder,
            "checksums": sums,
            "programs": programs,
        });
        println!("{summary:#}");
    } else {
        println!("{}", out.folder.display());
    }
    Ok(())
}

/// The folder that everything goes to, and the checksums of what is there so far.
struct Out {
    folder: PathBuf,
    sums: String,
}

impl Out {
    /// Writes a file, as a whole or not at all, and returns its SHA-256.
    fn write(&mut self, name: &str, bytes: &[u8], mode: u32) -> Result<String> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
        let path = self.folder.join(name);
        file.persist(&path)
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(self.sum(name, bytes))
    }

    fn image(&mut self, image: &image::Named) -> Result<Value> {
        let path = self.folder.join(&image.file);
        let program = self.folder.join(image.program);
        let digest = image
            .image
            .clone()
            .file(program, &format!("/{}", image.program), 0o755)
            .write(&path);
        let digest = digest.with_context(|| format!("could not write {}", path.display()))?;
        self.sum(&image.file, &fs::read(&path)?);
        let name = image.image.full_name();
        eprintln!("  {name} {digest}");
        Ok(json!({ "name": name, "file": path, "digest": digest, "fault": image.fault }))
    }

    /// Notes a file's checksum, as `sha256sum --check` reads it.
    fn sum(&mut self, name: &str, bytes: &[u8]) -> String {
        let sha256 = hex::encode(Sha256::digest(bytes));
        self.sums.extend([&sha256, "  ", name, "\n"]);
        sha256
    }
}

fn parts(document: &Value) -> usize {
    document["packages"].as_array().map_or(0, Vec::len)
}
