//! The images of what the cluster itself runs in pods, made of programs on this machine, and how images get to the node.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{machine::run, state::State};
use crate::{Image, servers::program};

/// Holds a pod's namespaces and reaps its orphans.
pub(super) const PAUSE: &str = "docker.io/opsctl/pause:1";
/// Knows the names of services.
pub(super) const COREDNS: &str = "opsctl/coredns:1";
/// Knows what pods use.
pub(super) const METRICS_SERVER: &str = "opsctl/metrics-server:1";
/// Who runs in them.
pub(super) const USER: u32 = 65532;

/// Writes the images, and returns where they are.
pub(super) fn write(state: &State) -> io::Result<Vec<PathBuf>> {
    // As `pause` it waits and reaps, and runs nothing.
    let pause = Image::new(PAUSE).file(program("catatonit")?, "/pause", 0o755);
    let pause = pause.entrypoint(["/pause", "-P"]);
    let serve = |name: &str, tag: &str| -> io::Result<Image> {
        let image = Image::new(tag).user(USER).usual("server");
        let inside = format!("/{name}");
        Ok(image.file(program(name)?, &inside, 0o755).entrypoint([inside]))
    };
    let images = [
        ("pause", pause),
        ("coredns", serve("coredns", COREDNS)?),
        ("metrics-server", serve("metrics-server", METRICS_SERVER)?),
    ];
    let written = images.iter().map(|(name, image)| {
        let path = state.file(&format!("images/{name}.tar"));
        image.write(&path)?;
        Ok(path)
    });
    written.collect()
}

/// Hands an image tar to the node.
pub(super) fn import(state: &State, path: &Path) -> io::Result<()> {
    let ctr = program("ctr")?.display().to_string();
    let address = state.file("containerd.sock").display().to_string();
    let path = path.display().to_string();
    run(
        &ctr,
        &[
            "--address",
            &address,
            "--namespace",
            "k8s.io",
            "images",
            "import",
            &path,
        ],
        "",
    )
    .map(drop)
}
