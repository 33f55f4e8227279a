//! Real servers and programs that tests hold ours against: which there are, how each is had, how a test starts one,
//! and what a test does without it.
//!
//! A test asks for a program with [`peer`], or starts a server with [`Server::start`]. Where the program is missing the
//! test is skipped *by name*: the skip is written to the log that `cargo xtask test` prints at its end, and with
//! `OPSCTL_REQUIRE_PEERS=1` it fails instead. This crate holds no stand-ins: a row here is always the real thing.

mod cache;
mod cargo;
mod catalogue;
pub mod certificates;
pub mod cluster;
pub mod faults;
pub mod http;
mod image;
mod install;
mod ports;
mod process;
mod ready;
mod server;
pub mod servers;

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::LazyLock,
};

pub use cache::folder as cache;
pub use cargo::cargo;
pub use catalogue::{Origin, PEERS, Peer};
pub use image::Image;
pub use install::{InstallError, Plan, install, plan, plan_for};
pub use ports::Port;
pub use process::{Program, Tree};
pub use ready::Ready;
pub use server::{Place, Recipe, Server, StartError};

/// The file to which skipped tests are appended, one `NAME: REASON` a line. Set by `cargo xtask test`.
pub const SKIP_LOG: &str = "OPSCTL_SKIP_LOG";
/// `1` turns a missing peer into a failed test. Set by `cargo xtask ci`.
pub const REQUIRE_PEERS: &str = "OPSCTL_REQUIRE_PEERS";

/// The program `name`, or `None` after saying that `test` is skipped for want of it.
///
/// # Panics
/// When `name` is no program of [`PEERS`], and when it is missing although peers are required.
pub fn peer(name: &str, test: &str) -> Option<PathBuf> {
    let peer = Peer::named(name).unwrap_or_else(|| panic!("`{name}` is not in the catalogue of peers"));
    let found = if peer.programs.contains(&name) {
        peer.program(name)
    } else {
        peer.locate()
    };
    if found.is_none() {
        skip(test, &format!("{} is not installed ({})", peer.name, peer.origin));
    }
    found
}

/// Test data that lies beside the project, `../shared/data/PATH` (or below `$OPSCTL_SHARED`), or `None` after saying that `test` is skipped.
///
/// # Panics
/// When the data is missing although peers are required.
pub fn shared_data(path: &str, test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("OPSCTL_SHARED").map_or_else(|| workspace_root().join("../shared/data"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    skip(test, &format!("the data `{path}` is not beside the project"));
    None
}

/// Says that `test` does not run here, and why.
///
/// # Panics
/// When peers are required.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var_os(REQUIRE_PEERS).as_deref() != Some(OsStr::new("1")),
        "{test} cannot run: {reason}, and {REQUIRE_PEERS}=1 asks for it"
    );
    eprintln!("skipped: {test}: {reason}");
    if let Some(log) = std::env::var_os(SKIP_LOG) {
        // A log that cannot be written must not fail the test: the line above has said it.
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(log) {
            let _ = writeln!(file, "{test}: {reason}");
        }
    }
}

/// The folder of the workspace that cargo runs this program from; without cargo, the one that it was built from.
///
/// Asked at run time, since checkouts that share a target directory share their binaries too.
pub fn workspace_root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
        root.unwrap_or(&package).to_owned()
    });
    &ROOT
}
