//! The reference services, beside the `opsctl` that tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the programs, the services' among them; builds what is missing.
pub fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_opsctl")).parent().expect("a folder");
    let services = ["identity", "orders", "payments", "notifications"];
    if !services.iter().all(|service| folder.join(service).is_file()) {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bins"])
            .current_dir(peers::workspace_root())
            .status()
            .expect("cargo starts");
        assert!(built.success(), "the services cannot be built");
    }
    folder.to_path_buf()
}
