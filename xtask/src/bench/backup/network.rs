//! An S3 that is far away: a real MinIO behind a proxy where every request takes a round trip more and every connection
//! has a limit.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use peers::Server;
use peers::faults::{FaultProxy, Limits};
use peers::servers::MinIo;

use super::tools::{BUCKET, Store};
use super::{Part, Tools, data};
use crate::bench::process::cost;
use crate::bench::requirement::Requirement;

const SIZE_MIB: usize = 1024;
const LATENCY: Duration = Duration::from_millis(100);
/// Of each connection.
const BYTES_PER_SECOND: u64 = 20_000_000;
/// How many times rustic's rate ours must be.
const FASTER: f64 = 4.0;

/// Measures a backup with each tool.
pub(super) async fn measure(tools: &Tools) -> Result<Part> {
    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let data = scratch.path().join("data");
    fs::create_dir(&data)?;
    data::random(&data.join("payload"), SIZE_MIB)?;
    let minio = Server::launch(MinIo::default().bucket(BUCKET)).await;
    let minio = minio.context("MinIO does not run; `cargo xtask peers build minio` installs it")?;
    let proxy = FaultProxy::start(minio.address("s3"))?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for tool in tools.all() {
        let place = scratch.path().join(tool.name());
        fs::create_dir(&place)?;
        proxy.limit(Limits::default());
        let url = proxy.url();
        tool.prepare(&place, Store::Bucket(&url), &data)?;
        proxy.limit(Limits {
            latency: LATENCY,
            bytes_per_second: Some(BYTES_PER_SECOND),
        });
        let cost = cost(tool.backup(&place, &data)).await?;
        println!("S3, {}: {cost:.2?}", tool.name());
        rates.push(SIZE_MIB as f64 / cost.wall);
        costs.push(cost);
    }
    let mut part = Part {
        method: format!(
            "To an S3: MinIO on the same machine, behind a proxy that lets every request wait {} ms and passes {} MB/s in each \
             connection; {SIZE_MIB} MiB of random data in one file.",
            LATENCY.as_millis(),
            BYTES_PER_SECOND / 1_000_000
        ),
        ..Part::default()
    };
    let faster = rates[0] / rates[2];
    part.required.push(Requirement::at_least(
        "rate of a backup to S3",
        Some(faster),
        FASTER,
        "times rustic's",
    ));
    let figures = |figure: fn(&crate::bench::process::Cost) -> f64| costs.iter().map(figure).collect::<Vec<_>>();
    part.row("backup to S3", "MiB/s", &rates, 1);
    part.row("backup to S3", "CPU s/GiB", &figures(|cost| cost.cpu), 2);
    part.row("backup to S3", "peak MiB", &figures(|cost| cost.mib), 0);
    Ok(part)
}
