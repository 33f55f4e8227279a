//! A cluster for one test at a time.

use std::{fs::File, io, ops::Deref};

use super::{Cluster, PEERS, down, is_root, state, up};

/// A cluster that one test has for itself. One that was started for it ends with the value; one that ran before stays.
pub struct Lent {
    cluster: Cluster,
    started: bool,
    _alone: File,
}

/// Waits until no other test has the cluster, and starts it unless it runs. `None` after saying that `test` is skipped, where
/// there can be none.
///
/// A test that is killed leaves it: the next one uses it, and `cargo xtask cluster down` ends it.
///
/// # Panics
/// When something is missing although peers are required, and when the cluster does not start.
pub async fn lend(test: &str) -> Option<Lent> {
    for peer in PEERS {
        crate::peer(peer, test)?;
    }
    if !is_root() {
        crate::skip(test, "a cluster wants root");
        return None;
    }
    let alone = tokio::task::spawn_blocking(|| -> io::Result<File> {
        let file = File::create(state::folder().with_extension("lent"))?;
        file.lock()?;
        Ok(file)
    });
    let alone = alone.await.expect("no panic").expect("the lock of the cluster");
    let started = Cluster::running().is_err();
    match up(0, |_, _| {}).await {
        Ok(cluster) => Some(Lent {
            cluster,
            started,
            _alone: alone,
        }),
        Err(error) => panic!("{test} cannot run: {}", crate::server::chain(&error)),
    }
}

impl Deref for Lent {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.started {
            return;
        }
        // The test's own runtime may be the one that this thread is in.
        let ended = std::thread::spawn(|| -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(down()).map(drop).map_err(io::Error::other)
        });
        let ended = ended.join();
        if !std::thread::panicking() {
            ended.expect("no panic").expect("the cluster ends");
        }
    }
}
