//! The kinds of servers, a file each: what a test may choose of one, and how it is started.

mod alertmanager;
mod collector;
mod jaeger;
mod loki;
mod prometheus;

pub use self::{alertmanager::Alertmanager, collector::Collector, jaeger::Jaeger, loki::Loki, prometheus::Prometheus};

use std::{io, path::PathBuf};

use crate::Peer;

/// Where a program of the catalogue is.
fn program(name: &str) -> io::Result<PathBuf> {
    let found = Peer::named(name).and_then(|peer| peer.program(name));
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the program `{name}` is not installed")))
}
