//! PostgreSQL, with a superuser `postgres` that needs no password unless one is set. It refuses to be root, so that root starts it as the
//! user that the package made.

mod cluster;
mod numbered;
mod release;

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tokio::sync::OnceCell;

pub use self::{
    cluster::Cluster,
    numbered::{Acknowledged, Numbered},
    release::Release,
};
use crate::{Place, Port, Program, Ready, Recipe, Server};

/// A PostgreSQL. Port: `postgres`.
#[derive(Debug, Clone, Default)]
pub struct Postgres {
    release: Release,
    settings: Vec<String>,
    password: Option<String>,
    data: Data,
    made_with: Vec<String>,
    access: Vec<String>,
    tls: Option<Tls>,
    socket: bool,
}

/// Where its data comes from.
#[derive(Debug, Clone, Default)]
enum Data {
    /// Made anew in the server's folder.
    #[default]
    New,
    /// This folder. Made there when it is missing or empty.
    In(PathBuf),
    /// A standby of another server, copied into the server's folder.
    Standby { of: String, slot: Option<String> },
}

#[derive(Debug, Clone)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<PathBuf>,
}

/// The user that Debian's package makes.
pub(crate) const USER: &str = "postgres";

impl Postgres {
    /// Of this release instead of Debian's.
    pub fn of(release: Release) -> Self {
        Self {
            release,
            ..Self::default()
        }
    }

    /// Sets a run-time parameter, such as `max_connections` to `10`. Of two for one parameter the later holds.
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

    /// Keeps its data in `folder`: what is there, such as a restored cluster, or a new one where nothing is. It and its
    /// files become the server's user's; the folders above must let that user through. It stays when the server goes.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Data::In(folder.to_owned());
        self
    }

    /// Makes new data with one more argument of `initdb`, such as `--data-checksums` or `--wal-segsize=1`.
    #[must_use]
    pub fn made_with(mut self, argument: &str) -> Self {
        self.made_with.push(argument.to_owned());
        self
    }

    /// Is a standby of the server at `of` (its [`Server::url`]), through the slot `slot` of that server if there is one, which must be there
    /// already. Copied by Debian's `pg_basebackup`, which knows no release later than its own.
    #[must_use]
    pub fn standby(mut self, of: &str, slot: Option<&str>) -> Self {
        let (of, slot) = (of.to_owned(), slot.map(str::to_owned));
        self.data = Data::Standby { of, slot };
        self
    }

    /// Adds a line to `pg_hba.conf`, before those that `initdb` wrote. Not for the database `postgres` as the user `postgres` from
    /// 127.0.0.1 without TLS: by that it is seen that the server is ready.
    #[must_use]
    pub fn access(mut self, line: &str) -> Self {
        self.access.push(line.to_owned());
        self
    }

    /// Offers TLS with the certificate and the key in these PEM files.
    #[must_use]
    pub fn tls(mut self, certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        self.tls = Some(Tls {
            certificate,
            key,
            clients: None,
        });
        self
    }

    /// Asks clients over TLS for certificates of the authority in this PEM file, where a line of [`access`](Self::access) says so. After
    /// [`tls`](Self::tls).
    #[must_use]
    pub fn clients(mut self, authority: &Path) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.clients = Some(authority.to_owned());
        }
        self
    }

    /// Listens on a Unix socket, too, in the folder `socket` of the server's.
    #[must_use]
    pub fn socket(mut self) -> Self {
        self.socket = true;
        self
    }

    /// Where its data is, given the folder of its server.
    fn data_in(&self, folder: &Path) -> PathBuf {
        match &self.data {
            Data::In(folder) => folder.clone(),
            Data::New | Data::Standby { .. } => folder.join("data"),
        }
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

    /// Fills the data folder, unless there is something in it.
    fn make_data(&self, place: &Place, programs: &Path, data: &Path) -> io::Result<()> {
        if fs::read_dir(data)?.next().is_some() {
            return Ok(());
        }
        // The server asks for it, and not every program that fills the folder sees to it.
        fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
        let program = match &self.data {
            Data::Standby { of, slot } => {
                let copy = Release::V15.client("pg_basebackup")?;
                let mut copy = Program::new(copy).user(user()).arg("-D").arg(data).args(["-d", of]);
                copy = copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
                match slot {
                    Some(slot) => copy.args(["-S", slot]),
                    None => copy,
                }
            }
            Data::New | Data::In(_) => {
                let mut initdb = Program::new(programs.join("initdb")).user(user()).arg("-D").arg(data);
                initdb = initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]);
                initdb = initdb.args(&self.made_with);
                match &self.password {
                    None => initdb.args(["-A", "trust"]),
                    Some(password) => {
                        let file = place.write("password", password)?;
                        initdb.args(["-A", "scram-sha-256", "--pwfile"]).arg(file)
                    }
                }
            }
        };
        place.run(&program)
    }

    /// Copies what TLS needs to where the server takes it from, and says so in settings.
    fn offer_tls(&self, place: &Place) -> io::Result<Vec<String>> {
        let Some(tls) = &self.tls else {
            return Ok(Vec::new());
        };
        let mut settings = vec!["ssl=on".to_owned()];
        let files = [
            ("ssl_cert_file", Some(&tls.certificate)),
            ("ssl_key_file", Some(&tls.key)),
            ("ssl_ca_file", tls.clients.as_ref()),
        ];
        for (setting, from) in files {
            let Some(from) = from else { continue };
            let to = place.folder().join(setting);
            fs::copy(from, &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
            give(&to)?;
            settings.push(format!("{setting}={}", to.display()));
        }
        Ok(settings)
    }
}

impl Recipe for Postgres {
    fn peer(&self) -> &'static str {
        self.release.peer()
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
        let programs = self.release.reachable(place, user())?;
        let data = self.data_in(place.folder());
        fs::create_dir_all(&data)?;
        give(&data)?;
        self.make_data(place, &programs, &data)?;
        if !self.access.is_empty() {
            let file = data.join("pg_hba.conf");
            let lines = format!("{}\n{}", self.access.join("\n"), fs::read_to_string(&file)?);
            fs::write(&file, lines)?;
        }
        let mut sockets = String::new();
        if self.socket {
            let folder = place.make_folder("socket")?;
            give(&folder)?;
            sockets = folder.display().to_string();
        }
        let port = place.port("postgres").to_string();
        let sockets = format!("unix_socket_directories={sockets}");
        // What a process wrote outlives its kill without fsync, too; only a machine's end would lose it.
        let mut server = Program::new(programs.join("postgres"))
            .user(user())
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
            &sockets,
            "-c",
            // In its folder: what a killed server leaves of it elsewhere nobody removes.
            "dynamic_shared_memory_type=mmap",
        ]);
        for setting in self.offer_tls(place)?.iter().chain(&self.settings) {
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

/// Whom root starts the server as.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(USER)
}

/// Makes a file, or a folder with all that is in it, the server's user's, where that is not this process' own.
fn give(path: &Path) -> io::Result<()> {
    let Some(user) = user() else { return Ok(()) };
    let (uid, gid) = ids_of(user)?;
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
        // A tablespace is a link, and lies elsewhere.
        if kind.is_symlink() {
            paths.push(fs::canonicalize(&path)?);
            continue;
        }
        chown(&path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// The numbers of a user and its group, from /etc/passwd.
pub(crate) fn ids_of(user: &str) -> io::Result<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd")?;
    let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&user));
    let ids = row.and_then(|row| Some((row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?)));
    ids.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no user `{user}`")))
}
