//! Installs missing peers: first the plan, which says names and sizes, then the plan is carried out.

use std::{fmt, process::Command};

use crate::{Origin, PEERS, Peer};

/// What is missing and will be installed. `Display` is what a person reads before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Peers that were not found.
    pub missing: Vec<Peer>,
}

/// Why peers could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The package tool could not be started.
    #[error("could not start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The package tool failed.
    #[error("`{command}` ended with {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

/// Looks for every peer and says which are missing.
pub fn plan() -> Plan {
    Plan {
        missing: PEERS.iter().copied().filter(|peer| peer.locate().is_none()).collect(),
    }
}

/// Installs what `plan` names.
///
/// # Errors
/// When the package tool cannot be started or fails.
pub fn install(plan: &Plan) -> Result<(), InstallError> {
    let packages: Vec<&str> = plan
        .missing
        .iter()
        .map(|peer| match peer.origin {
            Origin::Debian { package } => package,
        })
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    run("apt-get", &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    run("apt-get", &arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), InstallError> {
    let command = format!("{program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(|source| InstallError::Start {
            command: command.clone(),
            source,
        })?;
    if status.success() {
        Ok(())
    } else {
        Err(InstallError::Failed { command, status })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            return writeln!(f, "every peer is installed");
        }
        let total: u32 = self.missing.iter().map(|peer| peer.size_mib).sum();
        writeln!(f, "to install ({total} MiB):")?;
        for peer in &self.missing {
            writeln!(
                f,
                "  {:<8} {:>4} MiB  {}: {}",
                peer.name, peer.size_mib, peer.origin, peer.purpose
            )?;
        }
        Ok(())
    }
}
