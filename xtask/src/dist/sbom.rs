//! What a program is made of, as an SPDX 2.3 document: the crates linked into it, what they depend on, their licences and
//! checksums, the standard library and the C library, and apart from those what only took part in the build.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{build::PROGRAMS, build::TARGET, source::Source};
use crate::step;

/// A crate: its name and version. One version never comes from two places here (`deny.toml`).
type Crate = (String, String);

/// Which crate asks for which.
type Graph = BTreeMap<Crate, BTreeSet<Crate>>;

/// All that the documents of a workspace's programs are made from.
pub struct Inventory {
    /// What is linked.
    linked: Graph,
    /// That, and what macros and build scripts are made of.
    all: Graph,
    about: BTreeMap<Crate, About>,
    /// Name, version and licence of what no manifest names.
    libraries: [(&'static str, String, &'static str); 2],
}

/// What `cargo metadata` says of a crate.
#[derive(Deserialize)]
struct About {
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    #[serde(skip)]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<About>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

/// What Cargo.lock says of a crate.
#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Inventory {
    /// Asks cargo and the compiler.
    ///
    /// # Errors
    /// When either fails, or Cargo.lock is stale.
    pub fn read() -> Result<Self> {
        let mut metadata = step::cargo([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
            TARGET,
        ]);
        let metadata: Metadata = serde_json::from_str(&step::output(&mut metadata)?)?;
        let key = |name: &String, version: &String| (name.clone(), version.clone());
        let mut about: BTreeMap<Crate, About> = metadata
            .packages
            .into_iter()
            .map(|found| (key(&found.name, &found.version), found))
            .collect();
        let lock = std::fs::read_to_string(peers::workspace_root().join("Cargo.lock"))?;
        let lock: Lock = toml::from_str(&lock).context("Cargo.lock is not as expected")?;
        for locked in lock.package {
            if let Some(found) = about.get_mut(&key(&locked.name, &locked.version)) {
                found.checksum = locked.checksum;
            }
        }
        Ok(Self {
            linked: graph("normal,no-proc-macro")?,
            all: graph("normal,build")?,
            about,
            libraries: [
                ("rust-std", rust_version()?, "MIT OR Apache-2.0"),
                ("glibc", c_library_version()?, "LGPL-2.1-or-later"),
            ],
        })
    }

    /// What `program` says of itself, for those who look at its image.
    ///
    /// # Errors
    /// When no package is called so.
    pub fn description(&self, program: &str) -> Result<&str> {
        let (_, about) = self.root(program)?;
        Ok(about.description.as_deref().unwrap_or_default())
    }

    /// The document of `program`, whose bytes have this SHA-256.
    ///
    /// # Errors
    /// When cargo's answers contradict each other.
    pub fn document(&self, program: &str, sha256: &str, source: &Source) -> Result<Value> {
        let (root, _) = self.root(program)?;
        let linked = reach(&self.linked, root);
        let all = reach(&self.all, root);
        let mut packages = vec![self.package(root, Some(sha256))?];
        let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &id(root))];
        for member in all.iter().filter(|member| *member != root) {
            packages.push(self.package(member, None)?);
            if !linked.contains(member) {
                relations.push(relation(&id(member), "BUILD_DEPENDENCY_OF", &id(root)));
            }
        }
        for member in &linked {
            for needed in self.linked.get(member).into_iter().flatten() {
                relations.push(relation(&id(member), "DEPENDS_ON", &id(needed)));
            }
        }
        for (name, version, licence) in &self.libraries {
            let library = (String::from(*name), version.clone());
            packages.push(package(&library, licence, &format!("pkg:generic/{name}@{version}")));
            relations.push(relation(&id(root), "STATIC_LINK", &id(&library)));
        }
        Ok(json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": program,
            // One namespace for one file: it holds what the file is.
            "documentNamespace": format!("https://opsctl.dev/spdx/{program}-{sha256}"),
            "creationInfo": { "created": source.time()?, "creators": ["Tool: cargo-xtask-dist"] },
            "packages": packages,
            "relationships": relations,
        }))
    }

    fn root(&self, program: &str) -> Result<(&Crate, &About)> {
        // Somebody else's crate may have the name of ours.
        let mut ours = self.about.iter().filter(|(_, about)| about.source.is_none());
        let root = ours.find(|(found, _)| found.0 == program);
        root.with_context(|| format!("no package of ours is called {program}"))
    }

    /// One crate. `program`: the checksum of what was built from it.
    fn package(&self, member: &Crate, program: Option<&str>) -> Result<Value> {
        let about = self.about.get(member);
        let about = about.with_context(|| format!("cargo does not know {} {}", member.0, member.1))?;
        let licence = about.license.as_deref().map(expression);
        let licence = licence.unwrap_or_else(|| NO_ASSERTION.to_owned());
        let (name, version) = member;
        let mut found = package(member, &licence, &format!("pkg:cargo/{name}@{version}"));
        if let Some(checksum) = &about.checksum {
            found["downloadLocation"] = json!(format!("https://crates.io/api/v1/crates/{name}/{version}/download"));
            found["checksums"] = checksums(checksum);
        }
        if let Some(repository) = &about.repository {
            found["homepage"] = json!(repository);
        }
        if let Some(sha256) = program {
            found["primaryPackagePurpose"] = json!("APPLICATION");
            found["packageFileName"] = json!(name);
            found["checksums"] = checksums(sha256);
        }
        Ok(found)
    }
}

