//! A PostgreSQL for tests of backups: settings for replication, SQL, standbys, and the end of a machine with its disk.
//!
//! What cannot be done fails the test with the server's last words: a test has nothing to do with such an error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Numbered, Postgres, Release, give};
use crate::{Recipe, Server};

/// One data folder and the server over it, which may be down. Dropping it ends the server and removes the folder, unless the recipe
/// named another.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    recipe: Postgres,
    data: PathBuf,
}

/// What a server needs so that others follow it, and so that a test of one needs little memory.
const SETTINGS: [(&str, &str); 6] = [
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("hot_standby", "on"),
    ("max_connections", "50"),
    ("shared_buffers", "16MB"),
];

impl Cluster {
    /// Starts a server that others can follow; `None` after saying that `test` is skipped because it is not installed. Settings of the
    /// recipe go before those that replication needs.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub async fn start(recipe: Postgres, test: &str) -> Option<Self> {
        let mut recipe = recipe;
        let needed = SETTINGS.map(|(name, value)| format!("{name}={value}"));
        recipe.settings.splice(..0, needed);
        let server = Server::start(recipe.clone(), test).await?;
        let data = recipe.data_in(server.folder());
        Some(Self { server, recipe, data })
    }

    /// A standby of this one that streams from it, through the slot `slot`, which is made when it is not there. With the settings of this
    /// one.
    ///
    /// # Panics
    /// When it cannot be made or started, and for a release that is newer than Debian's.
    pub async fn standby(&self, slot: Option<&str>) -> Self {
        if let Some(slot) = slot {
            self.run(&format!(
                "select pg_create_physical_replication_slot('{slot}', true)
                 where not exists (select from pg_replication_slots where slot_name = '{slot}')"
            ))
            .await;
        }
        let recipe = Postgres {
            settings: self.recipe.settings.clone(),
            socket: self.recipe.socket,
            ..Postgres::of(self.release())
        };
        let recipe = recipe.standby(&self.url(), slot);
        match Server::launch(recipe.clone()).await {
            Ok(server) => Self {
                data: recipe.data_in(server.folder()),
                recipe,
                server,
            },
            Err(error) => panic!("no standby: {}", crate::server::chain(&error)),
        }
    }

    /// Its release.
    pub fn release(&self) -> Release {
        self.recipe.release
    }

    /// The server: its ports, its log, its pauses.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// `postgres://postgres@ADDRESS/postgres`, without a password if there is one.
    pub fn url(&self) -> String {
        self.server.url("postgres")
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of its Unix socket, where the recipe asked for one.
    pub fn socket(&self) -> PathBuf {
        self.server.folder().join("socket")
    }

    /// A connection to its database `database`, as the user `postgres`.
    ///
    /// # Errors
    /// As the client says.
    pub async fn connect_to(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config: tokio_postgres::Config = self.url().parse()?;
        config.dbname(database);
        if let Some(password) = &self.recipe.password {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await?;
        // It ends with the client or with the server.
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection to the database `postgres`.
    ///
    /// # Errors
    /// As the client says.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.connect_to("postgres").await
    }

    /// Runs statements over a connection of their own and returns the first column of the last row, empty where there is none.
    ///
    /// # Panics
    /// When it fails.
    pub async fn run(&self, sql: &str) -> String {
        self.run_in("postgres", sql).await
    }

    /// The same in another database.
    ///
    /// # Panics
    /// When it fails.
    pub async fn run_in(&self, database: &str, sql: &str) -> String {
        let answer = async { self.connect_to(database).await?.simple_query(sql).await }.await;
        let answer = answer.unwrap_or_else(|error| self.give_up(sql, &error));
        let row = answer.into_iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        row.unwrap_or_default()
    }

    /// The system identifier of the cluster.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn system_identifier(&self) -> u64 {
        let identifier = self.run("select system_identifier from pg_control_system()").await;
        identifier.parse().expect("the server answers with a number")
    }

    /// Up to where the log is written and flushed; of a standby, up to where it is received. As `0/3000148`.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn position(&self) -> String {
        self.run(
            "select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end",
        )
        .await
    }

    /// Writes a named restore point and returns the position after it.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn restore_point(&self, name: &str) -> String {
        self.run(&format!("select pg_create_restore_point('{name}')")).await
    }

    /// Ends the current segment of the log, if something is in it, and returns the position where it ended.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn switch_wal(&self) -> String {
        self.run("select pg_switch_wal()").await
    }

    /// Makes a standby a primary with a timeline of its own; returns once it takes writes.
    ///
    /// # Panics
    /// As [`run`](Self::run), and when it does not become one within a minute.
    pub async fn promote(&self) {
        let done = self.run("select pg_promote(true, 60)").await;
        assert_eq!(done, "t", "not promoted; its log ends:\n{}", self.server.log_tail());
    }

    /// Kills every process of the server, and returns when the last is gone: what it did not write is lost.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it in good order.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Kills the server and removes its data folder, as a machine that is lost with its disk.
    ///
    /// # Panics
    /// When the folder cannot be removed.
    pub fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).expect("the data folder can be removed");
    }

    /// Starts it again at the same address over what is in its data folder now, be it what it left or what a restore put there.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        give(&self.data).expect("the data folder can be given to the server's user");
        if let Err(error) = self.server.start_again().await {
            panic!("not started again: {}", crate::server::chain(&error));
        }
    }

    /// The numbers that [`Numbered`] wrote and that are here: `n` says that it is exactly 1, 2, … `n`. 0 where the table is not there yet.
    ///
    /// # Panics
    /// When a number is missing, and as [`run`](Self::run).
    pub async fn numbered_rows(&self) -> u64 {
        if self.run("select to_regclass('numbered')").await.is_empty() {
            return 0;
        }
        let found = self
            .run("select concat_ws(' ', count(*), coalesce(min(n), 1), coalesce(max(n), 0)) from numbered")
            .await;
        let found: Vec<u64> = found
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        let [count, least, most] = found[..] else {
            panic!("three numbers were asked for: {found:?}");
        };
        assert_eq!((count, least), (most, 1), "rows are missing between {least} and {most}");
        count
    }

    /// Commits numbered rows, `per_second` a second, from now on.
    ///
    /// # Panics
    /// When the table cannot be made.
    pub async fn numbered(&self, per_second: u32) -> Numbered {
        let client = self.connect().await;
        let client = client.unwrap_or_else(|error| self.give_up("connect", &error));
        let writer = Numbered::start(client, per_second).await;
        writer.unwrap_or_else(|error| self.give_up("the table `numbered`", &error))
    }

    fn give_up(&self, what: &str, error: &tokio_postgres::Error) -> ! {
        let said = crate::server::chain(error);
        let log = self.server.log_tail();
        panic!(
            "{} failed at `{what}`: {said}; its log ends:\n{log}",
            self.recipe.peer()
        );
    }
}
