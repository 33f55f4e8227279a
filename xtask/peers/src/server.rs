//! A real server for one test: on free loopback ports, in a temporary folder, gone with the value, and gone too when
//! the test is killed. What is special about a kind of server is its [`Recipe`], a file each in `servers`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    Peer,
    ports::{Port, Reserved},
    process::{Program, Tree},
    ready::Ready,
    servers,
};

/// How long a server may take until it is ready. Machines that build something beside the tests are slow.
const START_WITHIN: Duration = Duration::from_mins(2);
/// How long a server may take to end in good order; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether something has come to pass.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How many sets of ports are tried when a stranger takes one of them first.
const PORT_ATTEMPTS: u32 = 5;
/// How much of a log an error shows, in lines.
const LOG_TAIL: usize = 30;
/// The name of the file that the server's output goes to.
const LOG: &str = "server.log";

/// What one kind of server needs.
pub trait Recipe: Send + Sync + 'static {
    /// The name of its row in the catalogue.
    fn peer(&self) -> &'static str;

    /// The ports that it listens on.
    fn ports(&self) -> &'static [Port];

    /// Writes its configuration and makes its data folder, and says what to run: the server itself last, before it
    /// what it needs beside it. Called once; later starts run the same programs again.
    ///
    /// # Errors
    /// What the file system or a preparing program says.
    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>>;

    /// How one sees that it is ready.
    fn ready(&self) -> Ready;
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such kind of server.
    #[error("`{name}` is no server; there are {}", servers::NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The program is not there.
    #[error("{peer} is not installed; `cargo xtask peers build {peer}` does that")]
    Missing {
        /// Which peer.
        peer: &'static str,
    },
    /// Its folder, its configuration or its process could not be made.
    #[error("could not prepare {peer}; its log ends:\n{log}")]
    Prepare {
        /// Which peer.
        peer: &'static str,
        /// The last lines that it wrote.
        log: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("{peer} ended while it started; its log ends:\n{log}")]
    Ended {
        /// Which peer.
        peer: &'static str,
        /// The last lines that it wrote.
        log: String,
    },
    /// It did not become ready in time.
    #[error("{peer} is not ready after {} s; its log ends:\n{log}", START_WITHIN.as_secs())]
    Late {
        /// Which peer.
        peer: &'static str,
        /// The last lines that it wrote.
        log: String,
    },
}

/// The folder and the ports of one server.
#[derive(Debug)]
pub struct Place {
    folder: tempfile::TempDir,
    ports: Vec<Reserved>,
}

/// A server that runs, or that was stopped to be started again. Dropping it ends it and removes its data.
///
/// Waiting needs a clock that runs: do not use it in a test with tokio's clock paused.
pub struct Server {
    // Dropped before the folder that it runs in.
    running: Vec<Tree>,
    programs: Vec<Program>,
    recipe: Box<dyn Recipe>,
    place: Place,
}