const NO_ASSERTION: &str = "NOASSERTION";

fn package(member: &Crate, licence: &str, address: &str) -> Value {
    json!({
        "SPDXID": id(member),
        "name": member.0,
        "versionInfo": member.1,
        "supplier": NO_ASSERTION,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": false,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": licence,
        "copyrightText": NO_ASSERTION,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": address,
        }],
    })
}

fn checksums(sha256: &str) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": sha256 }])
}

fn relation(one: &str, kind: &str, other: &str) -> Value {
    json!({ "spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other })
}

/// An identifier may hold letters, digits, dots and dashes.
fn id((name, version): &Crate) -> String {
    let allowed = |found: char| found.is_ascii_alphanumeric() || found == '.';
    let text = format!("{name}-{version}");
    let text: String = text
        .chars()
        .map(|found| if allowed(found) { found } else { '-' })
        .collect();
    format!("SPDXRef-{text}")
}

/// Old manifests write `MIT/Apache-2.0` for a choice.
fn expression(licence: &str) -> String {
    let parts: Vec<&str> = licence.split('/').map(str::trim).collect();
    parts.join(" OR ")
}

/// `start` and all that it leads to.
fn reach(graph: &Graph, start: &Crate) -> BTreeSet<Crate> {
    let mut reached = BTreeSet::new();
    let mut next = vec![start];
    while let Some(member) = next.pop() {
        if reached.insert(member.clone()) {
            next.extend(graph.get(member).into_iter().flatten());
        }
    }
    reached
}

/// The crates of the programs with the features that they are built with, along edges of these kinds. `cargo metadata`
/// would add what other members of the workspace turn on, and what their tests need.
fn graph(edges: &str) -> Result<Graph> {
    let mut tree = step::cargo(["tree", "--locked", "--target", TARGET, "--edges", edges]);
    tree.args(["--prefix", "depth", "--format", " {p}"]);
    tree.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    parse(&step::output(&mut tree)?)
}

/// Reads lines such as `2 http v1.5.0 (*)`: a crate's depth, name and version. What was shown before is not unfolded
/// again, and need not be.
fn parse(tree: &str) -> Result<Graph> {
    let mut graph = Graph::new();
    let mut above: Vec<Crate> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let depth = words.next().and_then(|depth| depth.parse::<usize>().ok());
        let (Some(depth), Some(name), Some(version)) = (depth, words.next(), words.next()) else {
            anyhow::bail!("`cargo tree` wrote what is not understood: {line}");
        };
        let member = (name.to_owned(), version.trim_start_matches('v').to_owned());
        above.truncate(depth);
        if let Some(parent) = above.last() {
            graph.entry(parent.clone()).or_default().insert(member.clone());
        }
        above.push(member);
    }
    Ok(graph)
}

fn rust_version() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = step::output(Command::new(rustc).arg("--version"))?;
    Ok(said.split(' ').nth(1).unwrap_or(NO_ASSERTION).to_owned())
}

/// Of the C library that is linked in: this machine's.
fn c_library_version() -> Result<String> {
    let said = step::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    Ok(said.trim().trim_start_matches("glibc ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_a_graph_although_nothing_is_unfolded_twice() {
        let tree = "0 a v1.0.0 (/x y/a)\n1 b v2.0.0\n2 c v3.0.0\n1 d v4.0.0\n2 b v2.0.0 (*)\n\n0 d v4.0.0 (*)\n";
        let graph = parse(tree).expect("a tree");
        let member = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let reached = reach(&graph, &member("d", "4.0.0"));
        let names: Vec<&str> = reached.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "c", "d"]);
    }

    #[test]
    fn an_old_choice_of_licences_is_an_expression() {
        assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(expression("Apache-2.0 / MIT"), "Apache-2.0 OR MIT");
        assert_eq!(expression("MIT AND BSD-3-Clause"), "MIT AND BSD-3-Clause");
    }

    #[test]
    fn an_identifier_holds_what_it_may() {
        assert_eq!(id(&("a_b".into(), "1.0.0+x~1".into())), "SPDXRef-a-b-1.0.0-x-1");
    }
}
