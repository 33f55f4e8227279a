//! Runs the same commands that a person would type, in the tour's folder, and reads their JSON. The tour has no way
//! of its own to do anything: what it shows is what the commands do.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::context::Stop;
use crate::error::Failure;
use crate::exit::Exit;

/// How long a command may take to undo what it did once it was asked to stop.
const UNDO: Duration = Duration::from_secs(30);

/// `opsctl` in the tour's folder.
#[derive(Debug)]
pub(crate) struct Opsctl {
    /// The executable.
    pub(crate) program: PathBuf,
    /// Where it is run: the folder with the tour's `opsctl.toml`.
    pub(crate) folder: PathBuf,
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// As it would be typed.
    pub(crate) typed: String,
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// Its document; null when it wrote none.
    pub(crate) document: Value,
    /// What it wrote to standard error.
    pub(crate) complaint: String,
    /// From start to end.
    pub(crate) took: Duration,
}

impl Opsctl {
    /// Runs `opsctl ARGUMENTS --json` to its end, or until `stop`.
    ///
    /// # Errors
    /// When it cannot be started, or was stopped; then it has ended.
    pub(crate) async fn run(&self, arguments: &[&str], stop: impl Future<Output = Stop>) -> Result<Ran, Failure> {
        let typed = format!("opsctl {}", arguments.join(" "));
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--json", "--no-input"]);
        run(command.current_dir(&self.folder), typed, stop).await
    }
}

/// Runs any command to its end, its output collected.
///
/// # Errors
/// As [`Opsctl::run`].
pub(crate) async fn run(
    command: &mut Command,
    typed: String,
    stop: impl Future<Output = Stop>,
) -> Result<Ran, Failure> {
    let started = Instant::now();
    // A group of its own: Ctrl-C reaches the tour alone, which then stops things in order.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| Failure::io(format!("could not start `{typed}`"), &error))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = tokio::select! {
        status = child.wait() => status.map_err(|error| Failure::io(format!("could not wait for `{typed}`"), &error))?,
        stop = stop => {
            stop_child(&mut child).await;
            return Err(Failure::new(stop.exit(), "interrupted", format!("interrupted during `{typed}`")));
        }
    };
    let text = stdout.await.unwrap_or_default();
    Ok(Ran {
        typed,
        code: status.code(),
        document: text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or(Value::Null),
        complaint: stderr.await.unwrap_or_default(),
        took: started.elapsed(),
    })
}

impl Ran {
    /// Whether the command ended with `exit`.
    pub(crate) fn ended(&self, exit: Exit) -> bool {
        self.code == Some(i32::from(exit.number()))
    }

    /// The number at a JSON pointer of the document.
    pub(crate) fn number(&self, pointer: &str) -> Option<f64> {
        self.document.pointer(pointer).and_then(Value::as_f64)
    }

    /// The text at a JSON pointer of the document.
    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.document.pointer(pointer).and_then(Value::as_str)
    }

    /// The failure of a command that had to succeed.
    pub(crate) fn failure(&self) -> Failure {
        let message = serde_json::from_str::<Value>(self.complaint.lines().last().unwrap_or_default())
            .ok()
            .and_then(|error| error.get("message").and_then(Value::as_str).map(str::to_owned));
        // A run that ended as it should not tells why in its report.
        let reasons = || {
            let reasons = self.document.get("reasons")?.as_array()?;
            let reasons: Vec<&str> = reasons.iter().filter_map(Value::as_str).collect();
            (!reasons.is_empty()).then(|| reasons.join("; "))
        };
        let told = message
            .or_else(reasons)
            .unwrap_or_else(|| self.complaint.trim().to_owned());
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        let exit = self
            .code
            .and_then(|code| u8::try_from(code).ok())
            .and_then(Exit::from_number);
        let failure = Failure::new(
            exit.unwrap_or(Exit::Failed),
            "act_failed",
            format!("`{}` ended with {code}", self.typed),
        );
        if told.is_empty() { failure } else { failure.cause(told) }
    }
}

async fn stop_child(child: &mut Child) {
    if let Some(pid) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::TERM);
    }
    if timeout(UNDO, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn collect(stream: Option<impl tokio::io::AsyncRead + Unpin + Send + 'static>) -> tokio::task::JoinHandle<String> {
    tokio::spawn(async move {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What could be read before an error is still worth showing.
            let _ = BufReader::new(stream).read_to_end(&mut bytes).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
