//! PostgreSQL, with a superuser `postgres` that needs no password unless one is set. It refuses to be root, so that root starts it as the
//! user that the package made.

use std::{fs, io, os::unix::fs::chown};

use tokio::sync::OnceCell;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe, Server};

/// A PostgreSQL. Port: `postgres`.
#[derive(Debug, Clone, Default)]
pub struct Postgres {
    settings: Vec<String>,
    password: Option<String>,
}

/// The user that Debian's package makes.
pub(crate) const USER: &str = "postgres";

impl Postgres {
    /// Sets a run-time parameter, such as `max_connections` to `10`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(format!("{name}={value}"));
        self
    }

    /// Asks the user `postgres` for this password (SCRAM).
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }
}

impl Postgres {
    /// One server for all tests of this process that have a database of their own; `None` after saying that `test` is
    /// skipped because it is not installed.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub async fn shared(test: &str) -> Option<&'static Server> {
        static SHARED: OnceCell<Option<Server>> = OnceCell::const_new();
        crate::peer("postgres", test)?;
        let recipe = || Self::default().setting("max_connections", "400");
        SHARED
            .get_or_init(|| async move { Server::start(recipe(), test).await })
            .await
            .as_ref()
    }
}

impl Recipe for Postgres {
    fn peer(&self) -> &'static str {
        "postgres"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[Port {
                name: "postgres",
                url: "postgres://postgres@{}/postgres",
            }]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let data = place.make_folder("data")?;
        let user = rustix::process::geteuid().is_root().then_some(USER);
        if user.is_some() {
            let (uid, gid) = ids_of(USER)?;
            chown(&data, Some(uid), Some(gid))?;
        }
        let mut initdb = Program::new(program("initdb")?).user(user).arg("-D").arg(&data);
        initdb = initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]);
        initdb = match &self.password {
            None => initdb.args(["-A", "trust"]),
            Some(password) => {
                let file = place.write("password", password)?;
                initdb.args(["-A", "scram-sha-256", "--pwfile"]).arg(file)
            }
        };
        place.run(&initdb)?;
        let port = place.port("postgres").to_string();
        // What a process wrote outlives its kill without fsync, too; only a machine's end would lose it.
        let mut server = Program::new(program("postgres")?)
            .user(user)
            .ends_on_interrupt()
            .arg("-D")
            .arg(&data);
        server = server.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-c",
            "fsync=off",
            "-c",
            "unix_socket_directories=",
            "-c",
            // In its folder: what a killed server leaves of it elsewhere nobody removes.
            "dynamic_shared_memory_type=mmap",
        ]);
        for setting in &self.settings {
            server = server.args(["-c", setting]);
        }
        Ok(vec![server])
    }

    fn ready(&self) -> Ready {
        // Protocol 3.0's start-up message for the user `postgres`; `R` says that it may go on, an error begins with `E`.
        Ready::Talk {
            port: "postgres",
            say: b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0",
            skip: 0,
            hear: b"R",
        }
    }
}

/// The numbers of a user and its group, from /etc/passwd.
pub(crate) fn ids_of(user: &str) -> io::Result<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd")?;
    let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&user));
    let ids = row.and_then(|row| Some((row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?)));
    ids.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no user `{user}`")))
}
