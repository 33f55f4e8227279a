//! Makes missing peers be there: first the plan, which says names, sizes and minutes, then the plan is carried out.
//!
//! What is built appears as a whole or not at all, one process builds at a time, and a build that was killed leaves
//! nothing that the next one does not remove.

mod crates;
mod debian;
mod go;
mod maven;
mod pypi;
mod tool;

use std::{fmt, io, path::PathBuf};

use crate::{
    Origin, PEERS, Peer,
    cache::{self, BuildLock},
};

/// What is missing and will be installed. `Display` is what a person reads before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Peers that were not found.
    pub missing: Vec<Peer>,
}

/// Why peers could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no such row in the catalogue.
    #[error("`{name}` is no peer; `cargo xtask peers list` names them")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A tool could not be started.
    #[error("could not start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A tool failed.
    #[error("`{command}` ended with {status}; it said last:\n{tail}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// What was fetched is not what the project's checksums say.
    #[error("{file} is not what xtask/peers/maven says: {problem}")]
    Checksum {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file or folder of the cache, or of the project, could not be read or written.
    #[error("could not use {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Looks for every peer that tests ask for and says which are missing.
pub fn plan() -> Plan {
    Plan::of(PEERS.iter().copied().filter(Peer::serves_tests))
}

/// Looks for the named peers and says which are missing.
///
/// # Errors
/// When a name is not in the catalogue.
pub fn plan_for<I: IntoIterator<Item: AsRef<str>>>(names: I) -> Result<Plan, InstallError> {
    let row = |name: I::Item| {
        let name = name.as_ref();
        Peer::named(name)
            .copied()
            .ok_or_else(|| InstallError::Unknown { name: name.to_owned() })
    };
    let wanted: Vec<Peer> = names.into_iter().map(row).collect::<Result<_, _>>()?;
    Ok(Plan::of(wanted.into_iter()))
}

/// Installs what `plan` names, the quickest first, and tells `progress` of each. Waits while another process builds.
///
/// # Errors
/// When a tool cannot be started or fails, or something fetched is not what it should be. What was installed until then
/// stays.
pub fn install(plan: &Plan, mut progress: impl FnMut(&str)) -> Result<(), InstallError> {
    if plan.missing.is_empty() {
        return Ok(());
    }
    let lock = BuildLock::take(cache::folder(), || {
        progress("another process builds; waiting for its end");
    })
    .map_err(in_cache)?;
    let mut missing: Vec<Peer> = plan
        .missing
        .iter()
        .copied()
        .filter(|peer| peer.locate().is_none())
        .collect();
    missing.sort_by_key(|peer| peer.seconds);
    let packages = missing.iter().filter_map(|peer| match peer.origin {
        Origin::Debian { package, .. } => Some(package),
        _ => None,
    });
    let packages: Vec<&str> = packages.collect();
    if !packages.is_empty() {
        progress(&format!("installing {}", packages.join(", ")));
        debian::install(&packages)?;
    }
    // What Go compiled for one peer serves the next: its standard library at least.
    let compiled = lock.workshop("compiled").map_err(in_cache)?;
    for peer in missing {
        let Some(installed) = peer.folder() else {
            continue;
        };
        progress(&format!(
            "{}: {}, about {}",
            peer.name,
            peer.origin,
            minutes(peer.seconds)
        ));
        let workshop = lock.workshop(peer.name).map_err(in_cache)?;
        let made = workshop.path().join("made");
        std::fs::create_dir(&made).map_err(in_cache)?;
        match peer.origin {
            Origin::Debian { .. } => {}
            Origin::Go { packages, .. } => {
                let workshop = go::Workshop::new(workshop.path(), compiled.path());
                go::build(&peer, packages, &workshop, &made)?;
            }
            Origin::GoFiles { module, folder, .. } => {
                let workshop = go::Workshop::new(workshop.path(), compiled.path());
                go::files(&peer, module, folder, &workshop, &made)?;
            }
            Origin::Maven { .. } => maven::fetch(&peer, workshop.path(), &made)?,
            Origin::MavenArchive { .. } => maven::unpack(&peer, workshop.path(), &made)?,
            Origin::PyPi { .. } => pypi::fetch(&peer, workshop.path(), &made)?,
            Origin::Cargo { package, version } => crates::build(&peer, package, version, workshop.path(), &made)?,
        }
        cache::publish(&made, &installed).map_err(in_cache)?;
        progress(&format!("{}: installed", peer.name));
    }
    Ok(())
}

impl Plan {
    fn of(peers: impl Iterator<Item = Peer>) -> Self {
        Self {
            missing: peers.filter(|peer| peer.locate().is_none()).collect(),
        }
    }
}

/// The folder in the project that says what a peer is built from.
fn recipe(kind: &str, peer: &Peer) -> PathBuf {
    crate::workspace_root().join("xtask/peers").join(kind).join(peer.name)
}

fn in_cache(source: io::Error) -> InstallError {
    let path = cache::folder();
    InstallError::File { path, source }
}

fn minutes(seconds: u32) -> String {
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min", seconds.div_ceil(60))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            return writeln!(f, "every peer is installed");
        }
        let size: u32 = self.missing.iter().map(|peer| peer.size_mib).sum();
        let seconds: u32 = self.missing.iter().map(|peer| peer.seconds).sum();
        writeln!(f, "to install ({size} MiB, about {} on two cores):", minutes(seconds))?;
        for peer in &self.missing {
            let (name, size, origin, purpose) = (peer.name, peer.size_mib, peer.origin.to_string(), peer.purpose);
            writeln!(
                f,
                "  {name:<18} {size:>4} MiB {:>7}  {origin}: {purpose}",
                minutes(peer.seconds)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_how_large_and_how_long() {
        let row = |name| *Peer::named(name).unwrap();
        let (loki, redis) = (row("loki"), row("redis"));
        let plan = Plan {
            missing: vec![loki, redis],
        };
        let text = plan.to_string();
        assert!(
            text.contains(&format!("{} MiB", loki.size_mib + redis.size_mib)),
            "{text}"
        );
        assert!(text.contains("min on two cores"), "{text}");
        assert!(
            text.contains("Go module") && text.contains("Debian package redis-server"),
            "{text}"
        );
        let nothing = Plan { missing: Vec::new() };
        assert_eq!(nothing.to_string(), "every peer is installed\n");
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = plan_for(["loki", "lokki"]).unwrap_err();
        assert!(error.to_string().starts_with("`lokki` is no peer"), "{error}");
    }

    #[test]
    fn every_built_peer_has_its_recipe() {
        for peer in PEERS {
            let (kind, files): (_, &[&str]) = match peer.origin {
                Origin::Debian { .. } | Origin::Cargo { .. } => continue,
                Origin::Go { packages, .. } => {
                    assert_eq!(packages.len(), peer.programs.len(), "{}", peer.name);
                    ("go", &["go.mod", "go.sum"])
                }
                Origin::GoFiles { .. } => ("go", &["go.mod", "go.sum"]),
                Origin::Maven { .. } => ("maven", &["pom.xml", "checksums", peer.name]),
                Origin::MavenArchive { .. } => ("maven", &["pom.xml", "checksums"]),
                Origin::PyPi { .. } => ("pypi", &["requirements.txt"]),
            };
            let version = peer.version().unwrap();
            let texts = files
                .iter()
                .map(|file| std::fs::read_to_string(recipe(kind, peer).join(file)).expect(file));
            let texts: Vec<String> = texts.collect();
            assert!(
                texts[0].contains(version),
                "{}: {} does not say {version}",
                peer.name,
                files[0]
            );
        }
    }
}
