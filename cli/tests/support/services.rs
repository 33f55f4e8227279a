//! The reference services, beside the `opsctl` that tests run.

use std::path::{Path, PathBuf};

/// The folder of the programs, the services' among them; builds what is missing.
pub fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_opsctl")).parent().expect("a folder");
    let services = ["identity", "orders", "payments", "notifications"];
    if !services.iter().all(|service| folder.join(service).is_file()) {
        // With examples, as tests are: else dependencies are built once more, with fewer features.
        let built = peers::cargo()
            .args(["build", "--quiet", "--workspace", "--bins", "--examples"])
            .status()
            .expect("cargo starts");
        assert!(built.success(), "the services cannot be built");
    }
    folder.to_path_buf()
}
