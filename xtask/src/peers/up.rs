//! Servers for trying things out. One process holds them and they end with it, however it ends, so that there is never
//! a server that nobody holds; `down` only has to end that process. A locked file says which process holds servers.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufRead, BufReader, Seek, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use peers::Server;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// What the holder writes once every server is ready.
const READY: &str = "ready";

/// Starts the servers and holds them until Ctrl-C or `down`.
///
/// # Errors
/// When a server does not start. Those that did are ended.
pub fn hold(names: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Listened to first: an end during the start leaves nothing, too.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let ended = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let holder = Holder::register()?;
        let work = async {
            let mut starting = JoinSet::new();
            for name in names.iter().cloned() {
                starting.spawn(async move { Server::launch_named(&name).await.map(|server| (name, server)) });
            }
            let mut held = Vec::new();
            while let Some(started) = starting.join_next().await {
                let (name, server) = started??;
                for (port, url) in server.urls() {
                    say(&format!("{name:<13} {port:<15} {url}"));
                }
                held.push(server);
            }
            say(READY);
            std::future::pending::<Result<()>>().await
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = ended => Ok(()),
        };
        drop(holder);
        outcome
    })
}

/// Starts the servers in a process of their own and returns once they are ready.
///
/// # Errors
/// When one of them does not start.
pub fn detach(names: &[String]) -> Result<()> {
    let mut holder = Command::new(std::env::current_exe()?);
    holder.args(["peers", "up"]).args(names);
    // Nothing of ours stays open in it: who reads our output must see its end.
    let mut complaints = tempfile::tempfile()?;
    holder
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(complaints.try_clone()?)
        .process_group(0);
    let mut holder = holder
        .spawn()
        .context("could not start the process that holds the servers")?;
    for line in holder
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines)
    {
        let line = line?;
        if line == READY {
            println!("`cargo xtask peers down` ends them");
            return Ok(());
        }
        println!("{line}");
    }
    holder.wait()?;
    complaints.rewind()?;
    bail!("the servers did not start: {}", io::read_to_string(complaints)?.trim());
}

/// Ends every process that holds servers, and waits until they are gone.
///
/// # Errors
/// When the folder of the holders cannot be read.
pub fn down() -> Result<()> {
    let mut ended = 0;
    for entry in fs::read_dir(folder()?)? {
        let path = entry?.path();
        let Some(pid) = held(&path)? else {
            // Its holder was killed, and its servers with it.
            fs::remove_file(&path)?;
            continue;
        };
        // Whoever has the lock removes the file before it lets go.
        Command::new("kill").arg(pid.to_string()).status()?;
        if let Ok(file) = File::open(&path) {
            file.lock()?;
        }
        ended += 1;
    }
    println!("{ended} ended");
    Ok(())
}

/// The number of the process that holds servers and this file, if it still does.
fn held(path: &Path) -> Result<Option<u32>> {
    let file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(path.file_name().and_then(|name| name.to_str()?.parse().ok())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// A file named by this process, locked while it holds servers.
struct Holder {
    path: PathBuf,
    _lock: File,
}

impl Holder {
    fn register() -> Result<Self> {
        let path = folder()?.join(std::process::id().to_string());
        let file = File::create(&path)?;
        file.lock()?;
        Ok(Self { path, _lock: file })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn folder() -> Result<PathBuf> {
    let folder = peers::cache().join("up");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A line for whoever listens; after `detach` nobody does.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
