//! The clusters that are measured: servers over folders of ours, filled by pgbench and with pages that do not compress, and
//! changed a little. What is done with them is the other files' matter.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use peers::Server;
use peers::servers::postgres::{Postgres, Release};
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::process::Command;

/// One unit of pgbench's scale, with its index, in bytes: measured.
const SCALE: u64 = 17_500_000;
/// Bytes of noise in a row: four of them fill a page.
const NOISE: usize = 1988;
const ROWS_OF_A_PAGE: u64 = 4;
const PAGE: u64 = 8192;

/// What a server needs so that it can be saved.
pub(super) const REPLICATION: [(&str, &str); 4] = [
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("fsync", "on"),
];

/// A server over a folder, which stays when the server goes.
pub(super) struct Database {
    server: Server,
    data: PathBuf,
}

impl Database {
    /// Starts a server over `data`, where a cluster is made if there is none.
    pub(super) async fn start(data: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let mut recipe = Postgres::default().data(data).socket();
        for (name, value) in settings {
            recipe = recipe.setting(name, value);
        }
        let server = Server::launch(recipe).await.context("PostgreSQL does not run")?;
        let data = data.to_owned();
        Ok(Self { server, data })
    }

    /// A cluster of so many bytes, half of which do not compress.
    pub(super) async fn filled(data: &Path, bytes: u64) -> Result<Self> {
        let settings = [
            // Nothing is logged that is in a file anyhow.
            ("wal_level", "minimal"),
            ("max_wal_senders", "0"),
            ("shared_buffers", "512MB"),
            ("maintenance_work_mem", "512MB"),
            ("max_wal_size", "4GB"),
            ("autovacuum", "off"),
        ];
        let mut filling = Self::start(data, &settings).await?;
        let scale = (bytes / 2 / SCALE).max(1);
        filling.make_pgbench(scale).await?;
        filling.make_noise(bytes / 2).await?;
        filling.server.stop().await;
        drop(filling);
        let settings = [
            &REPLICATION[..],
            &[
                ("shared_buffers", "512MB"),
                ("max_wal_size", "4GB"),
                ("checkpoint_timeout", "1h"),
                // What is saved is what was made, and nothing else runs.
                ("autovacuum", "off"),
            ],
        ]
        .concat();
        Self::start(data, &settings).await
    }

    /// pgbench's tables; its pages have a little room, so that a row is changed in its place.
    pub(super) async fn make_pgbench(&self, scale: u64) -> Result<()> {
        let mut make = client("pgbench")?;
        make.args(["-i", "-q", "-F", "95", "-s", &scale.to_string(), &self.url()]);
        told(make.output().await?).context("pgbench could not fill the cluster")?;
        Ok(())
    }

    async fn make_noise(&self, bytes: u64) -> Result<()> {
        let mut psql = self.psql()?;
        psql.args([
            "--single-transaction",
            "--command",
            "create table noise (n bigint not null, bytes bytea not null)",
            "--command",
            "copy noise from stdin (format binary, freeze)",
        ]);
        let mut psql = psql.stdin(Stdio::piped()).spawn().context("could not start psql")?;
        let input = psql.stdin.take().context("it was asked for")?;
        let rows = bytes / PAGE * ROWS_OF_A_PAGE;
        let (sent, ended) = tokio::join!(send_noise(input, rows), psql.wait_with_output());
        told(ended?).context("psql could not fill the cluster")?;
        sent.context("psql took not all")
    }

    /// Changes a row in about one of a hundred pages, which lie anywhere in both halves.
    pub(super) async fn change(&self) -> Result<()> {
        for (table, rows, change) in [
            ("pgbench_accounts", 50, "abalance = abalance + 1"),
            (
                "noise",
                ROWS_OF_A_PAGE,
                "bytes = overlay(bytes placing sha256(bytes) from 1)",
            ),
        ] {
            self.sql(&format!(
                "update {table} set {change} where ctid = any(array(
                     select format('(%s,%s)', page, 1 + floor(random() * {rows}))::tid
                     from generate_series(0, pg_relation_size('{table}') / {PAGE} - 1) page
                     where random() < 0.01))"
            ))
            .await?;
        }
        self.checkpoint().await
    }

    /// Writes everything into the files.
    pub(super) async fn checkpoint(&self) -> Result<()> {
        self.sql("checkpoint").await.map(drop)
    }

    /// What statements answer, without decoration.
    pub(super) async fn sql(&self, sql: &str) -> Result<String> {
        let mut psql = self.psql()?;
        let said = told(psql.args(["--command", sql]).output().await?);
        Ok(said.with_context(|| format!("`{sql}` failed"))?.trim().to_owned())
    }

    fn psql(&self) -> Result<Command> {
        let mut psql = client("psql")?;
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set", "ON_ERROR_STOP=1", "--dbname", &self.url()]);
        Ok(psql)
    }

    /// Where it is reached: its Unix socket.
    pub(super) fn url(&self) -> String {
        let (socket, port) = (
            self.server.folder().join("socket"),
            self.server.address("postgres").port(),
        );
        let socket = socket.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}:{port}/postgres")
    }

    /// Its folder.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }
}

/// Rows of COPY's binary format.
async fn send_noise(input: tokio::process::ChildStdin, rows: u64) -> Result<()> {
    let mut input = BufWriter::with_capacity(1 << 20, input);
    input.write_all(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0").await?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut row = Vec::with_capacity(NOISE + 32);
    for number in 0..rows {
        row.clear();
        row.extend_from_slice(&2_i16.to_be_bytes());
        row.extend_from_slice(&8_i32.to_be_bytes());
        row.extend_from_slice(&number.to_be_bytes());
        row.extend_from_slice(&i32::try_from(NOISE)?.to_be_bytes());
        while row.len() < NOISE + 18 {
            row.extend_from_slice(&splitmix(&mut state).to_le_bytes());
        }
        row.truncate(NOISE + 18);
        input.write_all(&row).await?;
    }
    input.write_all(&(-1_i16).to_be_bytes()).await?;
    input.shutdown().await?;
    Ok(())
}

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A program of PostgreSQL, which ends with whoever waits for it.
pub(super) fn client(name: &str) -> Result<Command> {
    let mut command = Command::new(Release::default().client(name)?);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    Ok(command)
}

/// What a program printed, if it ended well.
pub(super) fn told(ended: Output) -> Result<String> {
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.success(),
        "it ended with {}: {}",
        ended.status,
        said.trim_end()
    );
    Ok(String::from_utf8(ended.stdout)?)
}