impl Server {
    /// Starts a server for `test` and waits until it is ready; `None` after saying that the test is skipped because
    /// the server is not installed.
    ///
    /// # Panics
    /// When it is missing although peers are required, and with the end of its log when it does not start.
    pub async fn start(recipe: impl Recipe, test: &str) -> Option<Self> {
        crate::peer(recipe.peer(), test)?;
        match Self::launch(recipe).await {
            Ok(server) => Some(server),
            Err(error) => panic!("{test} cannot run: {}", chain(&error)),
        }
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// When it is not installed, cannot be started, ends, or is not ready in time.
    pub async fn launch(recipe: impl Recipe) -> Result<Self, StartError> {
        Self::launch_boxed(Box::new(recipe)).await
    }

    /// Starts a server of the kind `name` as it is without settings, and waits until it is ready.
    ///
    /// # Errors
    /// When there is no such kind, and as [`launch`](Self::launch).
    pub async fn launch_named(name: &str) -> Result<Self, StartError> {
        match servers::named(name) {
            Some(recipe) => Self::launch_boxed(recipe).await,
            None => Err(StartError::Unknown { name: name.to_owned() }),
        }
    }

    async fn launch_boxed(recipe: Box<dyn Recipe>) -> Result<Self, StartError> {
        let peer = recipe.peer();
        if Peer::named(peer).and_then(Peer::locate).is_none() {
            return Err(StartError::Missing { peer });
        }
        let failed = |source| StartError::Prepare {
            peer,
            log: String::new(),
            source,
        };
        let mut server = Self {
            running: Vec::new(),
            programs: Vec::new(),
            place: Place::new(recipe.as_ref()).map_err(failed)?,
            recipe,
        };
        for attempt in 1.. {
            let programs = server.recipe.prepare(&server.place);
            server.programs = programs.map_err(|source| server.could_not_prepare(source))?;
            let outcome = server.start_again().await;
            let taken = matches!(&outcome, Err(StartError::Ended { log, .. }) if says_taken(log));
            if !taken || attempt == PORT_ATTEMPTS {
                outcome?;
                break;
            }
            server.running.clear();
            server.place = Place::new(server.recipe.as_ref()).map_err(failed)?;
        }
        Ok(server)
    }

    /// Starts the server after [`stop`](Self::stop) or [`kill`](Self::kill), on its ports and with its data, and waits
    /// until it is ready. Does nothing when it runs.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        if self.is_running() {
            return Ok(());
        }
        self.running.clear();
        let peer = self.recipe.peer();
        for program in &self.programs {
            let started = self.place.start(program);
            self.running
                .push(started.map_err(|source| self.could_not_prepare(source))?);
        }
        let deadline = Instant::now() + START_WITHIN;
        let ready = self.recipe.ready();
        loop {
            // Asked before the sign is looked for: what answers may be a stranger on the same port.
            let runs = self.is_running();
            if runs && ready.holds(&self.place).await {
                return Ok(());
            }
            if !runs {
                let log = self.log_tail();
                return Err(StartError::Ended { peer, log });
            }
            if Instant::now() > deadline {
                let log = self.log_tail();
                return Err(StartError::Late { peer, log });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the server in good order, or kills it when it takes too long. Its ports and data stay its own.
    pub async fn stop(&mut self) {
        let Some((server, program)) = self.running.last().zip(self.programs.last()) else {
            return;
        };
        server.signal(program.ends_on);
        let deadline = Instant::now() + STOP_WITHIN;
        while self.is_running() && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
        self.kill();
    }

    /// Kills the server at once, as a machine's failure would. Its ports and data stay its own.
    pub fn kill(&mut self) {
        // The server before what it needs.
        while self.running.pop().is_some() {}
    }

    /// Stops the server and starts it again on its ports and with its data.
    ///
    /// # Errors
    /// As [`start_again`](Self::start_again).
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.stop().await;
        self.start_again().await
    }

    /// Lets the server hang: its connections stay open and nothing answers, until [`resume`](Self::resume).
    pub fn pause(&self) {
        for tree in &self.running {
            tree.pause();
        }
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        for tree in &self.running {
            tree.signal_all(Signal::CONT);
        }
    }

    /// Whether its process runs; a paused one does.
    pub fn is_running(&self) -> bool {
        self.running.last().is_some_and(Tree::is_running)
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When it has no port of that name.
    pub fn address(&self, port: &str) -> SocketAddr {
        self.place.address(port)
    }

    /// Where it listens, in the form that its clients take: `http://…`, `postgres://…`.
    ///
    /// # Panics
    /// When it has no port of that name.
    pub fn url(&self, port: &str) -> String {
        self.place.reserved(port).to_string()
    }

    /// Each port's name and address, in the form that its clients take.
    pub fn urls(&self) -> Vec<(&'static str, String)> {
        self.place
            .ports
            .iter()
            .map(|port| (port.port.name, port.to_string()))
            .collect()
    }

    /// The folder with its configuration, data and log.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// What it wrote since its first start.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.place.folder().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its log, to be shown when something is not as expected.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// Starts a program that serves beside the server, in its folder and with its log. It ends with the value.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn beside(&self, program: &Program) -> io::Result<Tree> {
        self.place.start(program)
    }

    fn could_not_prepare(&self, source: io::Error) -> StartError {
        StartError::Prepare {
            peer: self.recipe.peer(),
            log: self.log_tail(),
            source,
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls = self.urls();
        f.debug_struct("Server")
            .field("peer", &self.recipe.peer())
            .field("urls", &urls)
            .finish_non_exhaustive()
    }
}

impl Place {
    fn new(recipe: &dyn Recipe) -> io::Result<Self> {
        let prefix = format!("opsctl-{}-", recipe.peer());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        // A server that runs as another user must get to its data.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let ports = recipe
            .ports()
            .iter()
            .map(|port| Reserved::choose(*port))
            .collect::<io::Result<_>>()?;
        Ok(Self { folder, ports })
    }

    /// The server's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a folder in the server's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.folder().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Writes a file in the server's folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let file = self.folder().join(name);
        fs::write(&file, text)?;
        Ok(file)
    }

    /// Where the port `name` is.
    ///
    /// # Panics
    /// When the recipe has no such port.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.reserved(name).address()
    }

    /// The number of the port `name`.
    ///
    /// # Panics
    /// When the recipe has no such port.
    pub fn port(&self, name: &str) -> u16 {
        self.reserved(name).number
    }

    /// Runs a program that prepares the data to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed.
    pub fn run(&self, program: &Program) -> io::Result<()> {
        let status = Tree::start(program, self.folder(), &self.log()?, Some(self.folder()))?.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("`{}` ended with {status}", program.shown())))
    }

    fn start(&self, program: &Program) -> io::Result<Tree> {
        Tree::start(program, self.folder(), &self.log()?, Some(self.folder()))
    }

    fn log(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder().join(LOG))
    }

    fn reserved(&self, name: &str) -> &Reserved {
        let found = self.ports.iter().find(|reserved| reserved.port.name == name);
        found.unwrap_or_else(|| panic!("there is no port `{name}`"))
    }
}

/// Whether a server ended because a stranger has one of its ports.
fn says_taken(log: &str) -> bool {
    let log = log.to_lowercase();
    ["address already in use", "eaddrinuse", "address in use"]
        .iter()
        .any(|words| log.contains(words))
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
