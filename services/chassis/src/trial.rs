//! For the tests of services: the service's real binary, started on free ports with its own files, watched, killed, and
//! gone when dropped. It panics where a test would. No product code may use it, hence its feature.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where every service tells its health over HTTP.
pub const PROBES: [&str; 6] = [
    "/healthz",
    "/readyz",
    "/health",
    "/health/live",
    "/health/ready",
    "/health/startup",
];

/// Text that, written to a log as it came, would look like a line of the service's own; see
/// [`Instance::check_log`].
pub const FORGED: &str = "a\n{\"level\":\"ERROR\",\"message\":\"forged\"}";

/// How to start a service's binary.
#[derive(Debug, Clone)]
pub struct Trial {
    exe: PathBuf,
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Trial {
    /// The binary (`env!("CARGO_BIN_EXE_…")`) over the files in `data`. It drains without delay, for at most 10 s.
    pub fn new(exe: &str, data: &Path) -> Self {
        Self {
            exe: exe.into(),
            data: data.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
        }
        .env("DRAIN_DELAY", "0s")
        .env("DRAIN_TIMEOUT", "10s")
        .env("HTTP_ADDR", "127.0.0.1:0")
        .env("GRPC_ADDR", "127.0.0.1:0")
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With a variable of the environment; a later one of the same name wins.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(&self.args)
            .env_clear()
            .env("DATA_DIR", &self.data)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> Instance {
        let instance = self.launch().await;
        instance.until_ready().await;
        instance
    }

    /// Starts it and waits until it says where it listens.
    pub async fn launch(&self) -> Instance {
        let mut child = self.command().spawn().expect("the service's binary can be started");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let unset = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut instance = Instance {
            child,
            lines,
            http: unset,
            grpc: unset,
        };
        let told = until("it says where it listens", || {
            let status = instance.child.try_wait().expect("it can be waited for");
            assert!(
                status.is_none(),
                "it ended at start: {status:?}, {:?}",
                instance.lines()
            );
            instance.lines().iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let address = |name| line.get(name)?.as_str()?.parse::<SocketAddr>().ok();
                Some((address("http")?, address("grpc")?))
            })
        });
        (instance.http, instance.grpc) = told.await;
        instance
    }

    /// Runs it to its end, which must come by itself: exit code, stdout, stderr.
    pub async fn run_to_end(&self) -> (Option<i32>, String, String) {
        let mut command = self.command();
        command.stderr(Stdio::piped());
        let output = tokio::time::timeout(
            PATIENCE,
            tokio::process::Command::from(command).kill_on_drop(true).output(),
        )
        .await
        .expect("it ends by itself")
        .expect("the service's binary can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

/// A running service; killed when dropped.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    /// Where it answers gRPC.
    pub grpc: SocketAddr,
}

impl Instance {
    /// Its gRPC address as tonic wants it.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// A connection to its gRPC address, made when it is used, and again when the service was restarted.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(self.grpc_url())
            .expect("it is a URL")
            .connect_timeout(Duration::from_secs(1))
            .timeout(Duration::from_secs(10))
            .connect_lazy()
    }

    /// Its HTTP address with a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What it has written to stdout so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for a path; fails when nobody answers.
    pub async fn get(&self, path: &str) -> std::io::Result<Reply> {
        request(
            self.http,
            format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await
    }

    /// Sends a JSON body to a path.
    pub async fn post(&self, path: &str, body: &str) -> std::io::Result<Reply> {
        post(self.http, path, body).await
    }

    /// Every path of [`PROBES`] answers 200.
    pub async fn check_probes(&self) {
        for path in PROBES {
            assert_eq!(self.get(path).await.expect("an answer").status, 200, "{path}");
        }
    }

    /// Every line of the log is one JSON object, and none was written by [`FORGED`].
    pub fn check_log(&self) {
        for line in self.lines() {
            let line: Value = serde_json::from_str(&line).expect("every line of the log is one JSON object");
            assert_ne!(line["message"], "forged");
        }
    }

    /// The value of a metric: the sum over all series whose line starts with `series`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.expect("metrics are answered").body;
        let matching: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(series))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        assert!(!matching.is_empty(), "no series {series} in\n{text}");
        matching.iter().sum()
    }

    /// Waits until it takes traffic.
    pub async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.get("/health/ready").await.is_ok_and(|reply| reply.status == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "it never became ready: {:?}", self.lines());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: its connections stay open, and it does nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a pid");
        kill_process(pid, signal).expect("it can be signalled");
    }

    /// Waits until it has ended by itself.
    pub async fn until_ended(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().expect("it can be waited for")).await
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Status line and headers as they came.
    pub head: String,
    /// Its body, without chunk marks.
    pub body: String,
}

impl Reply {
    /// A header's value; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a JSON body to a path of whoever listens at `address`.
pub async fn post(address: SocketAddr, path: &str, body: &str) -> std::io::Result<Reply> {
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    request(address, text.as_bytes()).await
}

/// Sends bytes to `address` and reads one HTTP/1.1 answer until the connection is closed.
pub async fn request(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Reply> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // The service may answer and close before it has read all of a body that is too large.
        let sent = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        if answer.is_empty() {
            sent?;
            read?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await??;
    let text = String::from_utf8_lossy(&answer);
    let broken = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole HTTP answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(broken)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        dechunk(body).ok_or_else(broken)?
    } else {
        body.to_owned()
    };
    Ok(Reply {
        status,
        head: head.to_owned(),
        body,
    })
}

fn dechunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// Asks again and again until there is something, or panics with `what` was waited for.
pub async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same with a question that takes time.
pub async fn until_async<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes an empty database on the PostgreSQL server at `url`, whose user may do that, and says its URL.
pub async fn new_database(url: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("the server answers");
    let serving = tokio::spawn(connection);
    let name = format!("t{}", uuid::Uuid::new_v4().simple());
    client
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .expect("a database can be made");
    serving.abort();
    let (server, _) = url.rsplit_once('/').expect("it names a database");
    format!("{server}/{name}")
}

/// How a service's store reaches the database at `url`.
pub fn database_settings(url: &str) -> crate::postgres::Settings {
    crate::postgres::Settings::read("test", |name| (name == "DATABASE_URL").then(|| url.into()))
        .expect("the URL is right")
        .expect("there is one")
}

/// The seed of a test with chance in it: `OPSCTL_SEED`, or a new one; printed, so that a failure can be repeated.
#[expect(clippy::print_stdout, reason = "a failed test shows what it printed")]
pub fn seed() -> u64 {
    let seed = variable("OPSCTL_SEED").unwrap_or_else(rand::random);
    println!("OPSCTL_SEED={seed}");
    seed
}

/// How often a test kills: `OPSCTL_KILLS`, or `usual`.
pub fn kills(usual: u32) -> u32 {
    variable("OPSCTL_KILLS").unwrap_or(usual)
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
