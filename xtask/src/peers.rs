//! `cargo xtask peers`: the real servers that tests hold ours against, for people: what there is, building them, and
//! starting some to try things out. What a peer is and how it is started stands in the crate `peers`.

mod up;

use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use peers::{PEERS, Peer, Plan};
use serde_json::json;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Names every peer, how it is had, and whether it is installed
    List {
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Installs or builds the peers that are missing, after saying which, how large and how long
    Build {
        /// Which ones; all without a name
        names: Vec<String>,
        /// Go on without this terminal; a later `build` waits for it
        #[arg(long)]
        background: bool,
    },
    /// Starts servers on free loopback ports and prints their addresses; they end with Ctrl-C
    Up {
        /// Which ones
        #[arg(required = true)]
        names: Vec<String>,
        /// Return once they are ready; `down` ends them
        #[arg(long)]
        detach: bool,
    },
    /// Ends every server that `up` started
    Down,
    /// Prints where a peer's program is
    Path {
        /// The peer, or one of its programs
        name: String,
    },
}

/// Does what was asked for.
///
/// # Errors
/// When a name is unknown, a build or a server fails, or a program is missing.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::List { json: false } => {
            list();
            Ok(())
        }
        Verb::List { json: true } => {
            println!("{:#}", as_json());
            Ok(())
        }
        Verb::Build { names, background } => {
            let plan = if names.is_empty() {
                peers::plan()
            } else {
                peers::plan_for(names)?
            };
            print!("{plan}");
            if *background {
                in_background(&plan)
            } else {
                build(&plan)
            }
        }
        Verb::Up { names, detach: false } => up::hold(names),
        Verb::Up { names, detach: true } => up::detach(names),
        Verb::Down => up::down(),
        Verb::Path { name } => path(name),
    }
}

fn build(plan: &Plan) -> Result<()> {
    Ok(peers::install(plan, |line| println!("{line}"))?)
}

/// A process that builds what `plan` names, out of reach of this terminal's Ctrl-C.
fn in_background(plan: &Plan) -> Result<()> {
    if plan.missing.is_empty() {
        return Ok(());
    }
    let path = peers::cache().join("build.log");
    std::fs::create_dir_all(peers::cache())?;
    let log = File::create(&path).with_context(|| format!("could not write {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["peers", "build"])
        .args(plan.missing.iter().map(|peer| peer.name));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    command.spawn().context("could not start the build")?;
    println!("building; the log is {}", path.display());
    Ok(())
}

fn list() {
    println!(
        "{:<18} {:<9} {:<32} {:>7}  {:<9} PURPOSE",
        "NAME", "VERSION", "ORIGIN", "SIZE", "INSTALLED"
    );
    for peer in PEERS {
        let version = peer.version().unwrap_or("-");
        let size = format!("{} MiB", peer.size_mib);
        let installed = if peer.locate().is_some() { "yes" } else { "no" };
        let (name, origin, purpose) = (peer.name, peer.origin.to_string(), peer.purpose);
        println!("{name:<18} {version:<9} {origin:<32} {size:>7}  {installed:<9} {purpose}");
    }
}

fn as_json() -> serde_json::Value {
    let row = |peer: &Peer| {
        json!({
            "name": peer.name,
            "version": peer.version(),
            "origin": peer.origin.to_string(),
            "programs": peer.programs,
            "path": peer.locate(),
            "size_mib": peer.size_mib,
            "build_seconds": peer.seconds,
            "purpose": peer.purpose,
        })
    };
    json!({ "version": 1, "peers": PEERS.iter().map(row).collect::<Vec<_>>() })
}

fn path(name: &str) -> Result<()> {
    let Some(peer) = Peer::named(name) else {
        bail!("`{name}` is no peer; `cargo xtask peers list` names them");
    };
    let found = if peer.programs.contains(&name) {
        peer.program(name)
    } else {
        peer.locate()
    };
    match found {
        Some(path) => println!("{}", path.display()),
        None => bail!(
            "{name} is not installed; `cargo xtask peers build {}` does that",
            peer.name
        ),
    }
    Ok(())
}
